"""Whole documents packed into rows, each to itself: little is padded, and no document sees another.

Positions begin at 0 with every document, and transformers models take a fall in the positions for the border of another
sequence and keep attention within it. So a packed document has the log-probabilities it has alone.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from assent.data.order import Order, Walk, digest_of
from assent.errors import DataError
from assent.protocols import State
from assent.types import PackedSequences, TokenBatch

WINDOW = 256
"""Documents that are arranged together; more fill rows better and mix less."""


class DocumentBatches:
    """Documents for pretraining, packed but apart; implements `BatchSource`.

    A document's first token has nothing before it and is not predicted; every other token, its end token included, is
    predicted exactly once per epoch. A document longer than a row is cut into pieces, which are counted.

    Args:
        documents: token ids, without end tokens; none empty.
        end_id: closes each document.
        length: slots of a row.
        batch_size: rows per optimiser step, over all ranks.
        epochs, seed, shard: as in `TokenBatches`. The rows are made once; their order changes with the epoch.

    Raises:
        DataError: there is no document, one is empty, or `length` is below 2.
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
        if length < 2:
            raise DataError("a row must predict something", got=f"{length=}", why="it has no loss", fix="length >= 2")
        whole = [[*ids, end_id] for ids in documents]
        empty = [i for i, ids in enumerate(whole) if len(ids) == 1]
        if empty:
            raise DataError(
                "a document has no tokens",
                got=f"{len(empty)} empty of {len(whole)}, the first is number {empty[0]} (from 0)",
                why="an end token alone teaches nothing",
                fix="leave empty documents out and count them when reading",
            )
        pieces = [ids[i : i + length] for ids in whole for i in range(0, len(ids), length)]
        # A piece of one token has nothing to predict and nothing to be predicted from.
        pieces = [piece for piece in pieces if len(piece) > 1]
        self.documents, self.pieces, self.length = len(whole), len(pieces), length
        self.tokens = sum(len(piece) for piece in pieces)
        order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed)).tolist()
        self.rows = list(_arrange([pieces[i] for i in order], length))
        digest = digest_of([torch.tensor([end_id, length]), *(p for row in self.rows for p in row)])
        self._walk = Walk(Order(len(self.rows), batch_size, epochs, seed, *shard), digest, self._collate)

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
        full = self.tokens / max(1, len(self.rows) * self.length)
        cut = self.pieces - self.documents
        return (
            f"packed {self.documents:,} documents, {self.tokens:,} tokens with their end tokens, into "
            f"{len(self.rows):,} rows of {self.length:,}, {full:.0%} full, each document to itself; "
            + (f"{cut:,} cuts in documents longer than a row" if cut > 0 else "none cut")
        )

    def _collate(self, epoch: int, rows: Tensor) -> TokenBatch:
        chosen = [self.rows[i] for i in rows.tolist()]
        lengths = torch.tensor([sum(len(piece) for piece in row) for row in chosen])
        longest = int(lengths.max())
        ids, positions = torch.zeros(2, len(chosen), longest, dtype=torch.int64)
        for i, row in enumerate(chosen):
            ids[i, : lengths[i]] = torch.tensor([token for piece in row for token in piece])
            positions[i, : lengths[i]] = torch.tensor([t for piece in row for t in range(len(piece))])
        # Padding goes on counting from the last document, so that it is one sequence with it and not many of its own.
        beyond = torch.arange(longest) - lengths[:, None]
        last = positions.gather(1, lengths[:, None] - 1)
        positions = torch.where(beyond >= 0, last + 1 + beyond, positions)
        mask = (positions[:, 1:] > 0) & (beyond[:, 1:] < 0)
        return TokenBatch(PackedSequences(ids, torch.ones_like(lengths), lengths - 1, mask, positions))


def _arrange(pieces: Sequence[list[int]], length: int) -> Iterator[list[list[int]]]:
    """First fit, the longest first, within windows of the given order."""
    for start in range(0, len(pieces), WINDOW):
        rows: list[list[list[int]]] = []
        room: list[int] = []
        for piece in sorted(pieces[start : start + WINDOW], key=len, reverse=True):
            size = len(piece)
            row = next((r for r, left in enumerate(room) if left >= size), len(rows))
            if row == len(rows):
                rows.append([])
                room.append(length)
            rows[row].append(piece)
            room[row] -= size
        yield from rows
