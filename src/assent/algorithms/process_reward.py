"""The process reward model: one logit a step, read at the step's last token."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.functional import reward
from assent.protocols import Forward
from assent.types import Loss, Mean, StepBatch


@dataclass(frozen=True, slots=True)
class ProcessReward:
    """Cross-entropy of every labelled step; one denominator: the number of labelled steps of the optimiser step.

    L = - sum over steps of [ y log sigmoid(z) + (1 - y) log sigmoid(-z) ] / N

    Lightman et al. (arXiv 2305.20050) predict one of three words after each step and Math-Shepherd (2312.08935) one of
    two; here a linear head stands for the two, since a neutral step is counted with one side or the other anyway.
    A solution with one label, on its last step, makes an outcome reward model of the same loss.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def loss(self, batch: StepBatch, forward: Forward) -> Loss:
        labelled = batch.labelled_BT
        logits_BT = forward.step_scores(batch.sequences, labelled)
        labels_BT = torch.where(labelled, batch.labels_BT, 0.0).to(logits_BT.dtype)
        per_step = reward.step_cross_entropy(logits_BT, labels_BT)
        right = ((logits_BT > 0) == (labels_BT > 0.5)).float()
        metrics = {
            "loss/steps": Mean.of(per_step, labelled),
            "steps/accuracy": Mean.of(right, labelled),
            "steps/probability": Mean.of(logits_BT.sigmoid(), labelled),
        }
        return Loss(per_step, labelled, metrics)
