"""TensorBoard as an extra view of the metrics: `pip install 'assent[tensorboard]'`, then `assent run --tensorboard`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assent.errors import ConfigError
from assent.protocols import State


class TensorBoardSink:
    """Writes event files; steps repeated after a resume replace the earlier ones.

    Args:
        folder: for the event files, outside the artefact because they hold times.

    Raises:
        ConfigError: the package is not installed.
    """

    name = "tensorboard"

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "TensorBoard was asked for but is not installed",
                got=str(error),
                why="the metrics would silently not be there",
                fix="pip install 'assent[tensorboard]', or leave out --tensorboard: metrics.jsonl is written anyway",
            ) from error
        self.make, self.folder = SummaryWriter, folder
        self.next_step = 0
        self.writer: Any = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.writer is None:
            self.writer = self.make(str(self.folder), purge_step=self.next_step)
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.next_step = step + 1

    def progress(self, done: int, total: int) -> None:
        """TensorBoard has no progress bar."""

    def state_dict(self) -> State:
        if self.writer is not None:
            self.writer.flush()
        return {"next_step": self.next_step}

    def load_state_dict(self, state: State) -> None:
        self.close()
        self.next_step = int(state["next_step"])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
