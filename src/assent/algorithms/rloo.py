"""REINFORCE with a leave-one-out baseline: the whole response is one action, the other samples are the critic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch

from assent.functional import advantages, policy, returns
from assent.protocols import Forward
from assent.types import ConstantLength, Loss, Mean, PolicyExperience, Scored


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
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 2
    epochs: ClassVar[int] = 1

    name: Literal["rloo"] = "rloo"
    minibatches: int = 1

    def experience(self, scored: Scored) -> PolicyExperience:
        """The KL is summed into the reward of the sequence. A response alone of its prompt has advantage 0.

        Raises:
            ValueError: every response is alone of its prompt.
        """
        mask = scored.mask_BT
        rewards_B = returns.shape_rewards(
            scored.score_events_BT, scored.old_logprobs_BT, scored.ref_logprobs_BT, mask, kl_coef=scored.kl_coef
        ).sum(1)
        groups_B = scored.groups_B
        together_B = advantages.in_company(groups_B)
        advantages_B = torch.zeros_like(rewards_B)
        advantages_B[together_B] = advantages.leave_one_out(rewards_B[together_B], groups_B[together_B])
        metrics = {
            "advantage/mean": Mean.of(advantages_B),
            "advantage/std": Mean(advantages_B.std(correction=0).item(), 1.0),
            "group/no_signal": Mean.of(advantages.no_signal(scored.score_events_BT.sum(1), groups_B).float()),
        }
        weights_BT, units_B = ConstantLength(1).weigh(mask)
        return PolicyExperience(
            scored.sequences,
            scored.old_logprobs_BT,
            scored.ref_logprobs_BT,
            advantages_B[:, None].expand(mask.shape),
            weights_BT,
            units_B,
            0.0,
            metrics,
        )

    def loss(self, batch: PolicyExperience, forward: Forward) -> Loss:
        """Per token: -advantage * log pi, weighted."""
        outputs = forward.tokens(batch.sequences)
        per_token = batch.weights_BT * policy.policy_gradient(outputs.logprobs_BT, batch.advantages_BT)
        log_ratio = (outputs.logprobs_BT - batch.old_logprobs_BT).detach()
        metrics = {
            "policy/approxkl_avg": Mean.of(0.5 * log_ratio.square(), batch.mask_BT),
            "policy/entropy_avg": Mean.of(outputs.entropy_BT, batch.mask_BT),
            "val/ratio": Mean.of(log_ratio.exp(), batch.mask_BT),
        }
        return Loss(per_token, batch.mask_BT, metrics)

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return False

    def at(self, step: int) -> Self:
        return self
