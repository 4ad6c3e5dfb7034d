"""Sequence likelihood calibration on implicit rewards: a margin to reach, beyond which nothing pulls."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Referenced, log_ratios, pair_loss, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, ReferencedPairBatch
from assent.types.settings import above, at_least, below


@dataclass(frozen=True, slots=True)
class Hinge:
    """relu(1 - beta D), D as in DPO: the hinge of SLiC-HF (arXiv 2305.10425) on log-ratios, as in RSO
    (arXiv 2309.06657).

    SLiC-HF itself has no reference: its margin is on log-probabilities and a likelihood term stands beside it. RSO
    normalises by the reference; this is that loss, TRL's `hinge` likewise.

    Args:
        beta: 1 / beta nats is the margin aimed at; 0.1 as in TRL. RSO calls it gamma.
        label_smoothing: e in [0, 0.5): weighs the loss of the pair with that of the swapped pair; 0 in RSO.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False

    name: Literal["hinge"] = "hinge"
    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        above(0, beta=self.beta)
        at_least(0, label_smoothing=self.label_smoothing)
        below(0.5, label_smoothing=self.label_smoothing)

    def loss(self, batch: ReferencedPairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        per_pair = preference.hinge(
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
