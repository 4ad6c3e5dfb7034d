"""Simple preference optimisation: the reward is the mean log-probability, with a margin and without a reference."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Responses, held_up, pair_loss, per_token, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, PairBatch
from assent.types.settings import above, at_least


@dataclass(frozen=True, slots=True)
class SimPO:
    """-log sigmoid(beta (chosen - rejected) - gamma) on log-probabilities per token.

    Nothing holds the policy to where it began but the learning rate: the authors search it in 3e-7 to 1e-6, and find
    incoherent, repetitive text at 1e-5.

    Args:
        beta: 2.0 for the base models of the paper (arXiv 2405.14734), 2.5 and 10 for instructed ones.
        gamma: the margin that beta (chosen - rejected) must exceed; 1.0, the paper's gamma / beta of 0.5 for
            Llama-3-Base.
        nll_weight: adds this times the negative log-likelihood per token of the preferred response (CPO-SimPO); 0 (off)
            as in SimPO.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = False
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False

    name: Literal["simpo"] = "simpo"
    beta: float = 2.0
    gamma: float = 1.0
    nll_weight: float = 0.0

    def __post_init__(self) -> None:
        above(0, beta=self.beta)
        at_least(0, gamma=self.gamma, nll_weight=self.nll_weight)

    def loss(self, batch: PairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        means_B = per_token(batch, sums_B)
        per_pair = preference.simpo(*batch.sides(means_B), beta=self.beta, gamma=self.gamma)
        per_pair = held_up(per_pair, batch, sums_B, nll_weight=self.nll_weight)
        return pair_loss(per_pair, batch, self.beta * means_B, sums_B)

    def implicit_rewards(self, batch: Responses, forward: Forward) -> Tensor:
        """beta times the log-probability per token of each row's response, `[B]`."""
        return self.beta * per_token(batch, sums_of(batch, forward))
