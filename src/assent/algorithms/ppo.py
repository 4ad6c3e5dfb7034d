"""Proximal policy optimisation with a KL leash, as InstructGPT and its descendants use it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from assent.algorithms._importance import importance
from assent.functional import masked, policy, returns, value
from assent.protocols import Forward
from assent.types import CriticScored, Experience, Loss, Mean
from assent.types.settings import above, at_least, at_most


@dataclass(frozen=True, slots=True)
class PPO:
    """Clipped surrogate, clipped value loss, GAE, KL to the reference as k1 in the reward.

    Args:
        epochs: passes over each experience; 4 in Stiennon et al. and TL;DR, 1 in InstructGPT.
        minibatches: optimiser steps per pass; InstructGPT: 8.
        gamma: discount; 1.0 in every RLHF paper.
        lam: GAE's lambda; 0.95 (OpenAI).
        clip_low, clip_high: ratio clip; 0.2 (all papers).
        dual_clip: bound on the loss of negative advantages, above 1; off in the papers, 3.0 in verl.
        value_clip: clip of the value's move, in reward units; 0.2 (lm-human-preferences), None for none.
        value_coef: weight of the value loss; 0.1 (lm-human-preferences).
        entropy_coef: weight of the entropy bonus; 0 in the papers.
        whiten_rewards: divide the shaped rewards by their deviation, mean kept (Ziegler et al.); off by default since
            it shortens outputs at equal quality (2403.17031, detail 14).
        whiten_advantages: mean 0 and deviation 1 over the batch (all of OpenAI's code).
        critic_warmup_steps: first steps in which only the critic learns.
        importance_cap: weigh each token's surrogate by min(pi_old / pi_sampler, cap): 2 in Yao et al. 2025; None for no
            correction of what sampled the tokens.
        update_kl_limit: an update ends early once its approximate KL to the old policy exceeds this, in nats per token.
        policy_coef: weight of the surrogate; 1 in the papers, 0 while the critic warms up.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = True
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 1

    name: Literal["ppo"] = "ppo"
    epochs: int = 4
    minibatches: int = 1
    gamma: float = 1.0
    lam: float = 0.95
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    value_clip: float | None = 0.2
    value_coef: float = 0.1
    entropy_coef: float = 0.0
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    critic_warmup_steps: int = 0
    importance_cap: float | None = None
    update_kl_limit: float | None = None
    policy_coef: float = 1.0

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, minibatches=self.minibatches)
        at_least(0, gamma=self.gamma, lam=self.lam, clip_low=self.clip_low, clip_high=self.clip_high)
        at_most(1, gamma=self.gamma, lam=self.lam)
        above(1, dual_clip=self.dual_clip)
        at_least(0, value_clip=self.value_clip, value_coef=self.value_coef, entropy_coef=self.entropy_coef)
        at_least(0, critic_warmup_steps=self.critic_warmup_steps, policy_coef=self.policy_coef)
        above(0, importance_cap=self.importance_cap, update_kl_limit=self.update_kl_limit)

    def experience(self, scored: CriticScored) -> Experience:
        """Rewards with the KL penalty, then advantages and returns; returns come from unwhitened advantages."""
        mask = scored.mask_BT
        rewards = returns.shape_rewards(
            scored.score_events_BT, scored.old_logprobs_BT, scored.ref_logprobs_BT, mask, kl_coef=scored.kl_coef
        )
        if self.whiten_rewards:
            rewards = masked.whiten(rewards, mask, shift_mean=False)
        advantages, targets = returns.gae(rewards, scored.values_BT, mask, gamma=self.gamma, lam=self.lam)
        explained = value.explained_variance(scored.values_BT, targets, mask).item()
        metrics = {
            "advantage/mean": Mean.of(advantages, mask),
            "advantage/std": Mean(advantages[mask].std(correction=0).item(), 1.0),
            "value/explained_variance": Mean(explained, 1.0),
        }
        if self.whiten_advantages:
            advantages = masked.whiten(advantages, mask)
        # Times a positive weight, an advantage gives the same weight times the surrogate, clipped or not.
        corrections, corrected = importance(scored, self.importance_cap)
        advantages, metrics = advantages * corrections, metrics | corrected
        return Experience(scored.sequences, scored.old_logprobs_BT, advantages, scored.values_BT, targets, metrics)

    def loss(self, batch: Experience, forward: Forward) -> Loss:
        """Per token: surrogate + value_coef * value loss - entropy_coef * entropy."""
        mask = batch.mask_BT
        if self.policy_coef == 0:
            values = forward.values(batch.sequences)
            value_loss = self._value_loss(values, batch)
            return Loss(self.value_coef * value_loss, mask, self._value_metrics(values, value_loss, batch))
        outputs = forward.actor_critic(batch.sequences)
        log_ratio = outputs.logprobs_BT - batch.old_logprobs_BT
        surrogate = policy.clipped_surrogate(
            log_ratio,
            batch.advantages_BT,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
        )
        value_loss = self._value_loss(outputs.values_BT, batch)
        per_token = self.policy_coef * surrogate + self.value_coef * value_loss - self.entropy_coef * outputs.entropy_BT
        ratio = log_ratio.detach().exp()
        metrics = {
            "loss/policy_avg": Mean.of(surrogate, mask),
            "policy/approxkl_avg": Mean.of(0.5 * log_ratio.detach().square(), mask),
            "policy/clipfrac_avg": Mean.of(((ratio < 1 - self.clip_low) | (ratio > 1 + self.clip_high)).float(), mask),
            "policy/entropy_avg": Mean.of(outputs.entropy_BT, mask),
            "val/ratio": Mean.of(ratio, mask),
            "val/ratio_var": Mean.of((ratio - 1).square(), mask),
        }
        return Loss(per_token, mask, metrics | self._value_metrics(outputs.values_BT, value_loss, batch))

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        limit, moved = self.update_kl_limit, metrics.get("policy/approxkl_avg")
        return limit is not None and moved is not None and moved.value > limit

    def at(self, step: int) -> Self:
        return replace(self, policy_coef=0.0) if step < self.critic_warmup_steps else self

    def _value_loss(self, values: Tensor, batch: Experience) -> Tensor:
        return value.clipped_value_loss(values, batch.old_values_BT, batch.returns_BT, clip=self.value_clip)

    def _value_metrics(self, values: Tensor, value_loss: Tensor, batch: Experience) -> dict[str, Mean]:
        metrics = {"loss/value_avg": Mean.of(value_loss, batch.mask_BT)}
        if self.value_clip is not None:
            clipped = (values.detach() - batch.old_values_BT).abs() > self.value_clip
            metrics["val/clipfrac_avg"] = Mean.of(clipped.to(torch.float32), batch.mask_BT)
        return metrics
