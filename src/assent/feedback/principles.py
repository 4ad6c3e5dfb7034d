"""A constitution: principles in a file, one of which is drawn at random for each critique and each comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from assent.errors import DataError

SHIPPED = Path(__file__).with_name("principles.yaml")


@dataclass(frozen=True, slots=True)
class Principle:
    """One principle.

    Args:
        name: unique in its file.
        critique: asks what is wrong with a response.
        revision: asks for a better one.
        choose: asks which of two responses is better.
        about: what it looks at, in one word; may be empty.
    """

    name: str
    critique: str
    revision: str
    choose: str
    about: str = ""


def read_principles(path: Path | None = None) -> tuple[Principle, ...]:
    """The principles of a YAML file, a list of mappings with the fields of `Principle`; without a path, the sixteen
    that ship.

    Raises:
        DataError: there is no such file, or it is not in that form.
    """
    where = path or SHIPPED
    try:
        rows = yaml.safe_load(where.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise _wrong(where, str(error)) from error
    if not isinstance(rows, list) or not rows:
        raise _wrong(where, f"{type(rows).__name__} instead of a list of principles")
    principles = tuple(_principle(where, row) for row in rows)
    names = [p.name for p in principles]
    if len(set(names)) < len(names):
        raise _wrong(where, f"two principles of one name: {sorted({n for n in names if names.count(n) > 1})}")
    return principles


def _principle(where: Path, row: Any) -> Principle:
    known = [f.name for f in fields(Principle)]
    if not isinstance(row, dict) or not set(row) <= set(known) or not set(known) - {"about"} <= set(row):
        keys = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise _wrong(where, f"{keys} where a principle has {', '.join(known)} (about may be left out)")
    empty = [k for k, v in row.items() if not isinstance(v, str) or (not v.strip() and k != "about")]
    if empty:
        raise _wrong(where, f"no text in {', '.join(empty)} of {row.get('name')!r}")
    return Principle(**{k: v.strip() for k, v in row.items()})


def drawn(principles: Sequence[Principle], rng: Any) -> Principle:
    """One at random."""
    return principles[rng.randrange(len(principles))]


def _wrong(where: Path, got: str) -> DataError:
    return DataError(
        "the principles cannot be read",
        got=f"{where}: {got}",
        why="a model cannot be judged by what nobody has written down",
        fix="write a YAML list of {name, about, critique, revision, choose}, as assent/feedback/principles.yaml has it",
    )
