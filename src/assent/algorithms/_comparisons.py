"""What the losses on comparisons share: every prompt weighs the same, whatever the number of its pairs."""

import torch
from torch import Tensor

from assent.functional import reward
from assent.types import ComparisonBatch, Mean


def per_prompt(batch: ComparisonBatch, per_pair: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over each prompt's pairs, `[G]`, 0 where it has none, and bool `[G]`, where it has any."""
    zeros = per_pair.new_zeros(len(batch))
    pairs = zeros.index_add(0, batch.group_P, torch.ones_like(per_pair))
    return zeros.index_add(0, batch.group_P, per_pair) / pairs.clamp(min=1), pairs > 0


def pair_metrics(batch: ComparisonBatch, better: Tensor, worse: Tensor) -> dict[str, Mean]:
    """The loss that the ordered pairs have without margin, of which ln 2 is guessing whatever the margins; and
    `order_metrics`."""
    loss_G, has_pairs_G = per_prompt(batch, reward.bradley_terry(better, worse))
    return {"loss/pairs": Mean.of(loss_G, has_pairs_G)} | order_metrics(better, worse)


def per_response(batch: ComparisonBatch, values_B: Tensor) -> Tensor:
    """Mean over each prompt's responses, `[G]`."""
    group_B = torch.arange(len(batch), device=values_B.device).repeat_interleave(batch.counts_G)
    return values_B.new_zeros(len(batch)).index_add(0, group_B, values_B) / batch.counts_G


def order_metrics(better: Tensor, worse: Tensor, ordered: Tensor | None = None) -> dict[str, Mean]:
    """Whether and by how much preferred responses score higher, over the pairs of `ordered` (all when None)."""
    right = (better > worse).float() + 0.5 * (better == worse).float()
    return {"pairs/accuracy": Mean.of(right, ordered), "pairs/margin": Mean.of(better - worse, ordered)}
