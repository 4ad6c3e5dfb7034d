"""DPO for labels of which a known share is flipped: unbiased, whatever the noise."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Referenced, log_ratios, pair_loss, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, ReferencedPairBatch
from assent.types.settings import above, at_least, below


@dataclass(frozen=True, slots=True)
class RobustDPO:
    """[-(1 - e) log sigmoid(beta D) + e log sigmoid(-beta D)] / (1 - 2e), D as in DPO.

    In expectation over the flips it is DPO's loss on the true labels, and arrives where that arrives; conservative DPO
    (`label_smoothing` of `dpo`) aims lower instead. It has no lower bound on a finite batch: with one pass over noisy
    labels that is harmless, with many the flipped ones are pushed apart as well.

    Args:
        beta: reward units per nat; 0.1 in the paper (arXiv 2403.00409).
        flip_probability: e in [0, 0.5), the share of labels known to be flipped. It is a fact about your annotators
            and no paper's to give: about half the share of pairs on which two who err alike disagree. 0.1, which
            stands for a disagreement of 18 %, is only where to begin; 0 is DPO.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False

    name: Literal["robust_dpo"] = "robust_dpo"
    beta: float = 0.1
    flip_probability: float = 0.1

    def __post_init__(self) -> None:
        above(0, beta=self.beta)
        at_least(0, flip_probability=self.flip_probability)
        below(0.5, flip_probability=self.flip_probability)

    def loss(self, batch: ReferencedPairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        per_pair = preference.robust_dpo(
            *batch.sides(sums_B),
            *batch.sides(batch.ref_logprobs_B),
            beta=self.beta,
            flip_probability=self.flip_probability,
        )
        return pair_loss(per_pair, batch, self._rewards(batch, sums_B), sums_B)

    def implicit_rewards(self, batch: Referenced, forward: Forward) -> Tensor:
        """beta times the log-ratio of each row's response, `[B]`."""
        return self._rewards(batch, sums_of(batch, forward))

    def _rewards(self, batch: Referenced, sums_B: Tensor) -> Tensor:
        return self.beta * log_ratios(batch, sums_B)
