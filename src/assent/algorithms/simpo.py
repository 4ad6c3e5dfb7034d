"""Simple preference optimisation: the reward is the mean log-probability, with a margin and without a reference."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assent.algorithms._pairs import pair_metrics, per_token, sides, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, PairBatch


@dataclass(frozen=True, slots=True)
class SimPO:
    """-log sigmoid(beta (chosen - rejected) - gamma) on log-probabilities per token.

    Nothing holds the policy to where it began but the learning rate: the authors search it in 3e-7 to 1e-6, and find
    incoherent, repetitive text at 1e-5.

    Args:
        beta: 2.0 for the base models of the paper (arXiv 2405.14734), 2.5 and 10 for instructed ones.
        gamma: the margin that beta (chosen - rejected) must exceed; 1.0, the paper's gamma / beta of 0.5 for
            Llama-3-Base.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = False

    name: Literal["simpo"] = "simpo"
    beta: float = 2.0
    gamma: float = 1.0

    def loss(self, batch: PairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        means_B = per_token(batch, sums_B)
        per_pair = preference.simpo(*sides(means_B), beta=self.beta, gamma=self.gamma)
        metrics = pair_metrics(per_pair, self.beta * means_B, sums_B)
        return Loss(per_pair, torch.ones_like(per_pair, dtype=torch.bool), metrics)

    def implicit_rewards(self, batch: PairBatch, forward: Forward) -> Tensor:
        """beta times the log-probability per token of each row's response, `[2P]`."""
        return self.beta * per_token(batch, sums_of(batch, forward))
