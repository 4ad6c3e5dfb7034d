"""Group relative policy optimisation, and what its settings make of it: Dr. GRPO, DAPO's loss, GSPO."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from assent.algorithms._critic_free import (
    beyond,
    clipped_loss,
    group_relative_experience,
)
from assent.algorithms.leash import K3InLoss, Leash
from assent.protocols import Forward
from assent.types import Loss, Mean, PolicyExperience, Reduction, Scored, SequenceMean
from assent.types.settings import above, at_least


@dataclass(frozen=True, slots=True)
class GRPO:
    """GRPO (Shao et al., arXiv 2402.03300): scores relative to their group, PPO's clip, KL in the loss.

    A = (score - group mean) / group std, one for all tokens of a response;
    L = reduction of [ max(-A rho, -A clip(rho)) + beta * rho * k3 ],  rho = pi / pi_old

    The KL term. The paper's k3 carries no ratio, and its gradient on sampled tokens is that of KL(ref || policy): the
    other divergence. With the ratio (DeepSeek-V3.2) the expected gradient at each token is that of KL(policy || ref),
    on-policy and off. In any form of a loss it sees the token's own state only, never what the token leads to; so
    the optimum is not ref * exp(score / beta) / Z, which RLOO and PPO reach by KL in the reward, but that of a policy
    which pays for its next token alone. `leash: {name: reward}` puts it into the reward here too, before the groups are
    compared, as verl can.

    Variants: Dr. GRPO (2503.20783) is `scale_by_std: false`, `reduction: {name: constant, tokens: LENGTH BUDGET}`
    and KL coefficient 0. DAPO's loss (2503.14476) is `clip_high: 0.28`, `reduction: {name: token}`, KL 0; its dynamic
    sampling and overlong penalty belong to other parts. GSPO (2507.18071) is `sequence_ratio: true`,
    `clip_low: 3.0e-4`, `clip_high: 4.0e-4`, KL 0. TRL's defaults are DAPO's reduction and KL 0, not the paper's.

    Args:
        epochs: passes over each experience; 1 in the paper.
        minibatches: optimiser steps per pass; 1 in the paper, where the clip is therefore idle.
        clip_low, clip_high: ratio clip; the paper does not state it, 0.2 is PPO's and that of TRL and verl.
        scale_by_std: divide by the group's sample deviation + 1e-4.
        reduction: how tokens weigh; the paper's mean over responses of the mean over tokens.
        sequence_ratio: one ratio per response, the geometric mean of its tokens' (GSPO).
        leash: where the KL stands.
        importance_cap: weigh each token by min(pi_old / pi_sampler, cap): 2 in Yao et al. 2025; None for no correction.
        update_kl_limit: an update ends early once its approximate KL to the old policy exceeds this, in nats per token.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = False
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 2

    name: Literal["grpo"] = "grpo"
    epochs: int = 1
    minibatches: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    scale_by_std: bool = True
    reduction: Reduction = field(default_factory=SequenceMean)
    sequence_ratio: bool = False
    leash: Leash = field(default_factory=K3InLoss)
    importance_cap: float | None = None
    update_kl_limit: float | None = None

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, minibatches=self.minibatches)
        at_least(0, clip_low=self.clip_low, clip_high=self.clip_high)
        above(0, importance_cap=self.importance_cap, update_kl_limit=self.update_kl_limit)

    def experience(self, scored: Scored) -> PolicyExperience:
        """Advantages of whole groups. A response alone of its prompt has advantage 0; its KL still counts.

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
        """Per token, weighted: surrogate + beta * KL term."""
        return clipped_loss(
            batch,
            forward,
            self.leash,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            sequence_ratio=self.sequence_ratio,
        )

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return beyond(self.update_kl_limit, metrics)

    def at(self, step: int) -> Self:
        return self
