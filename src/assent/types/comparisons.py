"""Comparisons of which more is known than which response was preferred."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from assent.types.batches import ComparisonBatch


def _base(batch: ComparisonBatch) -> dict[str, Any]:
    return {f.name: getattr(batch, f.name) for f in fields(ComparisonBatch)}


@dataclass(frozen=True)
class SoftComparisonBatch(ComparisonBatch):
    """Pairs with the probability that the first of them is preferred; ties may be among them.

    Args:
        target_P: float in [0, 1], P(`better_P` is preferred): a share of votes, or a judge's probability.
    """

    target_P: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_P.shape != self.better_P.shape:
            raise ValueError(f"one target per pair is needed; got {len(self.target_P)} for {len(self.better_P)} pairs")

    def select(self, rows: Tensor) -> "SoftComparisonBatch":
        return SoftComparisonBatch(**_base(super().select(rows)), target_P=self.target_P[self.pairs_of(rows)])


@dataclass(frozen=True)
class RankedComparisonBatch(ComparisonBatch):
    """Prompts whose pairs may add up to a strict ranking of all completions.

    Args:
        ranks_B: int64, place of each completion within its prompt, 1 is best; 1 throughout where there is no ranking.
        ranked_G: bool, whether the prompt has a strict and complete ranking.
    """

    ranks_B: Tensor
    ranked_G: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranked_G.dtype != torch.bool or self.ranked_G.shape != self.counts_G.shape:
            raise ValueError(f"ranked_G must be bool, one per prompt; got {self.ranked_G.dtype} {len(self.ranked_G)}")
        if len(self.ranks_B) != len(self.sequences):
            raise ValueError(f"one rank per completion is needed; got {len(self.ranks_B)} for {len(self.sequences)}")

    def places(self) -> tuple[Tensor, Tensor]:
        """bool and int64 `[G, K]`: whether a prompt has a k-th completion, and its row; any row where it has none."""
        step_K = torch.arange(int(self.counts_G.max()), device=self.counts_G.device)
        first_G = self.counts_G.cumsum(0) - self.counts_G
        row_GK = (first_G[:, None] + step_K).clamp(max=len(self.sequences) - 1)
        return step_K < self.counts_G[:, None], row_GK

    def select(self, rows: Tensor) -> "RankedComparisonBatch":
        base = _base(super().select(rows))
        return RankedComparisonBatch(**base, ranks_B=self.ranks_B[self.rows_of(rows)], ranked_G=self.ranked_G[rows])


@dataclass(frozen=True)
class LabelledComparisonBatch(ComparisonBatch):
    """Comparisons of which some completions are labelled safe or unsafe.

    Args:
        safe_B: bool, the label; False where there is none.
        labelled_B: bool, whether anybody said.
    """

    safe_B: Tensor
    labelled_B: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("safe_B", "labelled_B"):
            value = getattr(self, name)
            if value.dtype != torch.bool or len(value) != len(self.sequences):
                raise ValueError(f"{name} must be bool, one per completion; got {value.dtype}, {len(value)}")

    def select(self, rows: Tensor) -> "LabelledComparisonBatch":
        kept, base = self.rows_of(rows), _base(super().select(rows))
        return LabelledComparisonBatch(**base, safe_B=self.safe_B[kept], labelled_B=self.labelled_B[kept])
