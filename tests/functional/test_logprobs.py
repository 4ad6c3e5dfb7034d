"""Token log-probabilities and entropies against fifty digits; the chunked head against autograd on the plain one."""

import math

import mpmath
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from assent.functional import logprobs as lp


def case(*, n=23, d=5, v=11, dtype=torch.float64, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(v, d, generator=generator, dtype=dtype, requires_grad=True)
    offset = torch.randn(v, generator=generator, dtype=dtype, requires_grad=True) if bias else None
    tokens = torch.randint(v, (n,), generator=generator)
    return hidden, weight, offset, tokens


def exact_logprobs(logits, temperature):
    """Of the last axis, by the definition, in fifty digits; an array of the arbitrary-precision numbers."""
    with mpmath.workdps(50):
        exps = np.vectorize(lambda x: mpmath.exp(mpmath.mpf(float(x)) / temperature), otypes=[object])(logits)
        return np.vectorize(mpmath.log, otypes=[object])(exps / exps.sum(-1, keepdims=True))


def test_token_logprobs_by_hand():
    logits = torch.log(torch.tensor([[[1.0, 3.0, 4.0], [2.0, 2.0, 4.0]]]))
    got = lp.token_logprobs(logits, torch.tensor([[1, 2]]))
    torch.testing.assert_close(got, torch.log(torch.tensor([[3 / 8, 1 / 2]])))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_token_logprobs_against_fifty_digits(temperature):
    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(size=(3, 4, 9)) * 8, rng.integers(0, 9, size=(3, 4))
    want = np.take_along_axis(exact_logprobs(logits, temperature), tokens[..., None], -1)[..., 0].astype(float)
    got = lp.token_logprobs(torch.tensor(logits), torch.tensor(tokens), temperature=temperature)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), want, atol=1e-12)


def test_token_logprobs_gradcheck():
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(5, (2, 3))
    assert torch.autograd.gradcheck(lambda x: lp.token_logprobs(x, tokens, temperature=0.7), logits)
    assert torch.autograd.gradcheck(lambda x: lp.entropy(x, temperature=0.7), logits)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_entropy_against_fifty_digits(temperature):
    logits = np.random.default_rng(1).normal(size=(2, 3, 7))
    exact = exact_logprobs(logits, temperature)
    want = -(exact * np.vectorize(mpmath.exp, otypes=[object])(exact)).sum(-1).astype(float)
    np.testing.assert_allclose(lp.entropy(torch.tensor(logits), temperature=temperature).numpy(), want, atol=1e-12)


def test_entropy_counts_impossible_tokens_as_probability_zero():
    logits = torch.tensor([[0.0, 0.0, -math.inf, 0.0, 0.0], [3.0] + [-math.inf] * 4], requires_grad=True)
    got = lp.entropy(logits)
    torch.testing.assert_close(got, torch.tensor([math.log(4.0), 0.0]))
    got.sum().backward()
    assert logits.grad.isfinite().all()


def test_half_precision_is_raised_before_the_softmax():
    logits = (torch.randn(4, 300) * 3).bfloat16()
    tokens = torch.randint(300, (4,))
    assert lp.token_logprobs(logits, tokens).dtype == torch.float32
    torch.testing.assert_close(lp.token_logprobs(logits, tokens), lp.token_logprobs(logits.float(), tokens))
    torch.testing.assert_close(lp.entropy(logits), lp.entropy(logits.float()))


def test_a_likely_token_keeps_its_digits_at_large_logits():
    logits = torch.tensor([[1000.0, 990.0]])
    want = -math.log1p(math.exp(-10.0))
    assert lp.token_logprobs(logits, torch.tensor([0])).item() == pytest.approx(want, rel=5e-3)


def test_minus_100_is_refused_not_ignored():
    with pytest.raises(ValueError, match=r"tokens must be in \[0, 5\)\n  got: -100 to 1\n  fix: "):
        lp.token_logprobs(torch.zeros(1, 2, 5), torch.tensor([[1, -100]]))


@pytest.mark.parametrize(
    ("logits", "tokens", "temperature", "message"),
    [
        ((1, 2, 5), (1, 3), 1.0, "each token needs one position"),
        ((1, 2, 5), (2,), 1.0, "each token needs one position"),
        ((1, 2, 5), (1, 2), 0.0, "temperature is outside"),
        ((1, 2, 5), (1, 2), float("nan"), "temperature is outside"),
    ],
)
def test_impossible_input(logits, tokens, temperature, message):
    with pytest.raises(ValueError, match=message) as error:
        lp.token_logprobs(torch.zeros(logits), torch.zeros(tokens, dtype=torch.int64), temperature=temperature)
    assert "got:" in str(error.value) and "fix:" in str(error.value)


def test_tokens_must_be_int64():
    with pytest.raises(ValueError, match="tokens must be int64"):
        lp.token_logprobs(torch.zeros(1, 2, 5), torch.zeros(1, 2))


