"""Rewards by hand; GAE against its definition as an explicit double sum over ragged masks with holes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.functional.returns import gae, shape_rewards
from functional.poison import assert_blind_to_masked

MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slow_gae(rewards, values, mask, gamma, lam):
    """A_t = sum_l (gamma lam)^l delta_{t+l} over the included tokens of a row, as plain Python numbers."""
    advantages, returns = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for b in range(mask.shape[0]):
        places = [t for t in range(mask.shape[1]) if mask[b, t]]
        r, v = [float(rewards[b, t]) for t in places], [float(values[b, t]) for t in places] + [0.0]
        delta = [r[i] + gamma * v[i + 1] - v[i] for i in range(len(places))]
        for i, t in enumerate(places):
            advantages[b, t] = sum((gamma * lam) ** (j - i) * delta[j] for j in range(i, len(places)))
            returns[b, t] = advantages[b, t] + v[i]
    return advantages, returns


def test_shape_rewards_by_hand():
    events = torch.tensor([[0.0, 0.0, 2.0, 7.0]])
    logprobs = torch.tensor([[-1.0, -2.0, -3.0, -4.0]])
    ref = torch.tensor([[-1.5, -2.0, -1.0, 0.0]])
    mask = torch.tensor([[True, True, True, False]])
    got = shape_rewards(events, logprobs, ref, mask, kl_coef=0.1)
    torch.testing.assert_close(got, torch.tensor([[-0.05, 0.0, 2.2, 0.0]]))


def test_rewards_sum_to_score_minus_sequence_kl():
    events, logprobs, ref = (draw(4, 5, seed=s) for s in range(3))
    got = shape_rewards(events, logprobs, ref, MASK, kl_coef=0.3)
    for b in range(4):
        keep = MASK[b]
        want = events[b, keep].sum() - 0.3 * (logprobs[b, keep].sum() - ref[b, keep].sum())
        torch.testing.assert_close(got[b].sum(), want, atol=1e-12, rtol=0)


def test_shape_rewards_is_detached_and_blind():
    inputs = [draw(4, 5, seed=s) for s in range(3)]
    assert_blind_to_masked(lambda e, p, q, m: shape_rewards(e, p, q, m, kl_coef=0.5), inputs, MASK, detached=True)


def test_kl_coef_zero_is_the_score_alone():
    events = draw(4, 5)
    got = shape_rewards(events, draw(4, 5, seed=1), draw(4, 5, seed=2), MASK, kl_coef=0.0)
    assert torch.equal(got, torch.where(MASK, events, 0.0))


def test_gae_by_hand():
    # deltas 1 + 2 - 4 = -1 and 3 - 2 = 1 at gamma 1; the hole between them takes no step
    advantages, returns = gae(
        torch.tensor([[1.0, 9.0, 3.0]]), torch.tensor([[4.0, 9.0, 2.0]]), torch.tensor([[True, False, True]]), lam=0.5
    )
    torch.testing.assert_close(advantages, torch.tensor([[-0.5, 0.0, 1.0]]))
    torch.testing.assert_close(returns, torch.tensor([[3.5, 0.0, 3.0]]))


def test_defaults_are_gamma_1_and_lambda_095():
    got = gae(draw(4, 5), draw(4, 5, seed=1), MASK)
    torch.testing.assert_close(got, slow_gae(draw(4, 5), draw(4, 5, seed=1), MASK, 1.0, 0.95), atol=1e-12, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda rows: st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=rows, max_size=rows)
    ),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    st.integers(0, 99),
)
def test_gae_against_the_double_sum(mask, gamma, lam, seed):
    mask = torch.tensor(mask)
    rewards, values = draw(*mask.shape, seed=seed), draw(*mask.shape, seed=seed + 1000)
    got = gae(rewards, values, mask, gamma=gamma, lam=lam)
    torch.testing.assert_close(got, slow_gae(rewards, values, mask, gamma, lam), atol=1e-12, rtol=0)
    assert all((x[~mask] == 0).all() for x in got)


def test_lambda_one_is_the_return_minus_the_value():
    rewards, values = draw(1, 6), draw(1, 6, seed=1)
    advantages, returns = gae(rewards, values, torch.ones(1, 6, dtype=torch.bool), lam=1.0)
    to_go = torch.stack([rewards[0, t:].sum() for t in range(6)])[None]
    torch.testing.assert_close(returns, to_go, atol=1e-12, rtol=0)
    torch.testing.assert_close(advantages, to_go - values, atol=1e-12, rtol=0)


def test_a_perfect_critic_leaves_no_advantage():
    rewards = draw(1, 6)
    values = torch.stack([rewards[0, t:].sum() for t in range(6)])[None]
    advantages, _ = gae(rewards, values, torch.ones(1, 6, dtype=torch.bool), lam=0.7)
    torch.testing.assert_close(advantages, torch.zeros_like(advantages), atol=1e-12, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(side):
    rewards, values = draw(4, 5), draw(4, 5, seed=1)
    pad = (3, 0) if side == "left" else (0, 3)
    wide = [torch.nn.functional.pad(x, pad, value=9.0) for x in (rewards, values)]
    mask = torch.nn.functional.pad(MASK, pad, value=False)
    keep = slice(3, 8) if side == "left" else slice(0, 5)
    for got, want in zip(gae(*wide, mask), gae(rewards, values, MASK), strict=True):
        assert torch.equal(got[:, keep], want)


def test_gae_is_detached_and_blind():
    assert_blind_to_masked(gae, [draw(4, 5), draw(4, 5, seed=1)], MASK, detached=True)


def test_half_precision_is_raised_and_float64_kept():
    rewards = torch.full((1, 600), 0.25, dtype=torch.bfloat16)
    mask = torch.ones(1, 600, dtype=torch.bool)
    advantages, _ = gae(rewards, torch.zeros_like(rewards), mask, lam=1.0)
    assert advantages.dtype == torch.float32
    assert advantages[0, 0].item() == 150.0
    assert gae(draw(4, 5), draw(4, 5), MASK)[0].dtype == torch.float64
    assert shape_rewards(rewards, rewards, rewards, mask, kl_coef=0.1).dtype == torch.float32


def test_no_tokens_at_all():
    advantages, returns = gae(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool))
    assert advantages.shape == returns.shape == (2, 0)


@pytest.mark.parametrize("arguments", [{"gamma": 1.1}, {"gamma": -0.1}, {"lam": 1.5}, {"lam": float("nan")}])
def test_gae_refuses_numbers(arguments):
    with pytest.raises(ValueError, match=r"(gamma|lam) is outside \[0, 1\]\n  got: .*\n  fix: "):
        gae(draw(4, 5), draw(4, 5), MASK, **arguments)


def test_refuses_shapes_masks_and_coefficients():
    with pytest.raises(ValueError, match="one shape"):
        gae(draw(4, 5), draw(4, 4), MASK)
    with pytest.raises(ValueError, match=r"rewards_BT must be \[B, T\]"):
        gae(draw(5), draw(5), MASK[0])
    with pytest.raises(ValueError, match="mask must be a bool"):
        gae(draw(4, 5), draw(4, 5), MASK.float())
    with pytest.raises(ValueError, match="kl_coef is outside"):
        shape_rewards(draw(4, 5), draw(4, 5), draw(4, 5), MASK, kl_coef=-0.1)
    with pytest.raises(ValueError, match="one shape"):
        shape_rewards(draw(4, 1), draw(4, 5), draw(4, 5), MASK, kl_coef=0.1)
