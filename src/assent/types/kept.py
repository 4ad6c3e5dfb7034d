"""Which tokens could be drawn at each place of a response, where top-k or top-p left the others out.

A response that was drawn from a few tokens must be scored among the same few, by every model and after every update:
else the ratio of an update that changed nothing is not 1, and a token that was certain counts as a surprise. What was
kept is the sampler's to say, so it is recorded with the response.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one response.

    Args:
        counts: int32, how many tokens could be drawn at each place.
        ids: int32, those tokens, place after place.
    """

    counts: "array[int]"
    ids: "array[int]"

    def __post_init__(self) -> None:
        if sum(self.counts) != len(self.ids) or min(self.counts, default=0) < 1:
            raise ValueError(
                f"every place keeps at least one token and all are listed; got {len(self.counts)} places, counts that "
                f"add up to {sum(self.counts)}, {len(self.ids)} ids"
            )


@dataclass(frozen=True)
class KeptBlock:
    """Of a block of responses.

    Args:
        ids_M: int64, tokens of all places, those of a place side by side.
        start_BT: int64, where in `ids_M` those of each place begin.
        count_BT: int64, how many it has; 0 where every token could be drawn.
    """

    ids_M: Tensor
    start_BT: Tensor
    count_BT: Tensor

    @classmethod
    def of(cls, kept: Sequence[Kept | None]) -> "KeptBlock":
        """The records of B responses, None where nothing was left out; as long as the longest of them."""
        longest = max((len(k.counts) for k in kept if k is not None), default=0)
        counts = torch.zeros((len(kept), longest), dtype=torch.int64)
        for row, k in enumerate(kept):
            if k is not None:
                counts[row, : len(k.counts)] = torch.tensor(k.counts, dtype=torch.int64)
        ids = [torch.tensor(k.ids, dtype=torch.int64) for k in kept if k is not None]
        return cls(torch.cat(ids), _starts(counts), counts)

    def select(self, rows: Tensor, longest: int) -> "KeptBlock":
        """The named rows, cut to so many places; the tokens of others are let go."""
        start, count = self.start_BT[rows, :longest], self.count_BT[rows, :longest]
        return KeptBlock(self.ids_M[listed(start.flatten(), count.flatten())], _starts(count), count)

    def padded(self, longest: int) -> "KeptBlock":
        """With so many places; every token could be drawn at those that are new."""
        more = (0, longest - self.count_BT.shape[1])
        start, count = (torch.nn.functional.pad(x, more) for x in (self.start_BT, self.count_BT))
        return KeptBlock(self.ids_M, start, count)


def listed(start_N: Tensor, count_N: Tensor) -> Tensor:
    """int64: the `count` numbers from `start` on, of one row after the other."""
    ends_N = count_N.cumsum(0)
    within = torch.arange(int(ends_N[-1]), device=count_N.device) if len(count_N) else count_N
    return within + (start_N - (ends_N - count_N)).repeat_interleave(count_N)


def _starts(count_BT: Tensor) -> Tensor:
    flat = count_BT.flatten()
    return (flat.cumsum(0) - flat).view(count_BT.shape)
