"""From score events to rewards, and from rewards to advantages and returns."""

import torch
from torch import Tensor

from assent.functional import _guards, kl
from assent.functional._precision import as_float


def shape_rewards(
    score_events_BT: Tensor, logprobs_BT: Tensor, ref_logprobs_BT: Tensor, mask_BT: Tensor, *, kl_coef: float
) -> Tensor:
    """Reward of each token: event_t - kl_coef * (logprob_t - ref_logprob_t), the KL penalty being k1.

    Args:
        score_events_BT: the score that falls on each token, 0 where none does; an outcome score stands on the last
            token.
        logprobs_BT: of the sampled tokens under the policy that is trained, before the update, nats.
        ref_logprobs_BT: of the same tokens under the reference, nats.
        mask_BT: bool, True = token of the response that the policy chose. An event on a masked place is dropped.
        kl_coef: score units per nat, not negative.

    Returns:
        `[B, T]` in score units, detached; masked places are 0.

    Raises:
        ValueError: shapes differ, the mask is not bool, or kl_coef is negative.

    Source: Ziegler et al. 2019 (arXiv 1909.08593); InstructGPT (arXiv 2203.02155).
    """
    _guards.mask_of(mask_BT, score_events_BT=score_events_BT, logprobs_BT=logprobs_BT, ref_logprobs_BT=ref_logprobs_BT)
    _guards.number("kl_coef", kl_coef, low=0.0)
    penalty_BT = kl_coef * kl.k1(logprobs_BT.detach(), ref_logprobs_BT.detach())
    return torch.where(mask_BT, as_float(score_events_BT.detach()) - penalty_BT, 0.0)


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over the included tokens of each row.

    Let t+ be the next *included* token after t. Then

        delta_t = reward_t + gamma * value_{t+} - value_t
        advantage_t = delta_t + gamma * lam * advantage_{t+}
        return_t = advantage_t + value_t

    After the last included token both value and advantage are 0: the end of a response is a true terminal, and
    nothing is bootstrapped from what a value head says on padding. A hole in the mask (tool output inside a response)
    takes no time step: the token before it looks straight at the token after it, undiscounted by the hole's length.
    Rewards and values on masked places are not read.

    Args:
        rewards_BT: as from `shape_rewards`.
        values_BT: predicted return from each token on, in the unit of the rewards.
        mask_BT: bool, True = included.
        gamma: discount per included token; 1 in every RLHF paper.
        lam: 0 trusts the value head, 1 is the plain return minus the value; .95 in Ziegler et al. 2019, 1 in
            REINFORCE-likes.

    Returns:
        (advantages, returns), `[B, T]` each in the unit of the rewards, detached; masked places are 0. Not whitened.

    Raises:
        ValueError: shapes differ or are not [B, T], the mask is not bool, gamma or lam is outside [0, 1].

    Source: Schulman et al. 2016 (arXiv 1506.02438).
    """
    _guards.rank("rewards_BT", rewards_BT, 2, "[B, T]")
    _guards.mask_of(mask_BT, rewards_BT=rewards_BT, values_BT=values_BT)
    _guards.number("gamma", gamma, low=0.0, high=1.0)
    _guards.number("lam", lam, low=0.0, high=1.0)
    rewards_BT = torch.where(mask_BT, as_float(rewards_BT.detach()), 0.0)
    values_BT = torch.where(mask_BT, as_float(values_BT.detach()), 0.0)

    deltas_BT = torch.where(mask_BT, rewards_BT + gamma * _next_included(values_BT, mask_BT) - values_BT, 0.0)
    # A hole hands the carry on untouched: delta 0, decay 1. One fused step per column keeps the loop over T cheap.
    decay_BT = torch.ones_like(deltas_BT).masked_fill(mask_BT, gamma * lam)
    carry_B = deltas_BT.new_zeros(deltas_BT.shape[0])
    columns = []
    for delta_B, decay_B in zip(reversed(deltas_BT.unbind(1)), reversed(decay_BT.unbind(1)), strict=True):
        carry_B = torch.addcmul(delta_B, decay_B, carry_B)
        columns.append(carry_B)
    carried_BT = torch.stack(columns[::-1], dim=1) if columns else deltas_BT
    advantages_BT = torch.where(mask_BT, carried_BT, 0.0)
    return advantages_BT, advantages_BT + values_BT


def _next_included(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """At each place the element of `x_BT` on the next included place to its right, 0 where there is none."""
    size_T = x_BT.shape[1]
    if size_T == 0:
        return x_BT
    place_BT = torch.where(mask_BT, torch.arange(size_T, device=x_BT.device), size_T)
    from_here_BT = place_BT.flip(1).cummin(1).values.flip(1)  # the first included place at or after each place
    after_BT = torch.cat([from_here_BT[:, 1:], from_here_BT.new_full((x_BT.shape[0], 1), size_T)], dim=1)
    return torch.cat([x_BT, x_BT.new_zeros(x_BT.shape[0], 1)], dim=1).gather(1, after_BT)
