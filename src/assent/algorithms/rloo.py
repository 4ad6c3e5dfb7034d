"""REINFORCE with a leave-one-out baseline: the whole response is one action, the other samples are the critic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from assent.algorithms._critic_free import (
    advantage_metrics,
    among_others,
    experience_of,
    no_signal,
    policy_gradient_loss,
    rewards_of,
)
from assent.functional import advantages
from assent.protocols import Forward
from assent.types import ConstantLength, Loss, Mean, PolicyExperience, Scored
from assent.types.settings import above, at_least


@dataclass(frozen=True, slots=True)
class RLOO:
    """RLOO (Ahmadian et al., arXiv 2402.14740): no critic, no clip, no ratio; KL to the reference as k1 in the reward.

    R = score - beta * sum_t (log pi_old - log pi_ref);  A = R - mean R of the prompt's other responses;
    L = mean over responses of -A * sum_t log pi(y_t)

    One pass over each experience, since the gradient is right only on the policy's own tokens: there is no setting for
    more. TRL's version puts the ratio of whole responses in place of log pi and clips it; with one step they agree.

    Args:
        minibatches: optimiser steps of the pass; 1 in the paper. Each after the first learns, uncorrected, from tokens
            of a policy that is that many steps older.
        importance_cap: weigh each token by min(pi_old / pi_sampler, cap): 2 in Yao et al. 2025; None for no correction.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = False
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 2
    epochs: ClassVar[int] = 1

    name: Literal["rloo"] = "rloo"
    minibatches: int = 1
    importance_cap: float | None = None

    def __post_init__(self) -> None:
        at_least(1, minibatches=self.minibatches)
        above(0, importance_cap=self.importance_cap)

    def experience(self, scored: Scored) -> PolicyExperience:
        """The KL is summed into the reward of the sequence. A response alone of its prompt has advantage 0.

        Raises:
            ValueError: every response is alone of its prompt.
        """
        rewards_B = rewards_of(scored, scored.kl_coef).sum(1)
        advantages_B = among_others(advantages.leave_one_out, rewards_B, scored.groups_B)
        return experience_of(
            scored,
            advantages_B[:, None],
            ConstantLength(1),
            importance_cap=self.importance_cap,
            metrics=advantage_metrics(advantages_B) | no_signal(scored),
        )

    def loss(self, batch: PolicyExperience, forward: Forward) -> Loss:
        """Per token: -advantage * log pi, weighted."""
        return policy_gradient_loss(batch, forward)

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return False

    def at(self, step: int) -> Self:
        return self
