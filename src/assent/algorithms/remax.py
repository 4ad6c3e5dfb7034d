"""ReMax: REINFORCE whose baseline is the score of the policy's most probable response to the same prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from assent.algorithms._critic_free import advantage_metrics, experience_of, policy_gradient_loss, rewards_of
from assent.protocols import Forward
from assent.types import BaselinedScored, ConstantLength, Loss, Mean, PolicyExperience
from assent.types.settings import above, at_least


@dataclass(frozen=True, slots=True)
class ReMax:
    """ReMax (Li et al., arXiv 2310.10505): one greedy response per prompt is the critic; KL as k1 in the reward.

    R = score - beta * sum_t (log pi_old - log pi_ref);  A = R - score of the greedy response;
    L = mean over responses of -A * sum_t log pi(y_t)

    The baseline does not depend on what was sampled, so the gradient is that of the KL-regularised objective, with one
    response per prompt too. The authors' code charges a token its own KL alone, and means over tokens; this charges it
    for what it leads to.

    Args:
        minibatches: optimiser steps of the one pass; each after the first learns, uncorrected, from an older policy.
        importance_cap: weigh each token by min(pi_old / pi_sampler, cap): 2 in Yao et al. 2025; None for no correction.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    epochs: ClassVar[int] = 1
    uses_critic: ClassVar[bool] = False
    uses_greedy: ClassVar[bool] = True
    smallest_group: ClassVar[int] = 1

    name: Literal["remax"] = "remax"
    minibatches: int = 1
    importance_cap: float | None = None

    def __post_init__(self) -> None:
        at_least(1, minibatches=self.minibatches)
        above(0, importance_cap=self.importance_cap)

    def experience(self, scored: BaselinedScored) -> PolicyExperience:
        advantages_B = rewards_of(scored, scored.kl_coef).sum(1) - scored.baseline_B
        return experience_of(
            scored,
            advantages_B[:, None],
            ConstantLength(1),
            importance_cap=self.importance_cap,
            metrics=advantage_metrics(advantages_B),
        )

    def loss(self, batch: PolicyExperience, forward: Forward) -> Loss:
        """Per token: -advantage * log pi, weighted."""
        return policy_gradient_loss(batch, forward)

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return False

    def at(self, step: int) -> Self:
        return self
