"""Which examples make up a step, and where a source stands: a pure function of seed, epoch and batch size."""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from assent.errors import ContractError, DataError
from assent.protocols import State
from assent.types import Batch

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, slots=True)
class Order:
    """Which rows make up a step. Global batches depend on count, batch size and seed only, never on the shard."""

    count: int
    batch_size: int
    epochs: int
    seed: int
    rank: int
    world: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DataError(
                "there is nothing to train on",
                got=f"{self.count} examples",
                why="an empty run would look like a finished one",
                fix="look at the report of the reader: what was read, kept, refused or kept out",
            )
        if self.epochs < 1 or self.batch_size < 1 or not 0 <= self.rank < self.world:
            raise DataError(
                "epochs and batch size must be at least 1, and 0 <= rank < world",
                got=f"epochs={self.epochs}, batch_size={self.batch_size}, rank={self.rank}, world={self.world}",
                why="there would be no step, or no share of one",
                fix="mend the setting",
            )
        smallest = min(self.batch_size, self.count - (self.steps_per_epoch - 1) * self.batch_size)
        if smallest < self.world:
            raise DataError(
                f"a batch is too small for {self.world} ranks",
                got=f"{self.count} examples in batches of {self.batch_size}; the smallest batch has {smallest}",
                why="a rank without a share would leave the others waiting, and dropping rows is not done in silence",
                fix="change batch_size so that the last batch of an epoch has one example per rank, or use fewer ranks",
            )

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.batch_size)

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch

    def rows(self, epoch: int) -> Tensor:
        return permutation(self.count, "rows", self.seed, epoch)

    def share(self, rows: Tensor, index: int) -> Tensor:
        """This rank's rows of batch `index` within an epoch's rows."""
        return rows[index * self.batch_size : (index + 1) * self.batch_size][self.rank :: self.world]


@dataclass(slots=True)
class Walk(Generic[B]):
    """The cursor over an order."""

    order: Order
    digest: str
    collate: Callable[[int, Tensor], B]
    step: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[tuple[int, B]]:
        known, rows = -1, torch.empty(0)
        while self.step < len(self.order):
            step = self.step
            epoch, index = divmod(step, self.order.steps_per_epoch)
            if epoch != known:
                known, rows = epoch, self.order.rows(epoch)
            batch = self.collate(epoch, self.order.share(rows, index))
            self.step = step + 1  # before the yield: what has been handed out is not handed out again
            yield step, batch

    def state_dict(self) -> State:
        order = self.order
        return {"step": self.step, "data": self.digest, "batch_size": order.batch_size, "seed": order.seed}

    def load_state_dict(self, state: State) -> None:
        here = self.state_dict()
        changed = [name for name in ("data", "batch_size", "seed") if state[name] != here[name]]
        if changed:
            raise ContractError(
                "the saved position belongs to other batches",
                got=", ".join(f"{name}: saved {state[name]!r}, now {here[name]!r}" for name in changed),
                why="step numbers would name other examples: some would be skipped and others repeated",
                fix="resume with the data, batch size and seed the run was started with, or start a new run",
            )
        self.step = int(state["step"])


def permutation(count: int, name: str, seed: int, epoch: int) -> Tensor:
    """The order of one epoch, from a stream of its own."""
    words = hashlib.sha256(f"{name}/{seed}/{epoch}".encode()).digest()[:7]
    return torch.randperm(count, generator=torch.Generator().manual_seed(int.from_bytes(words, "big")))


def digest_of(parts: Iterable[Sequence[int] | Tensor]) -> str:
    """Identity of the data in its order; lengths are hashed too, so that moving a boundary is seen."""
    digest = hashlib.sha256()
    for part in parts:
        ids = part.to(torch.int64).numpy() if isinstance(part, Tensor) else array("q", part)
        digest.update(len(ids).to_bytes(8, "little") + ids.tobytes())
    return digest.hexdigest()[:16]
