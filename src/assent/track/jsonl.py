"""JSON lines: the truth that every other view follows.

`metrics.jsonl` holds one object per logged step and nothing that depends on the clock, so an uninterrupted run and a
resumed one write the same bytes. `timing.jsonl` holds seconds, and keeps what an interrupted attempt spent.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from assent.errors import ArtefactError
from assent.protocols import State

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"


class JsonlSink:
    """Writes `metrics.jsonl`. Whatever lies beyond the restored length is cut off before the first new line.

    Args:
        path: of the file; what a killed run left there is cut to the saved state, or to nothing without one.
    """

    name = "jsonl"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = 0
        self.file: BinaryIO | None = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        line = json.dumps({"step": step} | {k: _json(v) for k, v in metrics.items()}, sort_keys=True) + "\n"
        self.length += self._opened().write(line.encode())

    def progress(self, done: int, total: int) -> None:
        """A file has no progress bar."""

    def state_dict(self) -> State:
        """How many bytes belong to this state; they are on the disk when this returns."""
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())
        return {"bytes": self.length}

    def load_state_dict(self, state: State) -> None:
        """Raises `ArtefactError` when the file is shorter than the state says."""
        self.close()
        found = self.path.stat().st_size if self.path.exists() else 0
        if found < state["bytes"]:
            raise ArtefactError(
                f"{self.path} is shorter than its saved state",
                got=f"{found} bytes instead of {state['bytes']}",
                why="metrics of finished steps are lost, and the rest would look whole",
                fix="bring the file back from a copy, or delete the stage's folder below .work to start it over",
            )
        self.length = int(state["bytes"])

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _opened(self) -> BinaryIO:
        if self.file is None:
            self.path.touch()
            self.file = self.path.open("r+b")
            self.file.truncate(self.length)
            self.file.seek(self.length)
        return self.file


class TimingFile:
    """Writes `timing.jsonl`: step, seconds since the last step, and seconds of each phase. Appends across attempts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, seconds: float, phases: Mapping[str, float]) -> None:
        rounded = {name: round(s, 6) for name, s in sorted(phases.items())}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 6), "phases": rounded}) + "\n")


def _json(value: float) -> float | str | None:
    """nan becomes null; an infinity, which JSON has no number for, becomes text that `float` reads."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, null as nan; the last line of a killed run is left out when it is cut off."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    rows = [json.loads(line) for line in lines]
    return [{k: math.nan if v is None else v if k == "step" else float(v) for k, v in row.items()} for row in rows]
