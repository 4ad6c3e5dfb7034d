"""Answers that were paid for, kept on disk beyond a run."""

import os
import sqlite3
from pathlib import Path


class DiskNotes:
    """Texts by key in an SQLite file that several runs may share; one thread of a process.

    Args:
        path: of the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=60.0, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, text TEXT NOT NULL)")

    def get(self, key: str) -> str | None:
        row = self._database.execute("SELECT text FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, text: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, text))


def kept_answers() -> Path:
    """Where answers are kept: in `$ASSENT_CACHE`, else `assent` in `$XDG_CACHE_HOME` or `~/.cache`. Not a setting of a
    recipe, since its growing contents would make another artefact of every run."""
    own = os.environ.get("ASSENT_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(own) if own else Path(shared) / "assent").expanduser() / "answers.sqlite"
