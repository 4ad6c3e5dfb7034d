"""Value loss by hand on both sides of the clip; explained variance against numpy."""

import numpy as np
import pytest
import torch

from assent.functional.value import clipped_value_loss, explained_variance
from functional.poison import assert_blind_to_masked


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "slope"),
    [
        (1.1, 1.0, 2.0, 0.405, -0.9),  # within the clip: plain
        (1.9, 1.0, 2.0, 0.32, 0.0),  # ran far towards the target: the clip holds it back, (1.2 - 2)^2 / 2
        (0.5, 1.0, 2.0, 1.125, -1.5),  # ran away from the target: the larger error counts
        (3.0, 1.0, 2.0, 0.5, 1.0),  # overshot: plain 1, clipped .64
    ],
)
def test_by_hand(value, old, target, loss, slope):
    values = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    got = clipped_value_loss(values, torch.tensor([[old]]).double(), torch.tensor([[target]]).double())
    assert got.item() == pytest.approx(loss)
    assert torch.autograd.grad(got.sum(), values)[0].item() == pytest.approx(slope)


def test_no_clip_and_a_wide_clip_are_half_the_square():
    values, old, returns = torch.randn(3, 2, 4, dtype=torch.float64)
    want = (values - returns) ** 2 / 2
    torch.testing.assert_close(clipped_value_loss(values, old, returns, clip=None), want, atol=1e-12, rtol=0)
    torch.testing.assert_close(clipped_value_loss(values, old, returns, clip=1e9), want, atol=1e-12, rtol=0)


def test_clip_never_lowers_the_loss():
    values, old, returns = torch.randn(3, 50, 4, dtype=torch.float64)
    assert (clipped_value_loss(values, old, returns) >= (values - returns) ** 2 / 2).all()


def test_explained_variance_against_numpy():
    rng = np.random.default_rng(0)
    values, returns, mask = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), rng.random((3, 5)) < 0.6
    want = 1 - np.var((returns - values)[mask]) / np.var(returns[mask])
    got = explained_variance(torch.tensor(values), torch.tensor(returns), torch.tensor(mask))
    assert got.item() == pytest.approx(want, abs=1e-12)


def test_explained_variance_at_its_landmarks():
    returns = torch.tensor([[1.0, 2.0, 4.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert explained_variance(returns + 5.0, returns, mask).item() == pytest.approx(1.0)
    assert explained_variance(torch.zeros(1, 3), returns, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(-returns, returns, mask).item() == pytest.approx(-3.0)
    assert explained_variance(returns, torch.full((1, 3), 0.1), mask).isnan()
    assert explained_variance(returns, returns, ~mask).isnan()


def test_explained_variance_is_detached_and_blind():
    mask = torch.tensor([[True, False, True], [True, True, False]])
    inputs = [torch.randn(2, 3), torch.randn(2, 3)]
    assert_blind_to_masked(explained_variance, inputs, mask, detached=True)


def test_half_precision_is_raised():
    x = torch.randn(2, 3).half()
    assert clipped_value_loss(x, x, x).dtype == torch.float32
    assert explained_variance(x, x, torch.ones(2, 3, dtype=torch.bool)).dtype == torch.float32


def test_refuses():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"one shape\n  got: .*\n  fix: "):
        clipped_value_loss(x, x, x[:, :1])
    with pytest.raises(ValueError, match="clip is outside"):
        clipped_value_loss(x, x, x, clip=-0.2)
    with pytest.raises(ValueError, match="mask must be a bool"):
        explained_variance(x, x, x)
