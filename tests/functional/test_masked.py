"""Masked mean and whitening against numpy on the included elements alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.functional.masked import masked_mean, whiten
from functional.poison import assert_blind_to_masked

X = torch.tensor([[1.0, 2.0, 50.0], [6.0, -90.0, 70.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_mean_by_hand():
    assert masked_mean(X, MASK).item() == 3.0
    assert masked_mean(X > 1.5, MASK).item() == pytest.approx(2 / 3)


def test_mean_of_nothing_is_nan_and_teaches_nothing():
    x = X.clone().requires_grad_()
    mean = masked_mean(x, torch.zeros_like(MASK))
    assert mean.isnan()
    mean.backward()
    assert (x.grad == 0).all()


def test_whiten_by_hand():
    # 1, 2, 6: mean 3, biased variance 14/3
    want = torch.tensor([[-2.0, -1.0, 0.0], [3.0, 0.0, 0.0]], dtype=torch.float64) / math.sqrt(14 / 3 + 1e-8)
    torch.testing.assert_close(whiten(X, MASK), want, atol=1e-12, rtol=0)
    kept = whiten(X, MASK, shift_mean=False)
    torch.testing.assert_close(kept, torch.where(MASK, want + 3.0, 0.0), atol=1e-12, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.booleans()), min_size=1, max_size=12))
def test_against_numpy_on_the_included(rows):
    x = torch.tensor([value for value, _ in rows], dtype=torch.float64)
    mask = torch.tensor([include for _, include in rows])
    included = np.array([value for value, include in rows if include])
    if included.size == 0:
        assert masked_mean(x, mask).isnan()
        assert (whiten(x, mask) == 0).all()
        return
    assert masked_mean(x, mask).item() == pytest.approx(included.mean(), abs=1e-9)
    want = (included - included.mean()) / np.sqrt(included.var() + 1e-8)
    np.testing.assert_allclose(whiten(x, mask)[mask].numpy(), want, atol=1e-6)
    assert (whiten(x, mask, shift_mean=False)[~mask] == 0).all()


def test_more_padding_changes_nothing():
    wide = torch.cat([X, torch.full((2, 4), 123.0, dtype=torch.float64)], dim=1)
    mask = torch.cat([MASK, torch.zeros(2, 4, dtype=torch.bool)], dim=1)
    assert masked_mean(wide, mask) == masked_mean(X, MASK)
    torch.testing.assert_close(whiten(wide, mask)[:, :3], whiten(X, MASK), atol=1e-12, rtol=0)


@pytest.mark.parametrize("shift_mean", [True, False])
def test_blind_to_masked_places(shift_mean):
    assert_blind_to_masked(masked_mean, [X], MASK)
    assert_blind_to_masked(lambda x, mask: whiten(x, mask, shift_mean=shift_mean), [X], MASK)


def test_gradcheck():
    x = X.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: masked_mean(y, MASK), x)
    assert torch.autograd.gradcheck(lambda y: whiten(y, MASK), x)


def test_half_precision_is_summed_in_float32():
    x = torch.full((4096,), 1.0, dtype=torch.bfloat16)
    mask = torch.ones(4096, dtype=torch.bool)
    assert masked_mean(x, mask).dtype == torch.float32
    assert masked_mean(x, mask).item() == 1.0
    assert whiten(x, mask).dtype == torch.float32


@pytest.mark.parametrize("function", [masked_mean, whiten])
def test_refuses(function):
    with pytest.raises(ValueError, match=r"mask must be a bool tensor, True = included\n  got: torch.int64\n  fix: "):
        function(X, MASK.long())
    with pytest.raises(ValueError, match=r"must have one shape\n  got: .*\n  fix: "):
        function(X, MASK[:, :2])
