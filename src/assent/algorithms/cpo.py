"""Contrastive preference optimisation: DPO without a reference, the preferred response held up by its likelihood."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Responses, held_up, pair_loss, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, PairBatch
from assent.types.settings import above, at_least


@dataclass(frozen=True, slots=True)
class CPO:
    """-log sigmoid(beta (log pi(chosen) - log pi(rejected))) - nll_weight log pi(chosen) / T_chosen, sums over tokens.

    The paper prints the likelihood as a sum over the response. TRL's, to which the published settings belong, is a mean
    over the tokens of a micro-batch; here it is the mean over those of the response, which no split changes.

    Args:
        beta: reward units per nat; 0.1 in the paper (arXiv 2401.08417).
        nll_weight: of the likelihood term; 1 in the paper. 0 leaves the contrast alone, whose optimum is
            exp(reward / beta) / Z: the reference of DPO, made uniform.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = False
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False

    name: Literal["cpo"] = "cpo"
    beta: float = 0.1
    nll_weight: float = 1.0

    def __post_init__(self) -> None:
        above(0, beta=self.beta)
        at_least(0, nll_weight=self.nll_weight)

    def loss(self, batch: PairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        per_pair = preference.cpo(*batch.sides(sums_B), beta=self.beta)
        per_pair = held_up(per_pair, batch, sums_B, nll_weight=self.nll_weight)
        return pair_loss(per_pair, batch, self.beta * sums_B, sums_B)

    def implicit_rewards(self, batch: Responses, forward: Forward) -> Tensor:
        """beta times the log-probability of each row's response, `[B]`."""
        return self.beta * sums_of(batch, forward)
