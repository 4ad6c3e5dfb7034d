"""Tokenised examples to batches: seeded, sharded, and resumable from nothing but a step number.

Which examples make up step s is a pure function of (seed, epoch, batch size), so the state of a source is its cursor.
The cursor counts batches handed out and moves before the batch is yielded: a state saved while a batch is being
trained on, or after, names the next one.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from assent.errors import ContractError, DataError
from assent.protocols import State
from assent.records import Degree, Preference
from assent.types import Batch, ComparisonBatch, Sequences, TokenBatch

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, slots=True)
class TokenExample:
    """A prompt and the response to learn, as token ids; both need at least one token."""

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]

    def __post_init__(self) -> None:
        if not len(self.prompt_ids) or not len(self.response_ids):
            raise DataError(
                "an example needs at least one prompt token and one response token",
                got=f"{len(self.prompt_ids)} prompt tokens, {len(self.response_ids)} response tokens",
                why="the first response token is predicted from the last prompt token",
                fix="give the prompt a BOS token, the response its end token, or leave the row out",
            )


@dataclass(frozen=True, slots=True)
class ComparisonExample:
    """K responses to one prompt, as token ids, and what one annotator said of their pairs."""

    prompt_ids: Sequence[int]
    responses: Sequence[Sequence[int]]
    preferences: Sequence[Preference]

    def __post_init__(self) -> None:
        if not len(self.prompt_ids) or not all(len(r) for r in self.responses):
            raise DataError(
                "a comparison needs at least one token in its prompt and in every response",
                got=f"{len(self.prompt_ids)} prompt tokens, responses of {[len(r) for r in self.responses]} tokens",
                why="the score sits on the last token of a response",
                fix="give the prompt a BOS token, every response its end token, or leave the row out",
            )

    @property
    def strict(self) -> list[Preference]:
        """The pairs that carry an order."""
        return [p for p in self.preferences if not p.tie]


def no_margin(degree: Degree) -> float:
    """Margin 0 whatever the degree: the plain Bradley-Terry loss."""
    return 0.0


class TokenBatches:
    """Prompts and responses for SFT; implements `BatchSource`.

    Args:
        examples: at least one.
        batch_size: sequences per optimiser step, over all ranks. The last step of an epoch takes what is left.
        epochs: passes over the examples, each in its own order.
        seed: of the orders.
        shard: `(rank, world)`; this rank takes its share of every global batch. The global batches do not depend on it.

    Raises:
        DataError: there is no example, or some batch has fewer sequences than there are ranks.
    """

    def __init__(
        self,
        examples: Sequence[TokenExample],
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self._examples = examples
        digest = _digest(ids for e in examples for ids in (e.prompt_ids, e.response_ids))
        order = _Order(len(examples), batch_size, epochs, seed, *shard)
        self._walk = _Walk(order, digest, self._collate)

    def __len__(self) -> int:
        return len(self._walk.order)

    def __iter__(self) -> Iterator[tuple[int, TokenBatch]]:
        return iter(self._walk)

    def state_dict(self) -> State:
        return self._walk.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._walk.load_state_dict(state)

    def _collate(self, epoch: int, rows: Tensor) -> TokenBatch:
        chosen = [self._examples[i] for i in rows.tolist()]
        return TokenBatch(Sequences.of([e.prompt_ids for e in chosen], [e.response_ids for e in chosen]))


class PackedBatches:
    """Documents packed into rows for pretraining; implements `BatchSource`.

    The documents of an epoch, in their order, become one stream `END doc END doc END ...`. Row i is one context token
    and the `length` tokens after it, and the next row's context is this row's last token: every token of every
    document, its end token included, is predicted exactly once per epoch. The rows are then visited in random order.

    A row does not know where documents meet in it: a token sees the documents before it in its row, and learns from
    the end token between them to disregard them (GPT-2 and GPT-3 are trained so).

    Args:
        documents: token ids, without end tokens; none empty.
        end_id: the end token; it also stands before the first document as context.
        length: tokens predicted per row. The last row of an epoch predicts `tail_tokens`, which may be fewer.
        batch_size: rows per optimiser step, over all ranks.
        epochs, seed, shard: as in `TokenBatches`.

    Raises:
        DataError: there is no document, one is empty, or some batch has fewer rows than there are ranks.
    """

    def __init__(
        self,
        documents: Iterable[Sequence[int]],
        *,
        end_id: int,
        length: int,
        batch_size: int,
        epochs: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        if length < 1:
            raise DataError("a row must predict something", got=f"{length=}", why="it has no loss", fix="length >= 1")
        self._documents = [torch.tensor([*ids, end_id], dtype=torch.int32) for ids in documents]
        empty = [i for i, ids in enumerate(self._documents) if len(ids) == 1]
        if empty:
            raise DataError(
                "a document has no tokens",
                got=f"{len(empty)} empty of {len(self._documents)}, the first is number {empty[0]} (from 0)",
                why="an end token after an end token teaches the model to stop at once",
                fix="leave empty documents out and count them when reading",
            )
        self._end_id, self._length, self._seed = end_id, length, seed
        self.tokens = sum(len(ids) for ids in self._documents)
        self.rows = -(-self.tokens // length)
        self.tail_tokens = self.tokens - (self.rows - 1) * length if self.rows else 0
        digest = _digest([torch.tensor([end_id, length]), *self._documents])
        self._walk = _Walk(_Order(self.rows, batch_size, epochs, seed, *shard), digest, self._collate)
        self._packed: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._walk.order)

    def __iter__(self) -> Iterator[tuple[int, TokenBatch]]:
        return iter(self._walk)

    def state_dict(self) -> State:
        return self._walk.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._walk.load_state_dict(state)

    @property
    def report(self) -> str:
        """What one epoch trains on, in one line."""
        return (
            f"packed {len(self._documents):,} documents, {self.tokens:,} tokens with their end tokens, into "
            f"{self.rows:,} rows of {self._length:,}; the last row predicts {self.tail_tokens:,}; nothing dropped"
        )

    def _stream(self, epoch: int) -> Tensor:
        """The context token and every token of the epoch; kept until another epoch is asked for."""
        if self._packed is None or self._packed[0] != epoch:
            order = _permutation(len(self._documents), "documents", self._seed, epoch)
            parts = [self._documents[i] for i in order.tolist()]
            self._packed = (epoch, torch.cat([torch.tensor([self._end_id], dtype=torch.int32), *parts]))
        return self._packed[1]

    def _collate(self, epoch: int, rows: Tensor) -> TokenBatch:
        stream = self._stream(epoch)
        lengths = (self.tokens - rows * self._length).clamp(max=self._length)
        positions = torch.arange(int(lengths.max()) + 1)
        inside = positions <= lengths[:, None]
        ids = stream[(rows[:, None] * self._length + positions).clamp(max=self.tokens)].long()
        ids = torch.where(inside, ids, torch.zeros_like(ids))
        return TokenBatch(Sequences(ids, torch.ones_like(lengths), lengths, inside[:, 1:]))


class ComparisonBatches:
    """Comparisons for reward models; implements `BatchSource`. One comparison is one unit.

    Pairs that the annotator called ties carry no order: they are left out of the pairs and counted in `ties`. A
    comparison that is nothing but ties trains nothing: it is kept out and counted in `all_tied`.

    Args:
        examples: at least one with an ordered pair.
        batch_size: comparisons per optimiser step, over all ranks.
        margin: how far apart the scores of a pair should be at least, in score units, by the stated degree.
        epochs, seed, shard: as in `TokenBatches`.

    Raises:
        DataError: no comparison has an ordered pair, or some batch has fewer comparisons than there are ranks.
    """

    def __init__(
        self,
        examples: Sequence[ComparisonExample],
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
        margin: Callable[[Degree], float] = no_margin,
    ) -> None:
        self._examples = [e for e in examples if e.strict]
        self._margin = margin
        self.all_tied = len(examples) - len(self._examples)
        self.pairs = sum(len(e.strict) for e in self._examples)
        self.ties = sum(len(e.preferences) - len(e.strict) for e in examples)
        digest = _digest(part for e in self._examples for part in _parts(e))
        order = _Order(len(self._examples), batch_size, epochs, seed, *shard)
        self._walk = _Walk(order, digest, self._collate)

    def __len__(self) -> int:
        return len(self._walk.order)

    def __iter__(self) -> Iterator[tuple[int, ComparisonBatch]]:
        return iter(self._walk)

    def state_dict(self) -> State:
        return self._walk.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._walk.load_state_dict(state)

    @property
    def report(self) -> str:
        """What one epoch trains on, in one line."""
        return (
            f"{len(self._examples):,} comparisons with {self.pairs:,} ordered pairs; {self.ties:,} ties left out of "
            f"the pairs; {self.all_tied:,} comparisons kept out because all their pairs are ties"
        )

    def _collate(self, epoch: int, rows: Tensor) -> ComparisonBatch:
        chosen = [self._examples[i] for i in rows.tolist()]
        counts = torch.tensor([len(e.responses) for e in chosen])
        starts = (counts.cumsum(0) - counts).tolist()
        pairs = [(g, starts[g], p) for g, e in enumerate(chosen) for p in e.strict]
        return ComparisonBatch(
            Sequences.of([e.prompt_ids for e in chosen for _ in e.responses], [r for e in chosen for r in e.responses]),
            counts,
            better_P=torch.tensor([start + p.better for _, start, p in pairs]),
            worse_P=torch.tensor([start + p.worse for _, start, p in pairs]),
            group_P=torch.tensor([g for g, _, _ in pairs]),
            margin_P=torch.tensor([self._margin(p.degree) for _, _, p in pairs], dtype=torch.float32),
        )


# ------------------------------------------------------------------------------------------------ order and cursor


@dataclass(frozen=True, slots=True)
class _Order:
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
        return _permutation(self.count, "rows", self.seed, epoch)

    def share(self, rows: Tensor, index: int) -> Tensor:
        """This rank's rows of batch `index` within an epoch's rows."""
        return rows[index * self.batch_size : (index + 1) * self.batch_size][self.rank :: self.world]


@dataclass(slots=True)
class _Walk(Generic[B]):
    """The cursor over an order."""

    order: _Order
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


def _permutation(count: int, name: str, seed: int, epoch: int) -> Tensor:
    """The order of one epoch, from a stream of its own."""
    words = hashlib.sha256(f"{name}/{seed}/{epoch}".encode()).digest()[:7]
    return torch.randperm(count, generator=torch.Generator().manual_seed(int.from_bytes(words, "big")))


def _digest(parts: Iterable[Sequence[int] | Tensor]) -> str:
    """Identity of the data in its order; lengths are hashed too, so that moving a boundary is seen."""
    digest = hashlib.sha256()
    for part in parts:
        ids = torch.as_tensor(part, dtype=torch.int64)
        digest.update(len(ids).to_bytes(8, "little") + ids.numpy().tobytes())
    return digest.hexdigest()[:16]


def _parts(example: ComparisonExample) -> Iterator[Sequence[int]]:
    yield example.prompt_ids
    yield from example.responses
    degrees = list(Degree)
    for p in example.preferences:
        yield (p.better, p.worse, p.tie, degrees.index(p.degree))
