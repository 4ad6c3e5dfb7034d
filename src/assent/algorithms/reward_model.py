"""The reward model from human comparisons, all pairs of one prompt as one batch element."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.functional import reward
from assent.protocols import Forward
from assent.types import ComparisonBatch, Loss, Mean


@dataclass(frozen=True, slots=True)
class RewardModel:
    """InstructGPT's K-wise loss: the mean over the judged pairs of a prompt of -log sigmoid(better - worse - margin).

    Each completion goes through the model once, whatever the number of its pairs, and each prompt weighs the same,
    whatever its K. Pairwise data is K = 2. Ties are not pairs. On a full ranking without margins this is
    `functional.reward.k_wise`.

    Args:
        centering: coefficient of (better + worse)^2, averaged like the loss; 0.01 in Eisenstein et al. (2312.09244),
            0 (off) by default because the scores are normalised after training.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    centering: float = 0.0

    def loss(self, batch: ComparisonBatch, forward: Forward) -> Loss:
        scores = forward.scores(batch.sequences)
        better, worse = scores[batch.better_P], scores[batch.worse_P]
        per_pair = reward.bradley_terry(better, worse, margin=batch.margin_P)
        if self.centering:
            per_pair = per_pair + self.centering * reward.centering(better, worse)
        zeros = per_pair.new_zeros(len(batch))
        pairs = zeros.index_add(0, batch.group_P, torch.ones_like(per_pair))
        per_prompt = zeros.index_add(0, batch.group_P, per_pair) / pairs.clamp(min=1)
        metrics = {
            "loss/pairs": Mean.of(per_prompt, pairs > 0),
            "pairs/accuracy": Mean.of((better > worse).float() + 0.5 * (better == worse).float()),
            "pairs/margin": Mean.of(better - worse),
        }
        return Loss(per_prompt, pairs > 0, metrics)
