"""KL estimators by enumeration of a 6-way categorical: their expectations and their gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.functional import kl

LOGITS = torch.tensor([0.3, -1.0, 0.8, 0.0, 1.5, -0.4], dtype=torch.float64)
REF = torch.tensor([0.1, 0.4, -0.9, 0.7, 1.0, -1.2], dtype=torch.float64)


def divergence(p, q):
    return (p * (p / q).log()).sum()


def expected_gradient(estimator):
    """E_{y ~ policy}[grad estimator(y)], sampling held fixed, by enumeration."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(-1)
    loss = (logprobs.exp().detach() * estimator(logprobs, REF.log_softmax(-1))).sum()
    return torch.autograd.grad(loss, logits)[0]


def gradient_of(function):
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(function(logits.softmax(-1), REF.softmax(-1)), logits)[0]


def test_by_hand():
    logprobs, ref = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert kl.k1(logprobs, ref).item() == pytest.approx(math.log(2))
    assert kl.k2(logprobs, ref).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert kl.k3(logprobs, ref).item() == pytest.approx(0.5 - 1 + math.log(2))


def test_expectations():
    p, logprobs, ref = LOGITS.softmax(-1), LOGITS.log_softmax(-1), REF.log_softmax(-1)
    truth = divergence(p, REF.softmax(-1))
    torch.testing.assert_close((p * kl.k1(logprobs, ref)).sum(), truth, atol=1e-12, rtol=0)
    torch.testing.assert_close((p * kl.k3(logprobs, ref)).sum(), truth, atol=1e-12, rtol=0)
    torch.testing.assert_close(kl.exact(LOGITS, REF), truth, atol=1e-12, rtol=0)


def test_k2_agrees_to_the_third_order():
    for scale, bound in ((1e-1, 1e-3), (1e-2, 1e-6)):
        near = LOGITS + scale * REF
        p = near.softmax(-1)
        k2 = (p * kl.k2(near.log_softmax(-1), LOGITS.log_softmax(-1))).sum()
        assert abs(k2 - divergence(p, LOGITS.softmax(-1))) < bound


def test_gradients_as_losses():
    zero = torch.zeros(6, dtype=torch.float64)
    reverse, forward = gradient_of(divergence), gradient_of(lambda p, q: divergence(q, p))
    assert (reverse - forward).abs().max() > 0.01  # else the next lines could not tell them apart
    torch.testing.assert_close(expected_gradient(kl.k1), zero, atol=1e-12, rtol=0)
    torch.testing.assert_close(expected_gradient(kl.k2), reverse, atol=1e-12, rtol=0)
    torch.testing.assert_close(expected_gradient(kl.k3), forward, atol=1e-12, rtol=0)


def test_gradient_of_k3_with_ratio_on_another_s_samples():
    """Sampled from a policy that has since moved, it is still that of the divergence from the reference."""
    old = LOGITS.flip(0).log_softmax(-1).requires_grad_()
    logits = LOGITS.clone().requires_grad_()
    loss = (old.exp().detach() * kl.k3_with_ratio(logits.log_softmax(-1), old, REF.log_softmax(-1))).sum()
    got, none = torch.autograd.grad(loss, [logits, old], allow_unused=True)
    torch.testing.assert_close(got, gradient_of(divergence), atol=1e-12, rtol=0)
    torch.testing.assert_close(loss.detach(), divergence(LOGITS.softmax(-1), REF.softmax(-1)), atol=1e-12, rtol=0)
    assert none is None


def test_gradient_of_k2_with_ratio_on_another_s_samples():
    """The ratio is a constant: differentiated, it would add the gradient of k2's expectation under the policy."""
    old = LOGITS.flip(0).log_softmax(-1).requires_grad_()
    logits = LOGITS.clone().requires_grad_()
    loss = (old.exp().detach() * kl.k2_with_ratio(logits.log_softmax(-1), old, REF.log_softmax(-1))).sum()
    got, none = torch.autograd.grad(loss, [logits, old], allow_unused=True)
    torch.testing.assert_close(got, gradient_of(divergence), atol=1e-12, rtol=0)
    assert none is None


def test_gradient_of_exact():
    logits = LOGITS.clone().requires_grad_()
    got = torch.autograd.grad(kl.exact(logits, REF), logits)[0]
    torch.testing.assert_close(got, gradient_of(divergence), atol=1e-12, rtol=0)


def test_exact_with_impossible_tokens():
    cut = LOGITS.clone()
    cut[2] = -math.inf
    logits = cut.clone().requires_grad_()
    keep = torch.tensor([0, 1, 3, 4, 5])
    want = divergence(LOGITS[keep].softmax(-1), REF.softmax(-1)[keep])
    got = kl.exact(logits, REF)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    got.backward()
    assert logits.grad.isfinite().all()
    both = REF.clone()
    both[2] = -math.inf
    torch.testing.assert_close(
        kl.exact(cut, both), divergence(LOGITS[keep].softmax(-1), REF[keep].softmax(-1)), atol=1e-12, rtol=0
    )
    assert kl.exact(LOGITS, both) == math.inf


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e4, 0), st.floats(-1e4, 0))
def test_k2_and_k3_are_never_negative_nor_infinite(one, other):
    logprobs, ref = torch.tensor([one]), torch.tensor([other])
    for estimator in (kl.k2, kl.k3):
        got = estimator(logprobs, ref)
        assert got >= 0 and got.isfinite()
    torch.testing.assert_close(kl.k1(logprobs, ref), -kl.k1(ref, logprobs))


