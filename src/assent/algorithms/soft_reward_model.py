"""The reward model from soft labels: shares of votes, or the probabilities of an AI judge."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from assent.algorithms._comparisons import order_metrics, per_prompt
from assent.functional import reward
from assent.protocols import Forward
from assent.types import Loss, Mean, SoftComparisonBatch


@dataclass(frozen=True, slots=True)
class SoftRewardModel:
    """Cross-entropy of sigmoid(a - b) to the probability that a is preferred, averaged as the K-wise loss.

    The votes of several annotators on the same responses are one comparison with their shares as targets. A plain
    choice is the target 1, and with no others this is `RewardModel` without margins. The loss does not go to 0 but to
    the entropy of the labels, where score differences are log-odds of the shares (RLAIF, arXiv 2309.00267, section 2.2
    trains so on an AI judge's probabilities).

    Args:
        ties: `half` trains on a tie as the target 0.5, which pulls its two scores together; `drop` leaves it out, as
            InstructGPT does. Half by default: a vote for neither is a vote.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_margin: ClassVar[bool] = False
    keeps_zero: ClassVar[bool] = False
    pools_votes: ClassVar[bool] = True

    name: Literal["soft"] = "soft"
    ties: Literal["half", "drop"] = "half"

    def loss(self, batch: SoftComparisonBatch, forward: Forward) -> Loss:
        scores = forward.scores(batch.sequences)
        better, worse = scores[batch.better_P], scores[batch.worse_P]
        target_P = batch.target_P.to(better.dtype)
        loss_G, has_pairs_G = per_prompt(batch, reward.soft_bradley_terry(better, worse, target_P))
        entropy_G, _ = per_prompt(batch, torch.special.entr(target_P) + torch.special.entr(1 - target_P))
        metrics = {
            "loss/pairs": Mean.of(loss_G, has_pairs_G),
            "pairs/label_entropy": Mean.of(entropy_G, has_pairs_G),
        }
        return Loss(loss_G, has_pairs_G, metrics | order_metrics(better, worse, target_P > 0.5))
