"""Group relative policy optimisation, and what its settings make of it: Dr. GRPO, DAPO's loss, GSPO."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch

from assent.functional import advantages, kl, policy, ratio
from assent.protocols import Forward
from assent.types import Loss, Mean, PolicyExperience, Reduction, Scored, SequenceMean


@dataclass(frozen=True, slots=True)
class GRPO:
    """GRPO (Shao et al., arXiv 2402.03300): scores relative to their group, PPO's clip, KL in the loss.

    A = (score - group mean) / group std, one for all tokens of a response;
    L = reduction of [ max(-A rho, -A clip(rho)) + beta * rho * k3 ],  rho = pi / pi_old

    The KL term. The paper's k3 carries no ratio, and its gradient on sampled tokens is that of KL(ref || policy): the
    other divergence. With the ratio (DeepSeek-V3.2) the expected gradient at each token is that of KL(policy || ref),
    on-policy and off. In any form of a loss it sees the token's own state only, never what the token leads to; so
    the optimum is not ref * exp(score / beta) / Z, which RLOO and PPO reach by KL in the reward, but that of a policy
    which pays for its next token alone.

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
        update_kl_limit: an update ends early once its approximate KL to the old policy exceeds this, in nats per token.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 2

    name: Literal["grpo"] = "grpo"
    epochs: int = 1
    minibatches: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    scale_by_std: bool = True
    reduction: Reduction = field(default_factory=SequenceMean)
    sequence_ratio: bool = False
    update_kl_limit: float | None = None

    def experience(self, scored: Scored) -> PolicyExperience:
        """Advantages of whole groups. A response alone of its prompt has advantage 0; its KL still counts.

        Raises:
            ValueError: every response is alone of its prompt.
        """
        mask, groups_B, scores_B = scored.mask_BT, scored.groups_B, scored.score_events_BT.sum(1)
        together_B = advantages.in_company(groups_B)
        advantages_B = torch.zeros_like(scores_B)
        advantages_B[together_B] = advantages.group_relative(
            scores_B[together_B], groups_B[together_B], scale_by_std=self.scale_by_std
        )
        metrics = {
            "advantage/mean": Mean.of(advantages_B),
            "advantage/std": Mean(advantages_B.std(correction=0).item(), 1.0),
            "group/no_signal": Mean.of(advantages.no_signal(scores_B, groups_B).float()),
        }
        weights_BT, units_B = self.reduction.weigh(mask)
        return PolicyExperience(
            scored.sequences,
            scored.old_logprobs_BT,
            scored.ref_logprobs_BT,
            advantages_B[:, None].expand(mask.shape),
            weights_BT,
            units_B,
            scored.kl_coef,
            metrics,
        )

    def loss(self, batch: PolicyExperience, forward: Forward) -> Loss:
        """Per token, weighted: surrogate + beta * KL term."""
        mask, outputs = batch.mask_BT, forward.tokens(batch.sequences)
        log_ratio = outputs.logprobs_BT - batch.old_logprobs_BT
        clipped = ratio.sequence_log_ratio(log_ratio, mask).expand(mask.shape) if self.sequence_ratio else log_ratio
        surrogate = policy.clipped_surrogate(
            clipped, batch.advantages_BT, clip_low=self.clip_low, clip_high=self.clip_high
        )
        per_token = surrogate
        if batch.kl_coef:
            leash = kl.k3_with_ratio(outputs.logprobs_BT, batch.old_logprobs_BT, batch.ref_logprobs_BT)
            per_token = surrogate + batch.kl_coef * leash
        moved = clipped.detach().exp()
        metrics = {
            "loss/policy_avg": Mean.of(surrogate, mask),
            "policy/approxkl_avg": Mean.of(0.5 * log_ratio.detach().square(), mask),
            "policy/clipfrac_avg": Mean.of(((moved < 1 - self.clip_low) | (moved > 1 + self.clip_high)).float(), mask),
            "policy/entropy_avg": Mean.of(outputs.entropy_BT, mask),
            "val/ratio": Mean.of(log_ratio.detach().exp(), mask),
        }
        return Loss(batch.weights_BT * per_token, mask, metrics)

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        limit, moved = self.update_kl_limit, metrics.get("policy/approxkl_avg")
        return limit is not None and moved is not None and moved.value > limit

    def at(self, step: int) -> Self:
        return self
