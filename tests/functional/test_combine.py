"""Gate and ensembles, by hand and against numpy."""

import math

import numpy as np
import pytest
import torch

from assent.functional.combine import ensemble_mean, llama2_gate, uncertainty_weighted, worst_case

SCORES = torch.tensor([[1.0, 4.0, -1.0], [3.0, 4.0, 0.0], [2.0, 4.0, 7.0]], dtype=torch.float64)


def logit(p):
    return math.log(p / (1 - p))


def test_gate_by_hand():
    safety = torch.tensor([0.149, 0.151, 0.15, 0.9], dtype=torch.float64)
    helpfulness = torch.tensor([0.7, 0.7, 0.7, 0.2], dtype=torch.float64)
    got = llama2_gate(safety, helpfulness, torch.tensor([False, False, False, True]))
    assert got.tolist() == pytest.approx([logit(0.149), logit(0.7), logit(0.7), logit(0.9)])
    got = llama2_gate(safety, helpfulness, torch.tensor([False] * 4), threshold=0.0)
    torch.testing.assert_close(got.sigmoid(), helpfulness)


def test_gate_is_finite_at_saturation():
    got = llama2_gate(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]), torch.tensor([True, True]))
    assert got.tolist() == pytest.approx([logit(1e-6), -logit(1e-6)], abs=0.1)
    half = torch.tensor([1.0]).bfloat16()
    got = llama2_gate(half, half, torch.tensor([True]))
    assert got.dtype == torch.float32 and got.isfinite().all()


def test_ensembles_against_numpy():
    x = SCORES.numpy()
    np.testing.assert_allclose(ensemble_mean(SCORES).numpy(), x.mean(0))
    np.testing.assert_allclose(worst_case(SCORES).numpy(), x.min(0))
    want = x.mean(0) - 0.5 * x.var(0, ddof=1)
    np.testing.assert_allclose(uncertainty_weighted(SCORES, coefficient=0.5).numpy(), want)
    assert uncertainty_weighted(SCORES, coefficient=0.5).tolist() == pytest.approx([1.5, 4.0, 2 - 0.5 * 19])


def test_orders_and_reductions():
    assert (worst_case(SCORES) <= ensemble_mean(SCORES)).all()
    torch.testing.assert_close(uncertainty_weighted(SCORES, coefficient=0.0), ensemble_mean(SCORES))
    one = SCORES[:1]
    for got in (ensemble_mean(one), worst_case(one), uncertainty_weighted(one, coefficient=2.0)):
        torch.testing.assert_close(got, one[0])
    shuffled = SCORES[[2, 0, 1]]
    for function in (ensemble_mean, worst_case, lambda s: uncertainty_weighted(s, coefficient=0.3)):
        torch.testing.assert_close(function(shuffled), function(SCORES))


def test_half_precision_is_raised():
    for function in (ensemble_mean, worst_case, lambda s: uncertainty_weighted(s, coefficient=0.3)):
        assert function(SCORES.bfloat16()).dtype == torch.float32


def test_refuses():
    flags = torch.ones(2, dtype=torch.bool)
    fine = torch.full((2,), 0.5)
    for safety, helpful, flag, threshold, message in (
        (torch.tensor([0.5, 1.5]), fine, flags, 0.15, r"safety_B has elements outside \[0, 1\]\n  got: \[1.5\]\n  fix"),
        (fine, torch.tensor([0.5, -3.0]), flags, 0.15, "helpfulness_B has elements outside"),
        (fine, fine * float("nan"), flags, 0.15, "helpfulness_B has elements outside"),
        (fine, fine, flags.float(), 0.15, "is_safety_prompt_B must be a bool"),
        (fine, fine[:1], flags, 0.15, "one shape"),
        (fine, fine, flags, 1.5, "threshold is outside"),
    ):
        with pytest.raises(ValueError, match=message):
            llama2_gate(safety, helpful, flag, threshold=threshold)
    with pytest.raises(ValueError, match=r"scores_MB must be \[M, B\]"):
        ensemble_mean(SCORES[0])
    with pytest.raises(ValueError, match="an ensemble needs a member"):
        worst_case(SCORES[:0])
    with pytest.raises(ValueError, match="coefficient is outside"):
        uncertainty_weighted(SCORES, coefficient=-0.1)
