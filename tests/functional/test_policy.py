"""Policy losses: by hand in every region of the clip, and reduced to one another."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.functional.policy import cispo, clipped_surrogate, policy_gradient

# ratio, advantage, loss, d loss / d log_ratio, at clip .2 below and .3 above: each region of PPO's figure 1
REGIONS = [
    (1.0, 2.0, -2.0, -2.0),
    (1.1, 2.0, -2.2, -2.2),
    (1.6, 2.0, -2.6, 0.0),
    (0.5, 2.0, -1.0, -1.0),
    (1.0, -2.0, 2.0, 2.0),
    (1.6, -2.0, 3.2, 3.2),
    (0.5, -2.0, 1.6, 0.0),
    (9.0, -2.0, 18.0, 18.0),
]


def value_and_slope(function, ratio):
    log_ratio = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    loss = function(log_ratio)
    return loss.item(), torch.autograd.grad(loss.sum(), log_ratio)[0].item()


@pytest.mark.parametrize(("ratio", "advantage", "loss", "slope"), REGIONS)
def test_clipped_surrogate_in_every_region(ratio, advantage, loss, slope):
    advantages = torch.tensor([[advantage]], dtype=torch.float64)
    got = value_and_slope(lambda x: clipped_surrogate(x, advantages, clip_low=0.2, clip_high=0.3), ratio)
    assert got == pytest.approx((loss, slope), abs=1e-12)


def test_default_clip_is_a_fifth_either_way():
    advantages = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    got = clipped_surrogate(torch.log(torch.tensor([[5.0, 0.1]], dtype=torch.float64)), advantages)
    torch.testing.assert_close(got, torch.tensor([[-1.2, 0.8]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [(9.0, -2.0, 6.0, 0.0), (2.0, -2.0, 4.0, 4.0), (9.0, 2.0, -2.4, 0.0), (0.5, -2.0, 1.6, 0.0)],
)
def test_dual_clip_bounds_negative_advantages_only(ratio, advantage, loss, slope):
    advantages = torch.tensor([[advantage]], dtype=torch.float64)
    got = value_and_slope(lambda x: clipped_surrogate(x, advantages, dual_clip=3.0), ratio)
    assert got == pytest.approx((loss, slope), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_surrogate_is_never_below_the_unclipped_loss_and_huge_dual_clip_is_none(log_ratio, advantage):
    x, a = torch.tensor([[log_ratio]], dtype=torch.float64), torch.tensor([[advantage]], dtype=torch.float64)
    loss = clipped_surrogate(x, a).item()
    assert loss >= -advantage * math.exp(log_ratio) - 1e-12
    assert clipped_surrogate(x, a, dual_clip=1e9).item() == loss
    wide = clipped_surrogate(x, a, clip_low=1e9, clip_high=1e9).item()
    assert wide == pytest.approx(-advantage * math.exp(log_ratio), abs=1e-9)


def test_on_policy_all_three_have_the_same_gradient():
    logprobs = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    advantages = torch.randn(3, 4, dtype=torch.float64)
    log_ratio = logprobs - logprobs.detach()
    want = -advantages
    for loss in (
        policy_gradient(logprobs, advantages),
        clipped_surrogate(log_ratio, advantages),
        cispo(log_ratio, logprobs, advantages, clip_low=0.2, clip_high=0.2),
    ):
        got = torch.autograd.grad(loss.sum(), logprobs, retain_graph=True)[0]
        torch.testing.assert_close(got, want, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("ratio", "weight"), [(0.5, 0.7), (0.9, 0.9), (1.2, 1.2), (8.0, 1.4)])
def test_cispo_keeps_every_gradient_at_a_bounded_weight(ratio, weight):
    logprobs = torch.tensor([[-1.5]], dtype=torch.float64, requires_grad=True)
    log_ratio = (logprobs - logprobs.detach()) + math.log(ratio)
    loss = cispo(log_ratio, logprobs, torch.tensor([[2.0]], dtype=torch.float64), clip_low=0.3, clip_high=0.4)
    assert loss.item() == pytest.approx(2.0 * weight * 1.5)
    assert torch.autograd.grad(loss.sum(), logprobs)[0].item() == pytest.approx(-2.0 * weight)


def test_policy_gradient_is_reinforce_on_a_categorical():
    """Sum over actions of pi(y) * grad of the loss at y = -grad E[reward]."""
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    rewards = torch.randn(5, dtype=torch.float64)
    logprobs = logits.log_softmax(-1)
    loss = (logprobs.exp().detach() * policy_gradient(logprobs[None], rewards[None])[0]).sum()
    got = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    want = torch.autograd.grad(-(logits.softmax(-1) * rewards).sum(), logits)[0]
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)


def test_one_value_per_sequence_broadcasts():
    log_ratio, advantages = torch.randn(2, 3) * 0.1, torch.randn(2, 1)
    want = clipped_surrogate(log_ratio, advantages.expand(2, 3))
    assert torch.equal(clipped_surrogate(log_ratio, advantages), want)
    assert torch.equal(policy_gradient(log_ratio, advantages), policy_gradient(log_ratio, advantages.expand(2, 3)))


def test_extreme_log_ratios_stay_finite():
    log_ratio = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = clipped_surrogate(log_ratio, torch.tensor([[-1.0, -1.0]]))
    torch.testing.assert_close(loss, torch.tensor([[math.exp(20.0), 0.8]]))
    loss.sum().backward()
    assert log_ratio.grad.isfinite().all()
    weight = -cispo(log_ratio, torch.ones(1, 2), torch.ones(1, 2), clip_low=1.0, clip_high=1e30)
    torch.testing.assert_close(weight.detach(), torch.tensor([[math.exp(20.0), math.exp(-20.0)]]))


def test_half_precision_is_raised():
    x = torch.full((1, 2), 0.01, dtype=torch.bfloat16)
    assert clipped_surrogate(x, x).dtype == torch.float32
    assert cispo(x, x, x, clip_low=0.1, clip_high=0.1).dtype == torch.float32
    assert policy_gradient(x, x).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip_low": -0.1}, "clip_low is outside"),
        ({"clip_high": -0.1}, "clip_high is outside"),
        ({"dual_clip": 1.0}, r"dual_clip is outside \(1, inf\)"),
        ({"advantages_BT": torch.zeros(2)}, "or a 1 where one value serves"),
        ({"advantages_BT": torch.zeros(2, 3)}, "or a 1 where one value serves"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        clipped_surrogate(**{"log_ratio_BT": torch.zeros(2, 2), "advantages_BT": torch.zeros(2, 2)} | arguments)
    assert "got:" in str(error.value) and "fix:" in str(error.value)


def test_the_others_refuse_too():
    with pytest.raises(ValueError, match="clip_high is outside"):
        cispo(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), clip_low=0.1, clip_high=-1.0)
    with pytest.raises(ValueError, match="clip_low is outside"):
        cispo(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), clip_low=-0.1, clip_high=1.0)
    with pytest.raises(ValueError, match="or a 1 where"):
        policy_gradient(torch.zeros(2, 2), torch.zeros(2))
