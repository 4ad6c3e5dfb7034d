"""Kahneman-Tversky optimisation: responses called good or bad, each by itself, against what the policy is worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Referenced, log_ratios, sums_of, sums_over
from assent.algorithms._unpaired import unpaired_loss
from assent.functional import preference
from assent.protocols import Forward
from assent.types import BaselinedBatch, Loss, Mean, MismatchedBatch
from assent.types.settings import above, at_least

BASELINE = "baseline/kl"


@dataclass(frozen=True, slots=True)
class KTO:
    """w (1 - sigmoid(beta (h - z))) of a desirable response, w (1 - sigmoid(beta (z - h))) of an undesirable one.

    h is the log-ratio to the reference, summed over tokens. z = max(0, mean of h over prompts with a response to
    *another* prompt), measured in a first pass without gradient. In the paper and in TRL that is the mean over one
    micro-batch (made equal over processes); here it is the mean over all rows of the optimiser step, so that
    a memory setting does not change it. The mean over judgements is the loss.

    Args:
        beta: reward units per nat; 0.1 in the paper (arXiv 2402.01306). Its learning rates are 2 to 10 times DPO's.
        desirable_weight, undesirable_weight: w; 1 in the paper for balanced data. Keep desirable_weight n_desirable /
            (undesirable_weight n_undesirable) in [1, 4/3]; the stage says by how much to change them.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True
    unpaired: ClassVar[bool] = True
    uses_mismatched: ClassVar[bool] = True

    name: Literal["kto"] = "kto"
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        above(0, beta=self.beta)
        at_least(0, desirable_weight=self.desirable_weight, undesirable_weight=self.undesirable_weight)

    def first_pass(self, part: MismatchedBatch, forward: Forward) -> dict[str, Mean]:
        """The log-ratios of the mismatched rows."""
        return {BASELINE: Mean.of(sums_over(part.mismatched, forward) - part.mismatched_ref_logprobs_B)}

    def complete(
        self, part: MismatchedBatch, measured: Mapping[str, Mean], carried: Mapping[str, Mean]
    ) -> BaselinedBatch:
        """With z of the whole step."""
        return part.against(max(0.0, measured[BASELINE].value))

    def carry(self, carried: Mapping[str, Mean], metrics: Mapping[str, Mean]) -> dict[str, Mean]:
        """Every step measures its own."""
        return {}

    def loss(self, batch: BaselinedBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        per_judgement = preference.kto(
            sums_B[batch.row_J],
            batch.ref_logprobs_B[batch.row_J],
            batch.desirable_J,
            batch.baseline,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        loss = unpaired_loss(per_judgement, batch, self._rewards(batch, sums_B), sums_B)
        count = batch.denominator
        return Loss(loss.per_item, loss.mask, {**loss.metrics, "baseline/kl": Mean(batch.baseline * count, count)})

    def implicit_rewards(self, batch: Referenced, forward: Forward) -> Tensor:
        """beta times the log-ratio of each row's response, `[B]`."""
        return self._rewards(batch, sums_of(batch, forward))

    def _rewards(self, batch: Referenced, sums_B: Tensor) -> Tensor:
        return self.beta * log_ratios(batch, sums_B)