# --- the head in chunks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 4, 22, 23, 100, None])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_plain_in_value_and_gradient(chunk, bias):
    hidden, weight, offset, tokens = case(bias=bias)
    inputs = [x for x in (hidden, weight, offset) if x is not None]
    upstream = torch.randn(23, dtype=torch.float64)
    upstream_entropy = torch.randn(23, dtype=torch.float64)
    all_logprobs = (torch.nn.functional.linear(hidden, weight, offset) / 0.7).log_softmax(-1)
    want = all_logprobs.gather(1, tokens[:, None])[:, 0]
    want_entropy = -(all_logprobs.exp() * all_logprobs).sum(-1)

    got = lp.linear_token_logprobs(hidden, weight, tokens, temperature=0.7, chunk=chunk, bias_V=offset)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    want_grads = torch.autograd.grad(want, inputs, upstream, retain_graph=True)
    for _ in range(2):  # a second pass over the same graph must find its saved tensors untouched
        got_grads = torch.autograd.grad(got, inputs, upstream, retain_graph=True)
        for one, other in zip(got_grads, want_grads, strict=True):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=0)

    pair = lp.linear_token_logprobs_and_entropy(hidden, weight, tokens, temperature=0.7, chunk=chunk, bias_V=offset)
    torch.testing.assert_close(pair, (want, want_entropy), atol=1e-12, rtol=0)
    want_grads = torch.autograd.grad((want, want_entropy), inputs, (upstream, upstream_entropy))
    got_grads = torch.autograd.grad(pair, inputs, (upstream, upstream_entropy))
    for one, other in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("chunk", [3, 50])
def test_linear_gradcheck(chunk):
    hidden, weight, offset, tokens = case(n=7, d=3, v=4)

    def both(h, w, b):
        return lp.linear_token_logprobs_and_entropy(h, w, tokens, temperature=1.3, chunk=chunk, bias_V=b)

    assert torch.autograd.gradcheck(both, (hidden, weight, offset))


def test_linear_takes_batches_and_gives_their_shape():
    hidden, weight, offset, tokens = case(n=24)
    flat = lp.linear_token_logprobs(hidden, weight, tokens, bias_V=offset)
    batch = lp.linear_token_logprobs(hidden.view(4, 6, 5), weight, tokens.view(4, 6), bias_V=offset)
    assert batch.shape == (4, 6)
    torch.testing.assert_close(batch.flatten(), flat, atol=1e-12, rtol=0)
    empty = lp.linear_token_logprobs(hidden[:0], weight, tokens[:0])
    assert empty.shape == (0,)
    empty.sum().backward()


def test_only_what_is_asked_for_gets_a_gradient():
    hidden, weight, offset, tokens = case()
    lp.linear_token_logprobs(hidden, weight.detach(), tokens, chunk=4, bias_V=offset.detach()).sum().backward()
    assert hidden.grad is not None and weight.grad is None
    hidden, weight, offset, tokens = case()
    lp.linear_token_logprobs(hidden.detach(), weight, tokens, chunk=4).sum().backward()
    assert weight.grad is not None and hidden.grad is None


@pytest.mark.parametrize("chunk", [4, 100])
def test_positions_without_gradient_spread_no_nan(chunk):
    hidden, weight, offset, tokens = case()
    mask = torch.rand(23) < 0.5
    poisoned = torch.where(mask[:, None], hidden.detach(), torch.nan).requires_grad_()
    gradients = []
    for source in (hidden, poisoned):
        logprobs, entropy = lp.linear_token_logprobs_and_entropy(source, weight, tokens, chunk=chunk, bias_V=offset)
        loss = torch.where(mask, logprobs * 2 + entropy, 0.0).sum()
        gradients.append((loss, *torch.autograd.grad(loss, (source, weight, offset))))
    for clean, dirty in zip(*gradients, strict=True):
        torch.testing.assert_close(dirty, clean, atol=1e-12, rtol=0)


def test_impossible_tokens_in_the_bias_leave_everything_finite():
    hidden, weight, _, tokens = case()
    bias = torch.zeros(11, dtype=torch.float64)
    bias[10] = -math.inf
    tokens = tokens.clamp(max=9)
    got = lp.linear_token_logprobs_and_entropy(hidden, weight, tokens, chunk=4, bias_V=bias)
    want = lp.linear_token_logprobs_and_entropy(hidden, weight[:10], tokens, chunk=4)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    got_grad = torch.autograd.grad(sum(x.sum() for x in got), (hidden, weight))
    want_grad = torch.autograd.grad(sum(x.sum() for x in want), (hidden, weight))
    torch.testing.assert_close(got_grad, want_grad, atol=1e-12, rtol=0)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation gives back."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return out


