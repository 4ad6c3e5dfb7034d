"""Anchored preference optimisation, zero: preferred responses up and the others down, each by itself."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Referenced, log_ratios, pair_loss, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, ReferencedPairBatch
from assent.types.settings import above, at_least, below


@dataclass(frozen=True, slots=True)
class APOZero:
    """1 - sigmoid(beta h(chosen)) + sigmoid(beta h(rejected)), h the log-ratio to the reference, summed over tokens.

    For pairs whose preferred response is better than what the model writes: each side is anchored at the reference, so
    that the preferred one is not allowed to fall with the other.

    Args:
        beta: reward units per nat; 0.1 in the paper (arXiv 2408.06266), with a learning rate of 2e-7.
        label_smoothing: e in [0, 0.5): weighs the loss of the pair with that of the swapped pair; 0 in the paper.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False

    name: Literal["apo_zero"] = "apo_zero"
    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        above(0, beta=self.beta)
        at_least(0, label_smoothing=self.label_smoothing)
        below(0.5, label_smoothing=self.label_smoothing)

    def loss(self, batch: ReferencedPairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        per_pair = preference.apo_zero(
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
