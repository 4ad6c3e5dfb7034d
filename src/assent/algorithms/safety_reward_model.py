"""The reward model that also tells safe from unsafe: comparisons, and a label of each response."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from assent.algorithms._comparisons import pair_metrics, per_prompt, per_response
from assent.functional import reward
from assent.protocols import Forward
from assent.types import LabelledComparisonBatch, Loss, Mean
from assent.types.settings import at_least


@dataclass(frozen=True, slots=True)
class SafetyRewardModel:
    """The K-wise loss plus the cross-entropy of sigmoid(score) to the label "safe", averaged over a prompt's labels.

    Comparisons fix score differences and leave the zero free; labels fix the zero. sigmoid(score) is then the
    probability of being safe, which the gate of Llama 2 compares with 0.15: the classification has no head of its own,
    and the scores are not normalised after training. Llama 2 (arXiv 2307.09288) reports 63.7 -> 64.5 % accuracy and
    73.0 -> 90.4 % recall of unsafe responses at 0.5. On pairs, minus the score is the cost model of Safe RLHF (arXiv
    2310.12773).

    Args:
        coefficient: of the classification; 1, as heavy as the ranking: Llama 2 does not publish its own. Safe RLHF adds
            the labels of both responses of a pair, which is 2 here.
        regularisation: coefficient of score^2, averaged over a prompt's responses; 0.001 in Safe RLHF's code (arXiv
            2310.12773), which keeps scores from running away where labels are easily told apart; 0 is off.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_margin: ClassVar[bool] = True
    keeps_zero: ClassVar[bool] = True
    pools_votes: ClassVar[bool] = False

    name: Literal["safety"] = "safety"
    coefficient: float = 1.0
    regularisation: float = 0.0

    def __post_init__(self) -> None:
        at_least(0, coefficient=self.coefficient, regularisation=self.regularisation)

    def loss(self, batch: LabelledComparisonBatch, forward: Forward) -> Loss:
        scores = forward.scores(batch.sequences)
        better, worse = scores[batch.better_P], scores[batch.worse_P]
        ranking_G, has_pairs_G = per_prompt(batch, reward.bradley_terry(better, worse, margin=batch.margin_P))
        safe_B, labelled_B = batch.safe_B.to(scores.dtype), batch.labelled_B
        per_label_B = torch.where(labelled_B, reward.step_cross_entropy(scores, safe_B), 0.0)
        group_B = torch.arange(len(batch), device=scores.device).repeat_interleave(batch.counts_G)
        zeros = scores.new_zeros(len(batch))
        labels_G = zeros.index_add(0, group_B, labelled_B.to(scores.dtype))
        labelling_G = zeros.index_add(0, group_B, per_label_B) / labels_G.clamp(min=1)
        loss_G, mask_G = ranking_G + self.coefficient * labelling_G, has_pairs_G | (labels_G > 0)
        if self.regularisation:
            loss_G = loss_G + self.regularisation * per_response(batch, scores.square())
        called_safe_B = (scores > 0).float()
        metrics = {
            "loss/safety": Mean.of(labelling_G, labels_G > 0),
            "safety/accuracy": Mean.of((called_safe_B == safe_B).float(), labelled_B),
            "safety/unsafe_recall": Mean.of(1 - called_safe_B, labelled_B & ~batch.safe_B),
        }
        return Loss(loss_G, mask_G, metrics | pair_metrics(batch, better, worse))
