"""CISPO: the policy gradient of every token, its importance weight clipped and never its gradient."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from assent.algorithms._critic_free import (
    beyond,
    group_relative_experience,
    leashed_loss,
    read,
    token_metrics,
)
from assent.algorithms.leash import K3InLoss, Leash
from assent.functional import policy
from assent.protocols import Forward
from assent.types import Loss, Mean, PolicyExperience, Reduction, Scored, TokenMean
from assent.types.settings import above, at_least


@dataclass(frozen=True, slots=True)
class CISPO:
    """CISPO (MiniMax-M1, arXiv 2506.13585): GRPO's advantages, the clip on a constant weight.

    A = (score - group mean) / group std
    L = reduction of -sg[clip(rho, 1 - low, 1 + high)] A log pi,  rho = pi / pi_old

    PPO's clip drops the gradient of a token whose ratio has gone too far; this bounds its weight instead, so that rare
    tokens keep teaching. On-policy it is GRPO. The paper has no KL term: set the recipe's `kl: {coefficient: 0}`.

    Args:
        epochs: passes over each experience.
        minibatches: optimiser steps per pass; the paper makes 16 steps of one batch of rollouts.
        clip_low: 1 leaves the weight unbounded below, as the paper does.
        clip_high: the weight is at most 1 + clip_high. The paper states no value; 4 gives the bound of 5 of ScaleRL
            (arXiv 2510.13786) and TRL.
        scale_by_std: divide by the group's sample deviation + 1e-4.
        reduction: how tokens weigh; the paper's mean over all tokens.
        leash: where the KL stands, if there is any.
        importance_cap: weigh each token by min(pi_old / pi_sampler, cap): 2 in Yao et al. 2025; None for no correction.
        update_kl_limit: an update ends early once its approximate KL to the old policy exceeds this, in nats per token.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = False
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 2

    name: Literal["cispo"] = "cispo"
    epochs: int = 1
    minibatches: int = 1
    clip_low: float = 1.0
    clip_high: float = 4.0
    scale_by_std: bool = True
    reduction: Reduction = field(default_factory=TokenMean)
    leash: Leash = field(default_factory=K3InLoss)
    importance_cap: float | None = None
    update_kl_limit: float | None = None

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, minibatches=self.minibatches)
        at_least(0, clip_low=self.clip_low, clip_high=self.clip_high)
        above(0, importance_cap=self.importance_cap, update_kl_limit=self.update_kl_limit)

    def experience(self, scored: Scored) -> PolicyExperience:
        """As GRPO's: advantages of whole groups, 0 for a response alone of its prompt.

        Raises:
            ValueError: every response is alone of its prompt.
        """
        return group_relative_experience(
            scored,
            self.leash,
            self.reduction,
            scale_by_std=self.scale_by_std,
            importance_cap=self.importance_cap,
        )

    def loss(self, batch: PolicyExperience, forward: Forward) -> Loss:
        """Per token, weighted: -clipped weight * A log pi + beta * KL term."""
        outputs, term_BT = read(self.leash, batch, forward)
        log_ratio = outputs.logprobs_BT - batch.old_logprobs_BT
        gained = policy.cispo(
            log_ratio, outputs.logprobs_BT, batch.advantages_BT, clip_low=self.clip_low, clip_high=self.clip_high
        )
        moved = log_ratio.detach().exp()
        beyond_clip = (moved < 1 - self.clip_low) | (moved > 1 + self.clip_high)
        metrics = {"policy/clipfrac_avg": Mean.of(beyond_clip.float(), batch.mask_BT)}
        return leashed_loss(gained, term_BT, batch, metrics | token_metrics(outputs, batch))

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return beyond(self.update_kl_limit, metrics)

    def at(self, step: int) -> Self:
        return self
