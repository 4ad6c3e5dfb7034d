"""What the losses on comparisons share: every prompt weighs the same, whatever the number of its pairs."""

import torch
from torch import Tensor

from assent.types import ComparisonBatch, Mean


def per_prompt(batch: ComparisonBatch, per_pair: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over each prompt's pairs, `[G]`, 0 where it has none, and bool `[G]`, where it has any."""
    zeros = per_pair.new_zeros(len(batch))
    pairs = zeros.index_add(0, batch.group_P, torch.ones_like(per_pair))
    return zeros.index_add(0, batch.group_P, per_pair) / pairs.clamp(min=1), pairs > 0


def order_metrics(better: Tensor, worse: Tensor, ordered: Tensor | None = None) -> dict[str, Mean]:
    """Whether and by how much preferred responses score higher, over the pairs of `ordered` (all when None)."""
    right = (better > worse).float() + 0.5 * (better == worse).float()
    return {"pairs/accuracy": Mean.of(right, ordered), "pairs/margin": Mean.of(better - worse, ordered)}
