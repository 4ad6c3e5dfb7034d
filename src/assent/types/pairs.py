"""Pairs of a preferred and another response to one prompt: what direct alignment is trained on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from assent.types.batches import Sequences


def _rows_of(pairs: Tensor) -> Tensor:
    """Rows of the named pairs, each preferred response before the other."""
    return torch.stack([2 * pairs, 2 * pairs + 1], 1).flatten()


@dataclass(frozen=True)
class PairBatch:
    """P pairs; a pair is one unit and one item of the loss, and both its responses go through the model together.

    Args:
        sequences: 2P rows; row 2p is the preferred response of pair p, row 2p + 1 the other one.
    """

    sequences: Sequences

    def __post_init__(self) -> None:
        if len(self.sequences) % 2:
            raise ValueError(f"pairs are two rows each; got {len(self.sequences)} rows")

    def __len__(self) -> int:
        return len(self.sequences) // 2

    def select(self, rows: Tensor) -> "PairBatch":
        return PairBatch(self.sequences.select(_rows_of(rows)))

    @property
    def costs(self) -> Tensor:
        return self.sequences.lengths_B.view(-1, 2).sum(1)

    @property
    def denominator(self) -> float:
        return float(len(self))


@dataclass(frozen=True)
class ReferencedPairBatch(PairBatch):
    """Pairs of which it is known how likely the reference finds them.

    Args:
        ref_logprobs_B: the reference's log-probability of each row's response, summed over its included tokens, nats.
    """

    ref_logprobs_B: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ref_logprobs_B.shape != (len(self.sequences),):
            raise ValueError(
                f"one reference log-probability per row is needed; got {tuple(self.ref_logprobs_B.shape)} "
                f"for {len(self.sequences)} rows"
            )

    def select(self, rows: Tensor) -> "ReferencedPairBatch":
        kept = _rows_of(rows)
        return ReferencedPairBatch(self.sequences.select(kept), self.ref_logprobs_B[kept])
