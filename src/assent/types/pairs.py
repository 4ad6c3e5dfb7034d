"""Judged responses: what direct alignment is trained on, each response held once whatever the number of its judgements.

A *unit* is a prompt with those of its responses that were judged; it is never split. Its rows stand together in the
block, and a judgement names them by index, so that four ranked responses are four rows and not twelve.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assent.types.batches import Sequences
from assent.types.metrics import Mean


@dataclass(frozen=True)
class PairBatch:
    """Pairs of a preferred and another response to one prompt; a pair is one item of the loss.

    Args:
        sequences: every judged response once, a unit's responses together.
        counts_G: int64, responses of each unit.
        chosen_P: int64, index into `sequences` of the preferred response of a pair.
        rejected_P: int64, the other one, of the same unit.
    """

    sequences: Sequences
    counts_G: Tensor
    chosen_P: Tensor
    rejected_P: Tensor

    def __post_init__(self) -> None:
        _require_units(self.sequences, self.counts_G)
        unit_B = _unit_of_row(self.counts_G)
        if not torch.equal(unit_B[self.chosen_P], unit_B[self.rejected_P]):
            raise ValueError("both responses of a pair must be of one unit: they answer one prompt")

    def __len__(self) -> int:
        return len(self.counts_G)

    def sides(self, rows_B: Tensor) -> tuple[Tensor, Tensor]:
        """What is known of each row, as preferred and other of each pair, `[P]` each."""
        return rows_B[self.chosen_P], rows_B[self.rejected_P]

    def select(self, rows: Tensor) -> "PairBatch":
        _, kept = self._kept(rows)
        return kept

    def _kept(self, units: Tensor) -> tuple[Tensor, "PairBatch"]:
        kept_B, place_B = _rows_of(self.counts_G, units)
        pairs = place_B[self.chosen_P] >= 0
        chosen_P, rejected_P = place_B[self.chosen_P[pairs]], place_B[self.rejected_P[pairs]]
        return kept_B, PairBatch(self.sequences.select(kept_B), self.counts_G[units], chosen_P, rejected_P)

    @property
    def costs(self) -> Tensor:
        return _sum_of_units(self.sequences.lengths_B, self.counts_G)

    @property
    def denominator(self) -> float:
        return float(len(self.chosen_P))


@dataclass(frozen=True)
class ReferencedPairBatch(PairBatch):
    """Pairs of which it is known how likely the reference finds them.

    Args:
        ref_logprobs_B: the reference's log-probability of each row's response, summed over its included tokens, nats.
    """

    ref_logprobs_B: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_one_each(self.sequences, self.ref_logprobs_B)

    def select(self, rows: Tensor) -> "ReferencedPairBatch":
        kept_B, kept = self._kept(rows)
        return ReferencedPairBatch(
            kept.sequences, kept.counts_G, kept.chosen_P, kept.rejected_P, self.ref_logprobs_B[kept_B]
        )


@dataclass(frozen=True)
class PairExperience(ReferencedPairBatch):
    """Pairs of the policy's own responses, ordered by the scorers as they were sampled.

    Args:
        old_logprobs_BT: the learner's log-probabilities before the update; 0 where masked.
        target_P: probability that the first of a pair is preferred; 1 where only the order counts.
        beta: reward units per nat.
        metrics: of the experience.
    """

    old_logprobs_BT: Tensor
    target_P: Tensor
    beta: float
    metrics: Mapping[str, Mean] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        mask = self.mask_BT
        if self.old_logprobs_BT.shape != mask.shape or self.target_P.shape != self.chosen_P.shape:
            raise ValueError(
                f"old_logprobs_BT must be {tuple(mask.shape)} and target_P {tuple(self.chosen_P.shape)}; "
                f"got {tuple(self.old_logprobs_BT.shape)} and {tuple(self.target_P.shape)}"
            )
        object.__setattr__(self, "old_logprobs_BT", torch.where(mask, self.old_logprobs_BT, 0.0))

    @property
    def mask_BT(self) -> Tensor:
        return self.sequences.mask_BT

    def select(self, rows: Tensor) -> "PairExperience":
        kept_B, kept = self._kept(rows)
        parts = (kept.sequences, kept.counts_G, kept.chosen_P, kept.rejected_P, self.ref_logprobs_B[kept_B])
        old_BT = self.old_logprobs_BT[kept_B, : kept.sequences.mask_BT.shape[1]]
        return PairExperience(*parts, old_BT, self._targets_of(rows), self.beta)

    def _targets_of(self, units: Tensor) -> Tensor:
        """Of the pairs that are kept with the named units, in the order in which `_kept` keeps them."""
        kept = torch.isin(_unit_of_row(self.counts_G)[self.chosen_P], units)
        return self.target_P[kept]


@dataclass(frozen=True)
class UnpairedBatch:
    """Responses that were called desirable or not, each by itself; such a judgement is one item of the loss.

    Args:
        sequences: every judged response once, a unit's responses together.
        counts_G: int64, responses of each unit.
        row_J: int64, index into `sequences` of the response that a judgement is about.
        desirable_J: bool, what it says.
        ref_logprobs_B: the reference's log-probability of each row's response, summed over its included tokens, nats.
    """

    sequences: Sequences
    counts_G: Tensor
    row_J: Tensor
    desirable_J: Tensor
    ref_logprobs_B: Tensor

    def __post_init__(self) -> None:
        _require_units(self.sequences, self.counts_G)
        _require_one_each(self.sequences, self.ref_logprobs_B)
        if self.desirable_J.dtype != torch.bool or self.desirable_J.shape != self.row_J.shape:
            raise ValueError(f"one bool per judgement is needed; got {self.desirable_J.dtype} {self.desirable_J.shape}")

    def __len__(self) -> int:
        return len(self.counts_G)

    def select(self, rows: Tensor) -> "UnpairedBatch":
        _, kept = self._kept(rows)
        return kept

    def _kept(self, units: Tensor) -> tuple[Tensor, "UnpairedBatch"]:
        kept_B, place_B = _rows_of(self.counts_G, units)
        judgements = place_B[self.row_J] >= 0
        return kept_B, UnpairedBatch(
            self.sequences.select(kept_B),
            self.counts_G[units],
            place_B[self.row_J[judgements]],
            self.desirable_J[judgements],
            self.ref_logprobs_B[kept_B],
        )

    def against(self, baseline: float) -> "BaselinedBatch":
        """The same, with what its implicit rewards are measured against."""
        parts = (self.sequences, self.counts_G, self.row_J, self.desirable_J, self.ref_logprobs_B)
        return BaselinedBatch(*parts, baseline)

    @property
    def costs(self) -> Tensor:
        return _sum_of_units(self.sequences.lengths_B, self.counts_G)

    @property
    def denominator(self) -> float:
        return float(len(self.row_J))


@dataclass(frozen=True)
class MismatchedBatch(UnpairedBatch):
    """Judged responses and, for each, a response to another prompt in its place: what KTO's baseline is measured on.

    Args:
        mismatched: as many rows as `sequences`: the prompt of each, followed by a response to another prompt.
        mismatched_ref_logprobs_B: the reference's log-probability of those, summed over included tokens, nats.
    """

    mismatched: Sequences
    mismatched_ref_logprobs_B: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_one_each(self.sequences, self.mismatched_ref_logprobs_B)
        _require_one_each(self.mismatched, self.mismatched_ref_logprobs_B)

    def select(self, rows: Tensor) -> "MismatchedBatch":
        kept_B, kept = self._kept(rows)
        parts = (kept.sequences, kept.counts_G, kept.row_J, kept.desirable_J, kept.ref_logprobs_B)
        return MismatchedBatch(*parts, self.mismatched.select(kept_B), self.mismatched_ref_logprobs_B[kept_B])

    @property
    def costs(self) -> Tensor:
        """Of the dearer of the two forward passes."""
        mismatched = _sum_of_units(self.mismatched.lengths_B, self.counts_G)
        return torch.maximum(_sum_of_units(self.sequences.lengths_B, self.counts_G), mismatched)


@dataclass(frozen=True)
class BaselinedBatch(UnpairedBatch):
    """Judged responses and the one number that the implicit rewards of a whole step are measured against.

    Args:
        baseline: in nats for KTO, in units of reward for BCO.
    """

    baseline: float

    def select(self, rows: Tensor) -> "BaselinedBatch":
        _, kept = self._kept(rows)
        return kept.against(self.baseline)


# ------------------------------------------------------------------------------------------------ units


def in_twos(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """`counts_G`, `chosen_P` and `rejected_P` of so many rows that alternate: a preferred response, and the other.

    Raises:
        ValueError: the number is odd.
    """
    if rows % 2:
        raise ValueError(f"pairs that alternate are two rows each; got {rows} rows")
    first = torch.arange(0, rows, 2)
    return torch.full((rows // 2,), 2), first, first + 1


def _unit_of_row(counts_G: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(counts_G), device=counts_G.device), counts_G)


def _rows_of(counts_G: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the named units in their new order, and of every old row its new place, -1 for one that is not kept."""
    starts_G = counts_G.cumsum(0) - counts_G
    own = torch.arange(int(counts_G[units].sum()), device=counts_G.device) - _unit_starts(counts_G[units])
    kept_B = torch.repeat_interleave(starts_G[units], counts_G[units]) + own
    place_B = counts_G.new_full((int(counts_G.sum()),), -1)
    place_B[kept_B] = torch.arange(len(kept_B), device=counts_G.device)
    return kept_B, place_B


def _unit_starts(counts_G: Tensor) -> Tensor:
    """Of each row, where its unit begins."""
    return torch.repeat_interleave(counts_G.cumsum(0) - counts_G, counts_G)


def _sum_of_units(rows_B: Tensor, counts_G: Tensor) -> Tensor:
    return torch.zeros_like(counts_G).index_add(0, _unit_of_row(counts_G), rows_B)


def _require_units(sequences: Sequences, counts_G: Tensor) -> None:
    if int(counts_G.sum()) != len(sequences):
        raise ValueError(f"counts must add up to the sequences; got {int(counts_G.sum())}, {len(sequences)}")


def _require_one_each(sequences: Sequences, logprobs_B: Tensor) -> None:
    if logprobs_B.shape != (len(sequences),):
        raise ValueError(
            f"one reference log-probability per row is needed; got {tuple(logprobs_B.shape)} for {len(sequences)} rows"
        )
