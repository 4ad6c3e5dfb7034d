"""Log-ratios between two policies on the same tokens, other than the plain difference."""

import torch
from torch import Tensor

from assent.functional import _guards
from assent.functional._precision import as_float, clamp_log_ratio


def sequence_log_ratio(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Length-normalised log-ratio of each sequence: the mean of log_ratio over its included tokens.

    Its exp is the geometric mean of the token ratios, GSPO's s_i = (pi(y|x) / pi_old(y|x))^(1/|y|).

    Args:
        log_ratio_BT: logprobs - old_logprobs, nats.
        mask_BT: bool, True = included.

    Returns:
        `[B, 1]`, nats per token, ready to broadcast against `[B, T]`. A row without an included token gives 0: its
        every place is a masked place.

    Raises:
        ValueError: shapes differ or are not [B, T], or the mask is not bool.

    Source: GSPO (arXiv 2507.18071), equation of s_i.
    """
    _guards.rank("log_ratio_BT", log_ratio_BT, 2, "[B, T]")
    _guards.mask_of(mask_BT, log_ratio_BT=log_ratio_BT)
    included_BT = torch.where(mask_BT, as_float(log_ratio_BT), 0.0)
    return included_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)


def truncated_importance_weights(old_logprobs: Tensor, sampler_logprobs: Tensor, *, cap: float) -> Tensor:
    """min(exp(old_logprobs - sampler_logprobs), cap): corrects a loss for tokens drawn by an engine that differs a
    little.

    Args:
        old_logprobs: of the sampled tokens under the learner before the update, any shape, nats.
        sampler_logprobs: of the same tokens under the engine that sampled them, same shape.
        cap: largest weight; 2 is usual (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
            training").

    Returns:
        Weights in (0, cap], shape of the arguments, detached: a weight is a constant of the loss.

    Raises:
        ValueError: the shapes differ, or cap is not positive.
    """
    _guards.same_shape(old_logprobs=old_logprobs, sampler_logprobs=sampler_logprobs)
    _guards.number("cap", cap, low=0.0, open_low=True)
    log_ratio = as_float(old_logprobs.detach()) - as_float(sampler_logprobs.detach())
    return clamp_log_ratio(log_ratio).exp().clamp(max=cap)
