"""REINFORCE++ with baseline: the group's mean off each score, then one scale for the whole batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal, Self

import torch

from assent.algorithms._critic_free import (
    advantage_metrics,
    among_others,
    beyond,
    clipped_loss,
    experience_of,
    no_signal,
    rewards_of,
)
from assent.algorithms.leash import K2InLoss, Leash
from assent.functional import advantages, masked
from assent.protocols import Forward
from assent.types import Loss, Mean, PolicyExperience, Reduction, Scored, TokenMean
from assent.types.settings import above, at_least


@dataclass(frozen=True, slots=True)
class ReinforcePPBaseline:
    """REINFORCE++ with baseline (Hu et al., arXiv 2501.03262): GRPO with the deviation of the batch in the place of the
    group's, and k2 in the loss.

    C = score - group mean;  A = (C - mean of the batch's tokens) / their deviation
    L = reduction of [ max(-A rho, -A clip(rho)) + beta sg[rho] k2 ],  rho = pi / pi_old

    The scores are divided by their deviation and the KL is not, so beta is a price per nat in deviations of the score:
    the leash tightens as scores spread and slackens as they agree. With `leash: {name: reward}` both are divided.

    Args:
        epochs: passes over each experience; 1 in OpenRLHF.
        minibatches: optimiser steps per pass.
        clip_low, clip_high: ratio clip; 0.2 as in PPO and OpenRLHF.
        reduction: how tokens weigh; OpenRLHF's mean over all tokens.
        leash: where the KL stands; k2 in the loss in the paper.
        importance_cap: weigh each token by min(pi_old / pi_sampler, cap): 2 in Yao et al. 2025; None for no correction.
        update_kl_limit: an update ends early once its approximate KL to the old policy exceeds this, in nats per token.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = False
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 2

    name: Literal["reinforce_pp_baseline"] = "reinforce_pp_baseline"
    epochs: int = 1
    minibatches: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    reduction: Reduction = field(default_factory=TokenMean)
    leash: Leash = field(default_factory=K2InLoss)
    importance_cap: float | None = None
    update_kl_limit: float | None = None

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, minibatches=self.minibatches)
        at_least(0, clip_low=self.clip_low, clip_high=self.clip_high)
        above(0, importance_cap=self.importance_cap, update_kl_limit=self.update_kl_limit)

    def experience(self, scored: Scored) -> PolicyExperience:
        """Whole groups, then the whole batch. A response alone of its prompt is in neither and has advantage 0.

        Raises:
            ValueError: every response is alone of its prompt.
        """
        in_reward, in_loss = self.leash.coefficients(scored.kl_coef)
        compare = partial(advantages.group_relative, scale_by_std=False)
        centred_B = among_others(compare, rewards_of(scored, in_reward).sum(1), scored.groups_B)
        compared = scored.mask_BT & advantages.in_company(scored.groups_B)[:, None]
        centred_BT = torch.where(compared, centred_B[:, None], 0.0)
        return experience_of(
            scored,
            masked.whiten(centred_BT, compared),
            self.reduction,
            kl_coef=in_loss,
            importance_cap=self.importance_cap,
            metrics=advantage_metrics(centred_B) | no_signal(scored),
        )

    def loss(self, batch: PolicyExperience, forward: Forward) -> Loss:
        """Per token, weighted: surrogate + beta * KL term."""
        return clipped_loss(batch, forward, self.leash, clip_low=self.clip_low, clip_high=self.clip_high)

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return beyond(self.update_kl_limit, metrics)

    def at(self, step: int) -> Self:
        return self
