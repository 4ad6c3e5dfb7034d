"""Policy losses, one per token, to be minimised. Whoever calls them reduces them.

Each argument is `[B, T]`, or `[B, 1]` where one value serves the whole sequence (an advantage per response, the
log-ratio of `ratio.sequence_log_ratio`). Advantages are constants: detach them if they came from a graph.
"""

import torch
from torch import Tensor

from assent.functional import _guards
from assent.functional._precision import as_float, clamp_log_ratio


def clipped_surrogate(
    log_ratio_BT: Tensor,
    advantages_BT: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """PPO's loss: max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)) with rho = exp(log_ratio).

    With `dual_clip` = c, where A < 0 the loss is at most -A c, so that one token with a huge ratio cannot own the
    batch.

    Args:
        log_ratio_BT: logprobs - old_logprobs, nats; clamped to +-20.
        advantages_BT: in any unit.
        clip_low: how far below 1 the ratio earns; .2 in PPO, 3e-4 in GSPO.
        clip_high: how far above 1; .2 in PPO, .28 in DAPO, 4e-4 in GSPO.
        dual_clip: c > 1, 3 in Ye et al. 2020; None for none.

    Returns:
        `[B, T]`, in the unit of the advantages.

    Raises:
        ValueError: shapes do not fit, a clip is negative, dual_clip is not above 1.

    Source: PPO (arXiv 1707.06347); asymmetric clip: DAPO (arXiv 2503.14476); dual clip: Ye et al. 2020 (arXiv
    1912.09729).
    """
    _guards.broadcastable(log_ratio_BT=log_ratio_BT, advantages_BT=advantages_BT)
    _guards.number("clip_low", clip_low, low=0.0)
    _guards.number("clip_high", clip_high, low=0.0)
    ratio_BT = clamp_log_ratio(as_float(log_ratio_BT)).exp()
    advantages_BT = as_float(advantages_BT)
    clipped_BT = ratio_BT.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_BT = torch.maximum(-advantages_BT * ratio_BT, -advantages_BT * clipped_BT)
    if dual_clip is None:
        return loss_BT
    _guards.number("dual_clip", dual_clip, low=1.0, open_low=True)
    return torch.where(advantages_BT < 0, torch.minimum(loss_BT, -advantages_BT * dual_clip), loss_BT)


def cispo(
    log_ratio_BT: Tensor, logprobs_BT: Tensor, advantages_BT: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """-sg[clip(rho, 1 - clip_low, 1 + clip_high)] A logprob: the clip bounds a token's weight, never removes its
    gradient.

    Args:
        log_ratio_BT: logprobs - old_logprobs, nats; enters as a constant.
        logprobs_BT: of the sampled tokens under the policy, nats; carries the gradient.
        advantages_BT: in any unit.
        clip_low: 1 or more leaves the ratio unbounded below, as the paper does.
        clip_high: the bound above; 5 in ScaleRL (arXiv 2510.13786).

    Returns:
        `[B, T]`. Its gradient is the meaning; its value is not a quantity to watch.

    Raises:
        ValueError: shapes do not fit, or a clip is negative.

    Source: CISPO, MiniMax-M1 (arXiv 2506.13585).
    """
    _guards.broadcastable(log_ratio_BT=log_ratio_BT, logprobs_BT=logprobs_BT, advantages_BT=advantages_BT)
    _guards.number("clip_low", clip_low, low=0.0)
    _guards.number("clip_high", clip_high, low=0.0)
    ratio_BT = clamp_log_ratio(as_float(log_ratio_BT.detach())).exp()
    weight_BT = ratio_BT.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -weight_BT * as_float(advantages_BT) * as_float(logprobs_BT)


def policy_gradient(logprobs_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """-A logprob: REINFORCE, right only on tokens drawn from the policy as it is now.

    Args:
        logprobs_BT: of the sampled tokens under the policy, nats.
        advantages_BT: in any unit.

    Returns:
        `[B, T]`. Its gradient is the meaning; its value is not a quantity to watch.

    Raises:
        ValueError: shapes do not fit.

    Source: Williams 1992; RLOO (arXiv 2402.14740).
    """
    _guards.broadcastable(logprobs_BT=logprobs_BT, advantages_BT=advantages_BT)
    return -as_float(advantages_BT) * as_float(logprobs_BT)
