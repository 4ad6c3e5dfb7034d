"""What the select loop keeps, one JSON line each, in a file that follows the saved state."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from assent.protocols import State
from assent.types import Rollout, ScoreEvents

Rows = Callable[[Sequence[Rollout], Sequence[Sequence[ScoreEvents]]], list[dict[str, object]]]


def lines_of(path: Path) -> list[str]:
    """The lines of a file of JSON lines. `str.splitlines` also cuts at U+0085, U+2028 and U+2029, which JSON leaves as
    they are and any model may write."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


class Lines:
    """Appends JSON lines to a file and can go back to where a state was saved. Implements `protocols.Keep`.

    Args:
        path: the file.
        rows: what to write for a step's rollouts and each scorer's scores of them; called once per step.
    """

    def __init__(self, path: Path, rows: Rows) -> None:
        self.path, self.rows, self.written = path, rows, 0
        path.write_text("", encoding="utf-8")

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> None:
        rows = self.rows(rollouts, scores)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        self.written += len(rows)

    def state_dict(self) -> State:
        return {"written": self.written, "text": self.path.read_text(encoding="utf-8")}

    def load_state_dict(self, state: State) -> None:
        self.written = state["written"]
        self.path.write_text(state["text"], encoding="utf-8")
