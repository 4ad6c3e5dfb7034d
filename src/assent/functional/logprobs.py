"""Log-probabilities and entropies of tokens, from logits or straight from hidden states.

Position t of the logits (or of the hidden states) scores position t of the tokens: shift before calling. Divide by the
temperature that the tokens were sampled at, in the policy and in the reference alike.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from assent.functional import _guards
from assent.functional._precision import as_float
from assent.kernels import products

# Logits alive at once when `chunk` is None: little memory on a CPU, enough work to fill a GPU.
CHUNK_LOGITS_CPU = 2**22
CHUNK_LOGITS_GPU = 2**27
# Of a GPU's whole memory, not of what is free: a chunk, and with it the order of sums, is the same in every run.
CHUNK_SHARE_GPU = 1 / 128
# Of a vocabulary of 131,072 a chunk of 64 is more than the allocator keeps, so that its pages are cleared every time
# (one core, 1024 positions: 3.5 s; with 32 2.2 s); below 32 rows the matrix product slows down.
SMALLEST_CHUNK = 32
# cross_entropy answers 0 for its ignore_index (-100 if not told); no token may be ignored here.
NEVER_A_TOKEN = torch.iinfo(torch.int64).min
NO_LOGPROB = -1e4  # stands for -inf where it would meet a 0: exp of it is exactly 0, and 0 times it is 0 and not nan


class KeptTokens(NamedTuple):
    """The tokens that N positions could draw from, where top-k or top-p left the others out.

    Args:
        ids_M: int64, tokens of all positions, those of a position side by side.
        start_N: int64, where in `ids_M` those of each position begin.
        count_N: int64, how many it has; 0 where every token could be drawn.
    """

    ids_M: Tensor
    start_N: Tensor
    count_N: Tensor

    def rows(self, rows: slice | Tensor) -> "KeptTokens":
        """Of the named positions."""
        return KeptTokens(self.ids_M, self.start_N[rows], self.count_N[rows])

    def restrict(self, logits_NV: Tensor) -> Tensor:
        """The logits, with -inf for tokens that could not be drawn: their probability is 0, and so is its gradient."""
        ends = self.count_N.cumsum(0)
        row_M = torch.arange(len(self.count_N), device=ends.device).repeat_interleave(self.count_N)
        within_M = torch.arange(len(row_M), device=ends.device) - (ends - self.count_N)[row_M]
        allowed_NV = (self.count_N == 0)[:, None].expand(logits_NV.shape).contiguous()
        allowed_NV[row_M, self.ids_M[self.start_N[row_M] + within_M]] = True
        return logits_NV.masked_fill(~allowed_NV, -torch.inf)


def token_logprobs(logits_BTV: Tensor, tokens_BT: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature)[token].

    Args:
        logits_BTV: `[..., V]`; -inf is probability 0.
        tokens_BT: `[...]` int64, in [0, V): put any valid id on padding, there is no ignored one.
        temperature: positive.

    Returns:
        `[...]`, nats, float32 at least.

    Raises:
        ValueError: shapes do not fit, the temperature is not positive, a token is outside [0, V) (on a GPU the device
            refuses such a token itself, so as not to wait for it here).
    """
    _check(logits_BTV, tokens_BT, temperature, vocabulary=logits_BTV.shape[-1])
    logits_NV = _tempered(as_float(logits_BTV), temperature).flatten(0, -2)
    return _pick(logits_NV, tokens_BT.flatten()).view(tokens_BT.shape)


