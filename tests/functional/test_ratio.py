"""Sequence ratios and truncated importance weights."""

import math

import pytest
import torch

from assent.functional.ratio import sequence_log_ratio, truncated_importance_weights
from functional.poison import assert_blind_to_masked

MASK = torch.tensor([[True, False, True], [True, True, True]])
LOG_RATIO = torch.tensor([[0.2, 5.0, -0.6], [0.3, 0.3, 0.9]], dtype=torch.float64)


def test_sequence_log_ratio_by_hand():
    got = sequence_log_ratio(LOG_RATIO, MASK)
    torch.testing.assert_close(got, torch.tensor([[-0.2], [0.5]], dtype=torch.float64))


def test_its_exp_is_the_geometric_mean_of_the_token_ratios():
    ratios = LOG_RATIO[1].exp()
    want = ratios.prod() ** (1 / 3)
    torch.testing.assert_close(sequence_log_ratio(LOG_RATIO, MASK)[1, 0].exp(), want, atol=1e-12, rtol=0)


def test_a_row_without_tokens_is_a_masked_place():
    x = LOG_RATIO.clone().requires_grad_()
    got = sequence_log_ratio(x, torch.zeros_like(MASK))
    assert (got == 0).all()
    got.sum().backward()
    assert (x.grad == 0).all()


def test_blind_to_masked_places():
    assert_blind_to_masked(sequence_log_ratio, [LOG_RATIO], MASK)


def test_gradcheck():
    assert torch.autograd.gradcheck(lambda x: sequence_log_ratio(x, MASK), LOG_RATIO.clone().requires_grad_())


def test_weights_by_hand():
    old = torch.log(torch.tensor([0.2, 0.6, 0.9])).requires_grad_()
    sampler = torch.log(torch.tensor([0.4, 0.5, 0.1]))
    got = truncated_importance_weights(old, sampler, cap=2.0)
    torch.testing.assert_close(got, torch.tensor([0.5, 1.2, 2.0]))
    assert not got.requires_grad


def test_weights_make_the_sampler_unbiased_below_the_cap():
    old, sampler = torch.tensor([0.1, 0.2, 0.7]), torch.tensor([0.2, 0.3, 0.5])
    value = torch.tensor([3.0, -1.0, 2.0])
    weights = truncated_importance_weights(old.log(), sampler.log(), cap=10.0)
    assert (sampler * weights * value).sum().item() == pytest.approx((old * value).sum().item(), rel=1e-6)


def test_a_huge_gap_stays_finite():
    got = truncated_importance_weights(torch.tensor([0.0, -1e4]), torch.tensor([-1e4, 0.0]), cap=1e30)
    torch.testing.assert_close(got, torch.tensor([math.exp(20.0), math.exp(-20.0)]))


def test_half_precision_is_raised():
    x = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert sequence_log_ratio(x, MASK).dtype == torch.float32
    assert truncated_importance_weights(x, x, cap=2.0).dtype == torch.float32


def test_refuses():
    with pytest.raises(ValueError, match=r"log_ratio_BT must be \[B, T\]"):
        sequence_log_ratio(LOG_RATIO[0], MASK[0])
    with pytest.raises(ValueError, match="mask must be a bool"):
        sequence_log_ratio(LOG_RATIO, MASK.int())
    with pytest.raises(ValueError, match=r"cap is outside \(0, inf\)\n  got: 0.0\n  fix: "):
        truncated_importance_weights(LOG_RATIO, LOG_RATIO, cap=0.0)
    with pytest.raises(ValueError, match="one shape"):
        truncated_importance_weights(LOG_RATIO, LOG_RATIO[:1], cap=1.0)
