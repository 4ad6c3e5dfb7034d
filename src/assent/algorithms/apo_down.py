"""Anchored preference optimisation, down: for a model that is better than both sides of its pairs."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Referenced, log_ratios, pair_loss, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, ReferencedPairBatch
from assent.types.settings import above, at_least, below


@dataclass(frozen=True, slots=True)
class APODown:
    """sigmoid(beta h(chosen)) + 1 - sigmoid(beta D), h and D as in DPO.

    For pairs that are both worse than what the model writes: both sides go down, the rejected one further. That the
    preferred responses fall is its purpose here and no displacement.

    Args:
        beta: reward units per nat; 0.1 in the paper (arXiv 2408.06266), with a learning rate of 2e-7.
        label_smoothing: e in [0, 0.5): weighs the loss of the pair with that of the swapped pair; 0 in the paper.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False

    name: Literal["apo_down"] = "apo_down"
    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        above(0, beta=self.beta)
        at_least(0, label_smoothing=self.label_smoothing)
        below(0.5, label_smoothing=self.label_smoothing)

    def loss(self, batch: ReferencedPairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        per_pair = preference.apo_down(
            *batch.sides(sums_B),
            *batch.sides(batch.ref_logprobs_B),
            beta=self.beta,
            label_smoothing=self.label_smoothing,
        )
        return pair_loss(per_pair, batch, self._rewards(batch, sums_B), sums_B)

    def implicit_rewards(self, batch: Referenced, forward: Forward) -> Tensor:
        """beta times the log-ratio of each row's response, `[B]`."""
        return self._rewards(batch, sums_of(batch, forward))

    def _rewards(self, batch: Referenced, sums_B: Tensor) -> Tensor:
        return self.beta * log_ratios(batch, sums_B)
