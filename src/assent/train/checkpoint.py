"""The state of a running stage: one object, saved whole, atomically."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from assent.errors import ArtefactError
from assent.protocols import Stateful

FORMAT = 1
"""Version of the file's layout; raised when a reader of older files is needed."""


class StateFile:
    """Saves every part into `state.pt` when due, and brings them all back. Implements `protocols.Checkpoint`.

    The file is written under another name, flushed to the disk and renamed, so that a kill at any instant leaves the
    last whole state. When a save is due depends on the clock and changes no result: a resumed run repeats the steps
    since, bit for bit.

    Args:
        folder: where `state.pt` lives; survives a kill.
        parts: everything whose state matters: weights, optimisers, cursors, random streams, controllers, logs.
        every_seconds: longest work that a kill may cost; 0 saves after each step.
    """

    def __init__(
        self,
        folder: Path,
        parts: Mapping[str, Stateful],
        *,
        every_seconds: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.parts, self.every, self.clock = folder / "state.pt", parts, every_seconds, clock
        self.saved_at = clock()

    def restore(self) -> int:
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise ArtefactError(
                "the saved state cannot be read",
                got=f"{self.path}: {error}",
                why="continuing without it would silently start over",
                fix="restore the file from a copy, or delete its folder to run the stage from its start",
            ) from error
        if state["format"] != FORMAT or set(state["parts"]) != set(self.parts):
            raise ArtefactError(
                "the saved state belongs to another set-up",
                got=f"format {state['format']}, parts {sorted(state['parts'])}; wanted {FORMAT}, {sorted(self.parts)}",
                why="a part without its state would silently start fresh",
                fix=f"delete {self.path.parent} to run the stage from its start",
            )
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        return int(state["done"])

    def after_step(self, done: int) -> None:
        if self.clock() - self.saved_at >= self.every:
            self.save(done)

    def save(self, done: int) -> None:
        """Write the state of all parts after `done` finished steps."""
        whole = {"format": FORMAT, "done": done, "parts": {n: p.state_dict() for n, p in self.parts.items()}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".tmp")
        with draft.open("wb") as file:
            torch.save(whole, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self.saved_at = self.clock()
