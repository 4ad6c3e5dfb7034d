"""Tokenised examples to batches: seeded, sharded, and resumable from nothing but a step number.

Which examples make up step s is a pure function of (seed, epoch, batch size), so the state of a source is its cursor.
The cursor counts batches handed out and moves before the batch is yielded: a state saved while a batch is being
trained on, or after, names the next one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assent.data.order import Order, Walk, digest_of, permutation
from assent.errors import DataError
from assent.protocols import State
from assent.records import Preference
from assent.types import Sequences, TokenBatch


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
    """K responses to one prompt, as token ids, what was said of their pairs, and which are unsafe if anybody said."""

    prompt_ids: Sequence[int]
    responses: Sequence[Sequence[int]]
    preferences: Sequence[Preference]
    unsafe: Sequence[bool] = ()

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
        digest = digest_of(ids for e in examples for ids in (e.prompt_ids, e.response_ids))
        order = Order(len(examples), batch_size, epochs, seed, *shard)
        self._walk = Walk(order, digest, self._collate)

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
        digest = digest_of([torch.tensor([end_id, length]), *self._documents])
        self._walk = Walk(Order(self.rows, batch_size, epochs, seed, *shard), digest, self._collate)
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
            order = permutation(len(self._documents), "documents", self._seed, epoch)
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
