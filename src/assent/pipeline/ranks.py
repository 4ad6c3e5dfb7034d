"""Equal processes that run one recipe together, as `torchrun` starts them: the first writes, the others follow.

Every process runs every stage, since a learner adds its gradient to those of the others at each step. The first holds
the run's lock and makes the artefacts. The others work on copies of what an interrupted attempt left, in folders of
their own that go away with the stage, so that all resume from one state and none writes where another does.
"""

import shutil
from pathlib import Path
from typing import Protocol


class Ranks(Protocol):
    """The group of processes."""

    @property
    def rank(self) -> int:
        """Of this process; 0 is the first."""
        ...

    def wait(self) -> None:
        """Return when every process has come here."""
        ...


class Alone:
    """One process."""

    rank = 0

    def wait(self) -> None:
        return


def follow(work: Path, ranks: Ranks) -> tuple[Path, Path]:
    """The folders that this process fills and resumes from; those of all are as the first process left them."""
    out, state = work / "out", work / "state"
    if ranks.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        state.mkdir(exist_ok=True)
    ranks.wait()
    if ranks.rank != 0:
        own = work / f"rank-{ranks.rank}"
        shutil.rmtree(own, ignore_errors=True)
        out, state = (Path(shutil.copytree(folder, own / folder.name)) for folder in (out, state))
    ranks.wait()
    return out, state
