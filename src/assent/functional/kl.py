"""Estimators of KL(policy || reference), per token, in nats.

With L = logprobs - ref_logprobs on tokens that the policy sampled. What each is fit for follows from its gradient
*when it is differentiated as a loss* on such tokens: k1 has none in expectation, k2 has that of KL(policy ||
reference), k3 has that of KL(reference || policy). So: k1 inside a (detached) reward, k2 as a loss, k3 for reporting.

Source: Schulman, "Approximating KL divergence" (2020); the gradients: arXiv 2510.01555.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from assent.functional import _guards
from assent.functional._precision import as_float, clamp_log_ratio
from assent.functional.logprobs import KeptTokens, chunk_of
from assent.kernels import products


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


def k2_with_ratio(logprobs: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """sg[exp(logprobs - old_logprobs)] * k2: as a loss on tokens that the *old* policy sampled its gradient is that of
    KL(policy || reference), at every step of an update. The ratio is a constant: k2's gradient needs nothing from it.

    Args:
        logprobs: of the sampled tokens under the policy, any shape, nats; carries the gradient.
        old_logprobs: under the policy that sampled them, same shape; a constant.
        ref_logprobs: under the reference, same shape; a constant.

    Returns:
        Shape of the arguments, nats; the ratio's logarithm is clamped to +-20.

    Raises:
        ValueError: the shapes differ.

    Source: the importance weight: arXiv 2505.17508.
    """
    ratio = clamp_log_ratio(_log_ratio(logprobs.detach(), old_logprobs.detach())).exp()
    return ratio * k2(logprobs, ref_logprobs.detach())


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


def linear_exact(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    ref_hidden_BTE: Tensor,
    ref_weight_VE: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    bias_V: Tensor | None = None,
    ref_bias_V: Tensor | None = None,
    kept: KeptTokens | None = None,
) -> Tensor:
    """`exact` of two language-model heads on their hidden states, the logits divided by the temperature, without ever
    holding the logits of all positions.

    Positions go through both heads `chunk` at a time; the backward pass computes the logits of a chunk again, so that
    neither pass holds more than two chunks of them. No gradient reaches the reference.

    Args:
        hidden_BTD: of the policy, `[..., D]`.
        weight_VD: its head.
        ref_hidden_BTE: of the reference at the same positions, `[..., E]`; its size may be another.
        ref_weight_VE: the reference's head, over the same vocabulary.
        temperature: positive, the same for both.
        chunk: positions at a time; None takes as many as `logprobs.linear_token_logprobs` does.
        bias_V, ref_bias_V: of the heads, if they have one.
        kept: the tokens that each position could draw from, `[...]` flattened: the divergence is that of both
            distributions among them. All tokens when None.

    Returns:
        `[...]`, nats, float32 at least.

    Raises:
        ValueError: shapes do not fit, the temperature is not positive, chunk < 1.

    Source: our own form of `exact`, the divergence summed over the vocabulary where k1 to k3 sample it.
    """
    _guards.number("temperature", temperature, low=0.0, open_low=True, open_high=True)
    size_V = _head_size("policy", hidden_BTD, weight_VD, bias_V)
    ref_size_V = _head_size("reference", ref_hidden_BTE, ref_weight_VE, ref_bias_V)
    if hidden_BTD.shape[:-1] != ref_hidden_BTE.shape[:-1] or size_V != ref_size_V:
        _guards.refuse(
            "policy and reference must be read at the same positions, over the same vocabulary",
            got=f"positions {tuple(hidden_BTD.shape[:-1])} and {tuple(ref_hidden_BTE.shape[:-1])}, "
            f"vocabularies {size_V} and {ref_size_V}",
            fix="read both on the same sequences; two heads with rows of padding must have equally many",
        )
    chunk = chunk_of(hidden_BTD, size_V) if chunk is None else chunk
    _guards.count("chunk", chunk)
    hidden_ND, ref_hidden_NE = hidden_BTD.flatten(0, -2), ref_hidden_BTE.detach().flatten(0, -2)
    ref_weight_VE, ref_bias_V = ref_weight_VE.detach(), None if ref_bias_V is None else ref_bias_V.detach()
    chunks = [slice(start, start + chunk) for start in range(0, max(1, len(hidden_ND)), chunk)]
    parts = [
        checkpoint(
            _chunk_exact, hidden_ND[rows], weight_VD, bias_V, ref_hidden_NE[rows], ref_weight_VE, ref_bias_V,
            temperature, None if kept is None else kept.rows(rows), use_reentrant=False, preserve_rng_state=False,
        )
        for rows in chunks
    ]  # fmt: skip
    return torch.cat(parts).view(hidden_BTD.shape[:-1])


def _head_size(whose: str, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> int:
    """V, where hidden, weight and bias fit each other."""
    _guards.rank(f"the {whose}'s weight", weight, 2, "[V, D]")
    if hidden.dim() < 2 or hidden.shape[-1] != weight.shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
        _guards.refuse(
            f"the {whose}'s hidden, weight and bias do not fit each other",
            got=f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, "
            f"bias {None if bias is None else tuple(bias.shape)}",
            fix="pass hidden [..., D], weight [V, D] and bias [V] or None",
        )
    return weight.shape[0]


def _chunk_exact(
    hidden_CD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    ref_hidden_CE: Tensor,
    ref_weight_VE: Tensor,
    ref_bias_V: Tensor | None,
    temperature: float,
    kept: KeptTokens | None,
) -> Tensor:
    logits_CV = as_float(products.linear(hidden_CD, weight_VD, bias_V)) / temperature
    ref_logits_CV = as_float(products.linear(ref_hidden_CE, ref_weight_VE, ref_bias_V)) / temperature
    if kept is not None:
        logits_CV, ref_logits_CV = kept.restrict(logits_CV), kept.restrict(ref_logits_CV)
    return exact(logits_CV, ref_logits_CV)
