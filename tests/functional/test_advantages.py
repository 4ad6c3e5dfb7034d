"""Group advantages against numpy, group by group."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.functional.advantages import group_relative, leave_one_out

SCORES = torch.tensor([1.0, 4.0, 2.0, 8.0, 6.0], dtype=torch.float64)
GROUP = torch.tensor([7, -2, 7, -2, 7])


def test_by_hand():
    got = leave_one_out(SCORES, GROUP)
    torch.testing.assert_close(got, torch.tensor([-3.0, -4.0, -1.5, 4.0, 4.5], dtype=torch.float64))
    got = group_relative(SCORES, GROUP, scale_by_std=False)
    torch.testing.assert_close(got, torch.tensor([-2.0, -2.0, -1.0, 2.0, 3.0], dtype=torch.float64))
    scale = torch.tensor([7.0, 8.0, 7.0, 8.0, 7.0], dtype=torch.float64).sqrt() + 1e-4
    torch.testing.assert_close(group_relative(SCORES, GROUP), got / scale, atol=1e-12, rtol=0)


groups = st.lists(
    st.lists(st.floats(-100, 100), min_size=2, max_size=5), min_size=1, max_size=4
)  # one list of scores per prompt


@settings(max_examples=60, deadline=None)
@given(groups, st.randoms(use_true_random=False))
def test_against_numpy_in_any_order(lists, random):
    rows = [(score, 10 * name) for name, scores in enumerate(lists) for score in scores]
    random.shuffle(rows)
    scores = torch.tensor([score for score, _ in rows], dtype=torch.float64)
    names = np.array([name for _, name in rows])
    relative, raw, left_out = (
        group_relative(scores, torch.tensor(names)).numpy(),
        group_relative(scores, torch.tensor(names), scale_by_std=False).numpy(),
        leave_one_out(scores, torch.tensor(names)).numpy(),
    )
    for i, (score, name) in enumerate(rows):
        mine = scores.numpy()[names == name]
        others = np.delete(mine, np.flatnonzero(np.flatnonzero(names == name) == i))
        assert left_out[i] == pytest.approx(score - others.mean(), abs=1e-9)
        assert raw[i] == pytest.approx(score - mine.mean(), abs=1e-9)
        assert relative[i] == pytest.approx((score - mine.mean()) / (mine.std(ddof=1) + 1e-4), abs=1e-6)
        # RLOO = G / (G - 1) of the score against the mean of its group
        assert left_out[i] == pytest.approx(len(mine) / (len(mine) - 1) * raw[i], abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_all_equal_group_gives_exactly_zero(dtype):
    scores = torch.tensor([0.1] * 7 + [1.0, 2.0], dtype=dtype)
    group = torch.tensor([3] * 7 + [4, 4])
    for got in (
        group_relative(scores, group),
        group_relative(scores, group, scale_by_std=False),
        leave_one_out(scores, group),
    ):
        assert (got[:7] == 0).all() and (got[7:] != 0).all()


def test_a_nan_stays_in_its_group():
    got = group_relative(torch.tensor([1.0, float("nan"), 1.0, 2.0]), torch.tensor([0, 0, 1, 1]))
    assert got[:2].isnan().all() and got[2:].isfinite().all()


def test_detached_and_raised():
    scores = SCORES.clone().requires_grad_()
    assert not group_relative(scores, GROUP).requires_grad
    assert not leave_one_out(scores, GROUP).requires_grad
    assert group_relative(SCORES.half(), GROUP).dtype == torch.float32
    assert leave_one_out(SCORES.bfloat16(), GROUP).dtype == torch.float32


@pytest.mark.parametrize("function", [group_relative, leave_one_out])
def test_refuses(function):
    with pytest.raises(ValueError, match=r"alone in its group.*\n  got: groups with one response: \[4\]\n  fix: "):
        function(torch.zeros(3), torch.tensor([1, 1, 4]))
    with pytest.raises(ValueError, match="one shape"):
        function(torch.zeros(3), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="group_B must be integer"):
        function(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"scores_B must be \[B\]"):
        function(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int64))
    assert function(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)
