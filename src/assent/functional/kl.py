"""Estimators of KL(policy || reference), per token, in nats.

With L = logprobs - ref_logprobs on tokens that the policy sampled. What each is fit for follows from its gradient
*when it is differentiated as a loss* on such tokens: k1 has none in expectation, k2 has that of KL(policy ||
reference), k3 has that of KL(reference || policy). So: k1 inside a (detached) reward, k2 as a loss, k3 for reporting.

Source: Schulman, "Approximating KL divergence" (2020); the gradients: arXiv 2510.01555.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from assent.functional import _guards
from assent.functional._precision import as_float, clamp_log_ratio


def _log_ratio(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    _guards.same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    return as_float(logprobs) - as_float(ref_logprobs)


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """L. Unbiased, of either sign, high variance.

    Args:
        logprobs: log-probabilities of sampled tokens under the policy, any shape, nats.
        ref_logprobs: of the same tokens under the reference, same shape.

    Returns:
        Shape of the arguments, nats.

    Raises:
        ValueError: the shapes differ.
    """
    return _log_ratio(logprobs, ref_logprobs)


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """L^2 / 2. Never negative; biased from the third order of L on; as a loss its gradient is that of KL(policy ||
    reference).

    Arguments, result and errors as `k1`.
    """
    return 0.5 * _log_ratio(logprobs, ref_logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(-L) - 1 + L, with L clamped to +-20. Never negative, unbiased within the clamp, low variance near the
    reference.

    Arguments, result and errors as `k1`.
    """
    log_ratio = clamp_log_ratio(_log_ratio(logprobs, ref_logprobs))
    return torch.expm1(-log_ratio) + log_ratio


def k3_with_ratio(logprobs: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(logprobs - old_logprobs) * k3: as a loss on tokens that the *old* policy sampled its gradient is that of
    KL(policy || reference), at every step of an update. Without the ratio it is that of KL(reference || policy).

    Args:
        logprobs: of the sampled tokens under the policy, any shape, nats; carries the gradient.
        old_logprobs: under the policy that sampled them, same shape; a constant.
        ref_logprobs: under the reference, same shape; a constant.

    Returns:
        Shape of the arguments, nats; log-ratios are clamped to +-20.

    Raises:
        ValueError: the shapes differ.

    Source: DeepSeek-V3.2 (2025); the importance weight: arXiv 2505.17508.
    """
    ratio = clamp_log_ratio(_log_ratio(logprobs, old_logprobs.detach())).exp()
    return ratio * k3(logprobs, ref_logprobs.detach())


def exact(logits_BTV: Tensor, ref_logits_BTV: Tensor) -> Tensor:
    """sum_v p(v) (log p(v) - log q(v)), with p, q the softmax of the logits; tokens with p = 0 (logits of -inf) add 0.

    Args:
        logits_BTV: of the policy, `[..., V]`.
        ref_logits_BTV: of the reference, same shape.

    Returns:
        `[...]`, nats; infinite where the policy may do what the reference cannot.

    Raises:
        ValueError: the shapes differ.
    """
    _guards.same_shape(logits_BTV=logits_BTV, ref_logits_BTV=ref_logits_BTV)
    logprobs_BTV = F.log_softmax(as_float(logits_BTV), dim=-1)
    ref_logprobs_BTV = F.log_softmax(as_float(ref_logits_BTV), dim=-1)
    impossible = logprobs_BTV.isneginf()  # 0 * (-inf - x) would be nan
    difference_BTV = torch.where(impossible, 0.0, logprobs_BTV - ref_logprobs_BTV)
    return (logprobs_BTV.exp() * difference_BTV).sum(-1)