@pytest.mark.parametrize("with_entropy", [False, True])
def test_logits_of_all_positions_never_exist(with_entropy):
    n, d, v, chunk = 512, 8, 256, 32
    hidden, weight, offset, tokens = case(n=n, d=d, v=v)
    function = lp.linear_token_logprobs_and_entropy if with_entropy else lp.linear_token_logprobs
    with Largest() as largest:
        out = function(hidden.view(4, 128, d), weight, tokens.view(4, 128), chunk=chunk, bias_V=offset)
        forward = largest.numel
        # Through torch.autograd.backward the engine runs on this thread, under the same mode.
        sum(x.sum() for x in (out if with_entropy else [out])).backward()
    assert 0 < forward <= chunk * v
    assert largest.numel <= chunk * v
    with Largest() as plain:
        lp.token_logprobs(hidden @ weight.T, tokens).sum().backward()
    assert plain.numel >= n * v  # the probe sees such a tensor where there is one


def test_default_chunk_is_as_documented():
    n, d, v = 300, 2, 2**14
    hidden, weight, _, tokens = case(n=n, d=d, v=v, bias=False, dtype=torch.float32)
    with Largest() as largest:
        lp.linear_token_logprobs(hidden, weight, tokens).sum().backward()
    assert largest.numel == 256 * v  # 2^22 logits


def test_half_precision_head_gives_float32_and_half_gradients():
    hidden, weight, offset, tokens = case(dtype=torch.bfloat16)
    want = lp.token_logprobs(torch.nn.functional.linear(hidden, weight, offset), tokens)
    want_grads = torch.autograd.grad(want.sum(), (hidden, weight, offset))
    got = lp.linear_token_logprobs(hidden, weight, tokens, chunk=4, bias_V=offset)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
    got_grads = torch.autograd.grad(got.sum(), (hidden, weight, offset))
    for one, other in zip(got_grads, want_grads, strict=True):
        assert one.dtype == torch.bfloat16
        assert ((one - other).float().norm() / other.float().norm()).item() < 1e-2


def test_autocast_is_followed():
    hidden, weight, _, tokens = case(dtype=torch.float32, bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        want = lp.token_logprobs(hidden @ weight.T, tokens)
        got = lp.linear_token_logprobs(hidden, weight, tokens, chunk=4)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
    got.sum().backward()
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk": 0}, "chunk must be an integer of at least 1"),
        ({"weight_VD": torch.zeros(11, 4)}, "do not fit each other"),
        ({"bias_V": torch.zeros(10)}, "do not fit each other"),
        ({"weight_VD": torch.zeros(11)}, "weight_VD must be"),
        ({"tokens_BT": torch.full((23,), 11)}, r"tokens must be in \[0, 11\)"),
        ({"temperature": -1.0}, "temperature is outside"),
    ],
)
def test_linear_refuses(change, message):
    hidden, weight, _, tokens = case(dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        lp.linear_token_logprobs(**{"hidden_BTD": hidden, "weight_VD": weight, "tokens_BT": tokens} | change)


def some_kept(tokens, v, *, seed=0):
    """For each position a few tokens with its own among them, or none at all for all of them."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i, token in enumerate(tokens.tolist()):
        others = torch.randperm(v, generator=generator)[: i % 4].tolist()
        rows.append(sorted({token, *others}) if i % 5 else [])
    counts = torch.tensor([len(r) for r in rows])
    ids = torch.tensor([x for r in reversed(rows) for x in r])  # in any order, as long as `start` says where
    start = counts.flip(0).cumsum(0).flip(0) - counts
    return rows, lp.KeptTokens(ids, start, counts)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_among_kept_tokens_values_and_gradients_are_those_of_the_plain_softmax_over_them(chunk):
    hidden, weight, offset, tokens = case()
    rows, kept = some_kept(tokens, len(weight))
    logprobs, entropy = lp.linear_token_logprobs_and_entropy(
        hidden, weight, tokens, temperature=0.7, chunk=chunk, bias_V=offset, kept=kept
    )
    expected, spread = [], []
    for i, row in enumerate(rows):
        among = torch.tensor(row or range(len(weight)))
        table = ((hidden[i] @ weight[among].T + offset[among]) / 0.7).log_softmax(-1)
        expected.append(table[among.tolist().index(int(tokens[i]))])
        spread.append(-(table.exp() * table).sum())
    torch.testing.assert_close(logprobs, torch.stack(expected))
    torch.testing.assert_close(entropy, torch.stack(spread))
    pull = torch.linspace(-1, 1, len(tokens), dtype=torch.float64)
    got = torch.autograd.grad((pull * logprobs + pull.flip(0) * entropy).sum(), (hidden, weight, offset))
    wanted = torch.autograd.grad(
        (pull * torch.stack(expected) + pull.flip(0) * torch.stack(spread)).sum(), (hidden, weight, offset)
    )
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_kept_tokens_of_other_positions_are_refused():
    hidden, weight, _, tokens = case()
    _, kept = some_kept(tokens, len(weight))
    with pytest.raises(ValueError, match="its own kept tokens"):
        lp.linear_token_logprobs(hidden, weight, tokens, kept=kept.rows(slice(3)))
