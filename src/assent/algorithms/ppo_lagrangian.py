"""PPO under a constraint: reward as high as it goes while the cost stays under a threshold (Safe RLHF)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from assent.algorithms._importance import importance
from assent.algorithms.ppo import PPO
from assent.functional import masked, returns, value
from assent.protocols import Forward
from assent.types import ConstrainedExperience, CostScored, Loss, Mean


@dataclass(frozen=True, slots=True)
class PPOLagrangian:
    """max E[score] subject to E[cost] <= threshold, by its Lagrangian (Dai et al., arXiv 2310.12773).

    reward    r_t = score event - beta (log pi_old - log pi_ref)
    cost      c_t = cost event  + beta (log pi_old - log pi_ref)
    advantage A = (A_r - lambda A_c) / (1 + lambda), two critics and two passes of GAE
    L         PPO's, with this advantage, plus the value loss of the second critic

    The KL stands on both sides with opposite signs, so that its weight in the combination is beta, whatever lambda is.
    At a fixed lambda the gradient is that of E[(score - lambda cost) / (1 + lambda)] - beta KL, whose optimum is
    ref * exp((score - lambda cost) / ((1 + lambda) beta)) / Z: the score weighs less against the leash as lambda grows.
    Lambda itself is a state, not a setting: the scoring moves it (`train.lagrange`) and each batch carries its own.

    Args:
        ppo: everything that PPO can be given but `whiten_rewards`. The authors' script has clip 0.2, value_clip 5,
            gamma 1, lam 0.95 and no whitening, as by default here; settings that a recipe leaves out take PPO's own
            defaults.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = True
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 1

    name: Literal["ppo_lagrangian"] = "ppo_lagrangian"
    ppo: PPO = field(default_factory=lambda: PPO(value_clip=5.0, whiten_advantages=False))

    def __post_init__(self) -> None:
        if self.ppo.whiten_rewards:
            raise ValueError(
                "whiten_rewards would divide the reward and its KL by their deviation, and not the cost: lambda would "
                "no longer be their price; got true; leave it out, or normalise the scorers"
            )

    @property
    def importance_cap(self) -> float | None:
        return self.ppo.importance_cap

    @property
    def critic_warmup_steps(self) -> int:
        return self.ppo.critic_warmup_steps

    @property
    def epochs(self) -> int:
        return self.ppo.epochs

    @property
    def minibatches(self) -> int:
        return self.ppo.minibatches

    def experience(self, scored: CostScored) -> ConstrainedExperience:
        """Both advantages as they are, combined, and then whitened and corrected where PPO would."""
        mask, ppo = scored.mask_BT, self.ppo
        of_reward = replace(ppo, whiten_advantages=False, importance_cap=None).experience(scored)
        # Minus the shaped minus of the cost: the KL penalty comes out added.
        costs_BT = -returns.shape_rewards(
            -scored.cost_events_BT, scored.old_logprobs_BT, scored.ref_logprobs_BT, mask, kl_coef=scored.kl_coef
        )
        cost_advantages, cost_returns = returns.gae(costs_BT, scored.cost_values_BT, mask, gamma=ppo.gamma, lam=ppo.lam)
        weight = scored.multiplier
        advantages = (of_reward.advantages_BT - weight * cost_advantages) / (1.0 + weight)
        if ppo.whiten_advantages:
            advantages = masked.whiten(advantages, mask)
        corrections, corrected = importance(scored, ppo.importance_cap)
        explained = value.explained_variance(scored.cost_values_BT, cost_returns, mask).item()
        metrics = {
            **of_reward.metrics,
            **corrected,
            "cost_advantage/mean": Mean.of(cost_advantages, mask),
            "cost_advantage/std": Mean(cost_advantages[mask].std(correction=0).item(), 1.0),
            "cost_value/explained_variance": Mean(explained, 1.0),
        }
        return ConstrainedExperience(
            scored.sequences,
            scored.old_logprobs_BT,
            advantages * corrections,
            scored.values_BT,
            of_reward.returns_BT,
            metrics,
            old_cost_values_BT=scored.cost_values_BT,
            cost_returns_BT=cost_returns,
        )

    def loss(self, batch: ConstrainedExperience, forward: Forward) -> Loss:
        """Per token: PPO's + value_coef * value loss of the cost critic."""
        of_policy = self.ppo.loss(batch, forward)
        of_critic = value.clipped_value_loss(
            forward.cost_values(batch.sequences),
            batch.old_cost_values_BT,
            batch.cost_returns_BT,
            clip=self.ppo.value_clip,
        )
        metrics = {**of_policy.metrics, "loss/cost_value_avg": Mean.of(of_critic, batch.mask_BT)}
        return Loss(of_policy.per_item + self.ppo.value_coef * of_critic, batch.mask_BT, metrics)

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return self.ppo.stops(metrics)

    def at(self, step: int) -> Self:
        return replace(self, ppo=self.ppo.at(step))