def entropy(logits_BTV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """-sum_v p(v) log p(v), p = softmax(logits / temperature); logits of -inf add 0.

    Args:
        logits_BTV: `[..., V]`.
        temperature: positive.

    Returns:
        `[...]`, nats, from 0 to log V.

    Raises:
        ValueError: the temperature is not positive.
    """
    _guards.number("temperature", temperature, low=0.0, open_low=True, open_high=True)
    return _entropy(F.log_softmax(_tempered(as_float(logits_BTV), temperature), dim=-1))


def linear_token_logprobs(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    tokens_BT: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    bias_V: Tensor | None = None,
    kept: KeptTokens | None = None,
) -> Tensor:
    """`token_logprobs(hidden @ weight^T + bias, tokens)` without ever holding the logits of all positions.

    Positions go through the head `chunk` at a time, forward and backward; the backward pass computes the logits of a
    chunk again (one matrix product more) and skips positions whose gradient is exactly 0, so that prompts and padding
    cost nothing there and nan on them spreads nowhere. When everything fits in one chunk, its log-softmax is kept and
    nothing is computed twice. Gradients of hidden, weight and bias are exact; a second derivative is refused.

    Args:
        hidden_BTD: `[..., D]`, that is `[B, T, D]` or `[N, D]`.
        weight_VD: the language-model head.
        tokens_BT: `[...]` int64, in [0, V).
        temperature: positive.
        chunk: positions at a time. None takes as many as keep 2^22 logits alive on a CPU (16 MiB in float32), and on a
            GPU a 128th of its memory in float32, at most 2^27 (512 MiB); but at least 32.
        bias_V: of the head, if it has one.
        kept: the tokens that each of the N positions could draw from, `[...]` flattened; all of them when None. Both
            values and gradients are then those of the distribution among them.

    Returns:
        `[...]`, nats, float32 at least. Half-precision input is multiplied as it is and raised before the softmax, as
        a head in half precision would; under autocast it is cast as autocast would.

    Raises:
        ValueError: shapes do not fit, the temperature is not positive, chunk < 1, a token is outside [0, V) (on CPU).
    """
    logprobs_N, _ = _linear(hidden_BTD, weight_VD, bias_V, tokens_BT, temperature, chunk, kept, with_entropy=False)
    return logprobs_N.view(tokens_BT.shape)


def linear_token_logprobs_and_entropy(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    tokens_BT: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    bias_V: Tensor | None = None,
    kept: KeptTokens | None = None,
) -> tuple[Tensor, Tensor]:
    """`linear_token_logprobs` and the entropy of each position's distribution, in the same pass; both carry gradients.

    Arguments and errors as `linear_token_logprobs`.

    Returns:
        (logprobs, entropy), `[...]` each, nats.
    """
    logprobs_N, entropy_N = _linear(
        hidden_BTD, weight_VD, bias_V, tokens_BT, temperature, chunk, kept, with_entropy=True
    )
    return logprobs_N.view(tokens_BT.shape), entropy_N.view(tokens_BT.shape)


def chunk_of(hidden: Tensor, vocabulary: int) -> int:
    """Positions whose logits are held at once where nobody says how many.

    Args:
        hidden: states; its device decides the budget.
        vocabulary: V.

    Source: our own; see `linear_token_logprobs`.
    """
    return max(SMALLEST_CHUNK, _logits_at_once(hidden.device) // vocabulary)


@cache
def _logits_at_once(device: torch.device) -> int:
    if device.type == "cpu":
        return CHUNK_LOGITS_CPU
    if device.type != "cuda":
        return CHUNK_LOGITS_GPU
    memory = torch.cuda.get_device_properties(device).total_memory
    return min(CHUNK_LOGITS_GPU, int(memory * CHUNK_SHARE_GPU) // 4)


def _check(scored_BTX: Tensor, tokens_BT: Tensor, temperature: float, *, vocabulary: int) -> None:
    _guards.number("temperature", temperature, low=0.0, open_low=True, open_high=True)
    if scored_BTX.shape[:-1] != tokens_BT.shape or scored_BTX.dim() < 2:
        _guards.refuse(
            "each token needs one position that scores it",
            got=f"{tuple(scored_BTX.shape)} for tokens {tuple(tokens_BT.shape)}",
            fix="pass [..., V] logits (or [..., D] hidden states) with tokens of the leading shape [...]",
        )
    if tokens_BT.dtype != torch.int64:
        _guards.refuse("tokens must be int64", got=tokens_BT.dtype, fix="pass tokens.long()")
    if tokens_BT.device.type == "cpu" and tokens_BT.numel():
        lowest, highest = (int(x) for x in tokens_BT.aminmax())
        if lowest < 0 or highest >= vocabulary:
            _guards.refuse(
                f"tokens must be in [0, {vocabulary})",
                got=f"{lowest} to {highest}",
                fix="put any valid id on padding and leave it out by mask",
            )


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1.0 else logits / temperature


def _pick(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    # One fused pass; log-softmax subtracts the maximum first, so a likely token keeps its digits however large the
    # logits.
    return -F.cross_entropy(logits_NV, tokens_N, reduction="none", ignore_index=NEVER_A_TOKEN)


def _entropy(logprobs_NV: Tensor) -> Tensor:
    # Where a token is impossible the product is 0: clamping is one pass over the vocabulary where choosing is two.
    return -(logprobs_NV.exp() * logprobs_NV.clamp(min=NO_LOGPROB)).sum(-1)


def _linear(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    tokens_BT: Tensor,
    temperature: float,
    chunk: int | None,
    kept: KeptTokens | None,
    *,
    with_entropy: bool,
) -> tuple[Tensor, Tensor]:
    _guards.rank("weight_VD", weight_VD, 2, "[V, D]")
    size_V, size_D = weight_VD.shape
    _check(hidden_BTD, tokens_BT, temperature, vocabulary=size_V)
    if hidden_BTD.shape[-1] != size_D or (bias_V is not None and bias_V.shape != (size_V,)):
        _guards.refuse(
            "hidden, weight and bias do not fit each other",
            got=f"hidden {tuple(hidden_BTD.shape)}, weight {tuple(weight_VD.shape)}, "
            f"bias {None if bias_V is None else tuple(bias_V.shape)}",
            fix="pass hidden [..., D], weight [V, D] and bias [V] or None",
        )
    device = hidden_BTD.device.type
    chunk = chunk_of(hidden_BTD, size_V) if chunk is None else chunk
    _guards.count("chunk", chunk)
    if kept is not None and len(kept.count_N) != tokens_BT.numel():
        _guards.refuse(
            "each position needs its own kept tokens",
            got=f"{len(kept.count_N)} for {tokens_BT.numel()} tokens",
            fix="give a count of 0 to positions that could draw every token",
        )
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    else:
        dtype = torch.promote_types(hidden_BTD.dtype, weight_VD.dtype)
    with torch.autocast(device, enabled=False):
        result: tuple[Tensor, Tensor] = _LinearLogprobs.apply(
            hidden_BTD.flatten(0, -2).to(dtype),
            weight_VD.to(dtype),
            None if bias_V is None else bias_V.to(dtype),
            tokens_BT.flatten(),
            temperature,
            chunk,
            kept,
            with_entropy,
        )
    return result


def _chunk_logprobs(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, temperature: float, kept: KeptTokens | None
) -> Tensor:
    logits_NV = _tempered(as_float(products.product(hidden_ND, weight_VD.t(), bias_V)), temperature)
    return F.log_softmax(logits_NV if kept is None else kept.restrict(logits_NV), dim=-1)


class _LinearLogprobs(torch.autograd.Function):
    """Head, log-softmax and choice of the token, a chunk of positions at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        tokens_N: Tensor,
        temperature: float,
        chunk: int,
        kept: KeptTokens | None,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        size_N = hidden_ND.shape[0]
        logprobs_N = as_float(hidden_ND.new_empty(0)).new_empty(size_N)
        entropy_N = torch.empty_like(logprobs_N) if with_entropy else logprobs_N.new_empty(0)
        kept_NV = None
        for start in range(0, size_N, chunk):
            rows = slice(start, start + chunk)
            kept_C = None if kept is None else kept.rows(rows)
            logprobs_CV = _chunk_logprobs(hidden_ND[rows], weight_VD, bias_V, temperature, kept_C)
            logprobs_N[rows] = logprobs_CV.gather(1, tokens_N[rows, None])[:, 0]
            if with_entropy:
                entropy_N[rows] = _entropy(logprobs_CV)
            if size_N <= chunk and any(ctx.needs_input_grad[:3]):
                kept_NV = logprobs_CV
            del logprobs_CV  # else it lives on beside the next chunk's
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, tokens_N, entropy_N, kept_NV)
        ctx.temperature, ctx.chunk, ctx.kept, ctx.with_entropy = temperature, chunk, kept, with_entropy
        if not with_entropy:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, grad_entropy_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, tokens_N, entropy_N, kept_NV = ctx.saved_tensors
        wanted_hidden, wanted_weight, wanted_bias = ctx.needs_input_grad[:3]
        grad_hidden_ND = torch.zeros_like(hidden_ND) if wanted_hidden else None
        # Summed over chunks, hence in float32 at least, like the sum inside one matrix product.
        grad_weight_VD = as_float(weight_VD.new_empty(0)).new_zeros(weight_VD.shape) if wanted_weight else None
        grad_bias_V = grad_N.new_zeros(weight_VD.shape[0]) if wanted_bias else None

        moving_N = grad_N != 0
        # An entropy that is only logged has no gradient, and costs four passes over the vocabulary no more.
        with_entropy = ctx.with_entropy and bool((grad_entropy_N != 0).any())
        if with_entropy:
            moving_N = moving_N | (grad_entropy_N != 0)
        for rows_C in _rows(moving_N, ctx.chunk):
            hidden_CD, tokens_C = hidden_ND[rows_C], tokens_N[rows_C]
            if kept_NV is None:
                kept_C = None if ctx.kept is None else ctx.kept.rows(rows_C)
                logprobs_CV = _chunk_logprobs(hidden_CD, weight_VD, bias_V, ctx.temperature, kept_C)
            else:
                logprobs_CV = kept_NV[rows_C]
            entropies_C = (entropy_N[rows_C], grad_entropy_N[rows_C]) if with_entropy else None
            slope_CV = _logit_gradient(logprobs_CV, tokens_C, grad_N[rows_C], entropies_C, ctx.temperature)
            del logprobs_CV
            narrow_CV = slope_CV.to(hidden_ND.dtype)
            if grad_hidden_ND is not None:
                grad_hidden_ND[rows_C] = products.product(narrow_CV, weight_VD)
            if grad_weight_VD is not None:
                if grad_weight_VD.dtype == narrow_CV.dtype:
                    products.add_product(grad_weight_VD, narrow_CV.t(), hidden_CD)
                else:
                    grad_weight_VD += narrow_CV.t() @ hidden_CD
            if grad_bias_V is not None:
                grad_bias_V += slope_CV.sum(0)
        return (
            grad_hidden_ND,
            None if grad_weight_VD is None else grad_weight_VD.to(weight_VD.dtype),
            None if grad_bias_V is None or bias_V is None else grad_bias_V.to(bias_V.dtype),
            None,
            None,
            None,
            None,
            None,
        )


def _rows(moving_N: Tensor, chunk: int) -> list[slice] | list[Tensor]:
    """The places that are True, `chunk` at a time; slices, which copy nothing, when all are."""
    size_N = moving_N.numel()
    places = moving_N.nonzero()[:, 0]
    if places.numel() == size_N:
        return [slice(start, start + chunk) for start in range(0, size_N, chunk)]
    return list(places.split(chunk))


def _logit_gradient(
    logprobs_CV: Tensor,
    tokens_C: Tensor,
    grad_C: Tensor,
    entropies_C: tuple[Tensor, Tensor] | None,
    temperature: float,
) -> Tensor:
    """d loss / d logits: grad (1[v = token] - p_v) - grad_entropy p_v (log p_v + entropy), over the temperature."""
    slope_CV = logprobs_CV.exp()
    if entropies_C is None:
        slope_CV *= (grad_C / -temperature)[:, None]
    else:
        entropy_C, grad_entropy_C = entropies_C
        pull_CV = logprobs_CV.clamp(min=NO_LOGPROB).add_(entropy_C[:, None]).mul_(grad_entropy_C[:, None])
        slope_CV *= pull_CV.add_(grad_C[:, None]).mul_(-1.0 / temperature)
    return slope_CV.scatter_add_(1, tokens_C[:, None], (grad_C / temperature)[:, None])
