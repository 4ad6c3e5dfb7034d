"""REINFORCE++: PPO without a critic, its advantages brought to one scale over the whole batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch

from assent.algorithms._critic_free import advantage_metrics, beyond, clipped_loss, experience_of, rewards_of
from assent.algorithms.leash import KLInReward
from assent.functional import masked, returns
from assent.protocols import Forward
from assent.types import Loss, Mean, PolicyExperience, Reduction, Scored, TokenMean
from assent.types.settings import above, at_least, at_most


@dataclass(frozen=True, slots=True)
class ReinforcePP:
    """REINFORCE++ (Hu et al., arXiv 2501.03262): KL in the reward, return-to-go, whitening over the batch, PPO's clip.

    r_t = score event on t - beta (log pi_old - log pi_ref);  G_t = sum_k gamma^k r_{t+k}
    A_t = (G_t - mean of the batch's tokens) / their deviation
    L = reduction of max(-A rho, -A clip(rho)),  rho = pi / pi_old

    One response per prompt is enough. Mean and deviation hold the response itself, so the gradient of a finite batch is
    biased; the bias vanishes with the batch, and since score and KL are divided alike the optimum stays
    ref * exp(score / beta) / Z.

    Args:
        epochs: passes over each experience; 1 in OpenRLHF, where the authors' code is.
        minibatches: optimiser steps per pass.
        gamma: discount per token; 1 in the paper.
        clip_low, clip_high: ratio clip; 0.2 as in PPO and OpenRLHF.
        reduction: how tokens weigh; OpenRLHF's mean over all tokens.
        importance_cap: weigh each token by min(pi_old / pi_sampler, cap): 2 in Yao et al. 2025; None for no correction.
        update_kl_limit: an update ends early once its approximate KL to the old policy exceeds this, in nats per token.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = False
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 1

    name: Literal["reinforce_pp"] = "reinforce_pp"
    epochs: int = 1
    minibatches: int = 1
    gamma: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.2
    reduction: Reduction = field(default_factory=TokenMean)
    importance_cap: float | None = None
    update_kl_limit: float | None = None

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, minibatches=self.minibatches)
        at_least(0, gamma=self.gamma, clip_low=self.clip_low, clip_high=self.clip_high)
        at_most(1, gamma=self.gamma)
        above(0, importance_cap=self.importance_cap, update_kl_limit=self.update_kl_limit)

    def experience(self, scored: Scored) -> PolicyExperience:
        """Returns-to-go, then their place among those of all tokens of the batch."""
        mask, rewards_BT = scored.mask_BT, rewards_of(scored, scored.kl_coef)
        earned_BT, _ = returns.gae(rewards_BT, torch.zeros_like(rewards_BT), mask, gamma=self.gamma, lam=1.0)
        return experience_of(
            scored,
            masked.whiten(earned_BT, mask),
            self.reduction,
            importance_cap=self.importance_cap,
            metrics=advantage_metrics(earned_BT, mask),
        )

    def loss(self, batch: PolicyExperience, forward: Forward) -> Loss:
        """Per token, weighted: the surrogate."""
        return clipped_loss(batch, forward, KLInReward(), clip_low=self.clip_low, clip_high=self.clip_high)

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return beyond(self.update_kl_limit, metrics)

    def at(self, step: int) -> Self:
        return self
