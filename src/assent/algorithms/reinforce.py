"""REINFORCE: the score function estimator with the mean of the batch as baseline, one response per prompt enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch

from assent.algorithms._critic_free import advantage_metrics, experience_of, policy_gradient_loss, rewards_of
from assent.functional import advantages, returns
from assent.protocols import Forward
from assent.types import ConstantLength, Loss, Mean, PolicyExperience, Scored
from assent.types.settings import above, at_least


@dataclass(frozen=True, slots=True)
class Reinforce:
    """REINFORCE (Williams 1992) with a baseline: no critic, no groups, no clip; KL as k1 in the reward.

    R = score - beta * sum_t (log pi_old - log pi_ref);  b = mean R of the batch's other responses;
    L = mean over responses of -(R - b) * sum_t log pi(y_t)

    The response itself is left out of its baseline, so that the gradient is unbiased. A baseline that runs over steps
    is the `normalise` of a recipe's `shaping`, whose mean is saved with the run.

    Args:
        minibatches: optimiser steps of the one pass; each after the first learns, uncorrected, from an older policy.
        baseline: subtract b; the gradient is right without it, and noisier.
        to_go: a token earns what comes from it on, in place of R: the same gradient in expectation, with less noise of
            the KL of tokens before it.
        importance_cap: weigh each token by min(pi_old / pi_sampler, cap): 2 in Yao et al. 2025; None for no correction.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    epochs: ClassVar[int] = 1
    uses_critic: ClassVar[bool] = False
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 1

    name: Literal["reinforce"] = "reinforce"
    minibatches: int = 1
    baseline: bool = True
    to_go: bool = False
    importance_cap: float | None = None

    def __post_init__(self) -> None:
        at_least(1, minibatches=self.minibatches)
        above(0, importance_cap=self.importance_cap)

    def experience(self, scored: Scored) -> PolicyExperience:
        """Advantages of the whole batch.

        Raises:
            ValueError: there is a baseline, and one response.
        """
        rewards_BT, mask = rewards_of(scored, scored.kl_coef), scored.mask_BT
        totals_B = rewards_BT.sum(1)
        earned_BT = totals_B[:, None].expand(mask.shape)
        if self.to_go:
            earned_BT, _ = returns.gae(rewards_BT, torch.zeros_like(rewards_BT), mask, gamma=1.0, lam=1.0)
        if self.baseline:
            batch_B = torch.zeros(len(totals_B), dtype=torch.int64, device=totals_B.device)
            others_B = totals_B - advantages.leave_one_out(totals_B, batch_B)
            earned_BT = earned_BT - others_B[:, None]
        return experience_of(
            scored,
            earned_BT,
            ConstantLength(1),
            importance_cap=self.importance_cap,
            metrics=advantage_metrics(earned_BT, mask),
        )

    def loss(self, batch: PolicyExperience, forward: Forward) -> Loss:
        """Per token: -advantage * log pi, weighted."""
        return policy_gradient_loss(batch, forward)

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return False

    def at(self, step: int) -> Self:
        return self
