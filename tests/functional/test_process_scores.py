"""Scores of solutions and rewards of steps: by hand, in plain numbers, and what they add up to."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.functional import process

logits = st.lists(st.floats(-8, 8), min_size=1, max_size=8)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(logits)
def test_scores_in_plain_numbers(values):
    p = [1 / (1 + math.exp(-z)) for z in values]
    assert process.log_product(f64(values)).item() == pytest.approx(math.log(math.prod(p)), rel=1e-9)
    assert process.minimum(f64(values)).item() == pytest.approx(min(p))
    running = [math.prod(p[: k + 1]) for k in range(len(p))]
    assert process.running_product(f64(values)).tolist() == pytest.approx(running)
    assert process.running_minimum(f64(values)).tolist() == pytest.approx([min(p[: k + 1]) for k in range(len(p))])


@settings(max_examples=60, deadline=None)
@given(logits)
def test_differences_add_up_to_the_last_potential(values):
    for potentials in (f64(values).sigmoid(), process.running_product(f64(values))):
        earned = process.differences(potentials)
        assert earned.sum().item() == pytest.approx(potentials[-1].item(), abs=1e-12)
        assert earned.cumsum(0).tolist() == pytest.approx(potentials.tolist(), abs=1e-12)


def test_a_thousand_doubtful_steps_have_a_score_that_is_not_zero():
    long, longer = torch.full((1000,), -3.0), torch.full((1001,), -3.0)
    assert process.running_product(long)[-1] == 0.0, "the product itself underflows"
    assert process.log_product(longer) < process.log_product(long) < -3000


def test_a_step_that_changes_nothing_earns_nothing():
    assert process.differences(f64([0.6, 0.6, 0.6])).tolist() == [0.6, 0.0, 0.0]


def test_running_potentials_never_rise():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    for potential in (process.running_product, process.running_minimum):
        assert (potential(values).diff() <= 0).all()