def test_k3_is_clamped_at_20():
    logprobs, ref = torch.tensor([-50.0], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64)
    assert kl.k3(logprobs, ref).item() == pytest.approx(math.exp(20) - 21)


def test_half_precision_is_raised():
    logprobs, ref = torch.tensor([-9.5], dtype=torch.float16), torch.tensor([-0.25], dtype=torch.float16)
    for estimator in (kl.k1, kl.k2, kl.k3):
        assert estimator(logprobs, ref).dtype == torch.float32
    assert kl.k3(logprobs, ref).item() == pytest.approx(math.exp(9.25) - 1 - 9.25, rel=1e-6)
    assert kl.exact(LOGITS.half(), REF.half()).dtype == torch.float32


@pytest.mark.parametrize("estimator", [kl.k1, kl.k2, kl.k3, kl.exact])
def test_shapes_must_match(estimator):
    with pytest.raises(ValueError, match=r"one shape\n  got: .*\n  fix: "):
        estimator(torch.zeros(2, 3), torch.zeros(2, 1))


# ------------------------------------------------------------------------------------------------ straight from heads


def heads(*, bias: bool = True):
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    hidden, weight, ref_hidden, ref_weight = drawn(3, 4, 5), drawn(11, 5), drawn(3, 4, 7), drawn(11, 7)
    return hidden, weight, ref_hidden, ref_weight, *((drawn(11), drawn(11)) if bias else (None, None))


def slow(hidden, weight, ref_hidden, ref_weight, bias, ref_bias, temperature):
    """The definition, on probabilities."""
    p = ((hidden @ weight.T + (0 if bias is None else bias)) / temperature).softmax(-1)
    q = ((ref_hidden @ ref_weight.T + (0 if ref_bias is None else ref_bias)) / temperature).softmax(-1)
    return (p * (p / q).log()).sum(-1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [1, 5, 12, None])
def test_linear_exact_is_the_definition_and_so_is_its_gradient(chunk, bias):
    hidden, weight, ref_hidden, ref_weight, offset, ref_offset = heads(bias=bias)
    moving = [x.clone().requires_grad_() for x in (hidden, weight, *([offset] if bias else []))]
    still = [ref_hidden.requires_grad_(), ref_weight.requires_grad_()]
    slopes = torch.linspace(0.5, 1.5, 12, dtype=torch.float64).view(3, 4)
    b = moving[2] if bias else None
    want = slow(moving[0], moving[1], *still, b, ref_offset, 0.7)
    got = kl.linear_exact(
        moving[0], moving[1], *still, temperature=0.7, chunk=chunk, bias_V=b, ref_bias_V=ref_offset
    )  # fmt: skip
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    for one, other in zip(
        torch.autograd.grad((got * slopes).sum(), moving),
        torch.autograd.grad((want * slopes).sum(), moving), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    assert torch.autograd.grad(
        kl.linear_exact(moving[0], moving[1], *still).sum(), still, allow_unused=True
    ) == (None, None)  # fmt: skip


def test_linear_exact_holds_no_more_than_a_chunk_of_logits():
    """Forward and backward: nothing that any operation makes is larger than a chunk times the vocabulary."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else (out,):
                if isinstance(x, torch.Tensor):
                    self.size = max(self.size, x.numel())
            return out

    hidden, weight = torch.randn(600, 3).requires_grad_(), torch.randn(1000, 3).requires_grad_()
    with Largest() as largest:
        kl.linear_exact(hidden, weight, torch.randn(600, 3), torch.randn(1000, 3), chunk=8).sum().backward()
    assert largest.size == 8 * 1000
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()), lambda _: None):
        kl.linear_exact(hidden, weight, torch.randn(600, 3), torch.randn(1000, 3), chunk=8)
    assert max(saved) == weight.numel(), "of the logits, nothing waits for the backward pass"


def test_linear_exact_refuses_what_does_not_fit():
    hidden, weight, ref_hidden, ref_weight, bias, ref_bias = heads()
    for change in (
        {"ref_weight_VE": ref_weight[:10]}, {"ref_hidden_BTE": ref_hidden[:2]}, {"weight_VD": weight[:, :4]},
        {"bias_V": bias[:3]}, {"ref_bias_V": ref_bias[:3]}, {"temperature": 0.0}, {"chunk": 0}, {"weight_VD": bias},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="fix:"):
            given = {
                "hidden_BTD": hidden, "weight_VD": weight, "ref_hidden_BTE": ref_hidden, "ref_weight_VE": ref_weight
            }  # fmt: skip
            kl.linear_exact(**given | change)
    assert kl.linear_exact(hidden.flatten(0, 1)[:0], weight, ref_hidden.flatten(0, 1)[:0], ref_weight).shape == (0,)
