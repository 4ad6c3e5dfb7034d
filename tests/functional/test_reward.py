"""Losses of reward models: pair by pair in plain numbers, by enumeration of rankings, against torch's cross-entropy."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.functional import reward

scores_and_ranks = st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 4)), min_size=2, max_size=6)


def softplus(x):
    return math.log1p(math.exp(x))


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def test_bradley_terry_by_hand():
    got = reward.bradley_terry(f64([2.0, 0.0]), f64([1.0, 3.0]))
    assert got.tolist() == pytest.approx([softplus(-1.0), softplus(3.0)])
    got = reward.bradley_terry(f64([2.0, 0.0]), f64([1.0, 3.0]), margin=0.5)
    assert got.tolist() == pytest.approx([softplus(-0.5), softplus(3.5)])
    got = reward.bradley_terry(f64([2.0, 0.0]), f64([1.0, 3.0]), margin=f64([1.0, 2 / 3]))
    assert got.tolist() == pytest.approx([softplus(0.0), softplus(3 + 2 / 3)])


def test_bradley_terry_stays_finite_far_out():
    chosen = torch.tensor([-1e4], requires_grad=True)
    loss = reward.bradley_terry(chosen, torch.tensor([1e4]))
    loss.backward()
    assert loss.item() == 2e4 and chosen.grad.item() == -1.0


@settings(max_examples=80, deadline=None)
@given(scores_and_ranks)
def test_k_wise_is_the_mean_over_strictly_ordered_pairs(rows):
    pairs = [(a, b) for (a, i), (b, j) in itertools.permutations(rows, 2) if i < j]
    want = sum(softplus(b - a) for a, b in pairs) / len(pairs) if pairs else 0.0
    got = reward.k_wise(f64([s for s, _ in rows]), torch.tensor([r for _, r in rows]))
    assert got.item() == pytest.approx(want, abs=1e-9)


def test_k_wise_of_two_is_bradley_terry():
    scores = f64([0.3, 1.7])
    torch.testing.assert_close(reward.k_wise(scores, torch.tensor([1, 2])), reward.bradley_terry(*scores))
    torch.testing.assert_close(reward.k_wise(scores, torch.tensor([2, 1])), reward.bradley_terry(*scores.flip(0)))


def test_k_wise_of_four_is_the_mean_of_six_pair_losses():
    scores = torch.randn(4, dtype=torch.float64, requires_grad=True)
    ranks = torch.tensor([3, 1, 4, 2])
    order = [1, 3, 0, 2]
    six = [reward.bradley_terry(scores[i : i + 1], scores[j : j + 1]) for i, j in itertools.combinations(order, 2)]
    assert len(six) == 6
    want = torch.cat(six).mean()
    got = reward.k_wise(scores, ranks)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(got, scores)[0], torch.autograd.grad(want, scores)[0], atol=1e-12, rtol=0
    )


def test_k_wise_over_ties_alone_is_zero_with_zero_gradient():
    scores = torch.tensor([1.0, -2.0, 5.0], requires_grad=True)
    loss = reward.k_wise(scores, torch.tensor([2, 2, 2]))
    loss.backward()
    assert loss.item() == 0.0 and (scores.grad == 0).all()


@settings(max_examples=40, deadline=None)
@given(scores_and_ranks, st.randoms(use_true_random=False))
def test_k_wise_ignores_the_order_of_listing_and_gaps_in_ranks(rows, random):
    shuffled = rows[:]
    random.shuffle(shuffled)
    one = reward.k_wise(f64([s for s, _ in rows]), torch.tensor([r for _, r in rows]))
    other = reward.k_wise(f64([s for s, _ in shuffled]), torch.tensor([10 * r for _, r in shuffled]))
    torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_plackett_luce_is_a_distribution_over_rankings():
    scores = torch.randn(4, dtype=torch.float64)
    chances = {}
    for order in itertools.permutations(range(4)):  # order[k]: who comes k-th
        ranks = torch.empty(4, dtype=torch.int64)
        ranks[list(order)] = torch.arange(1, 5)
        chances[order] = math.exp(-reward.plackett_luce(scores, ranks).item())
        left, want = scores.exp().tolist(), 1.0
        for who in order:
            want *= left[who] / sum(left)
            left[who] = 0.0
        assert chances[order] == pytest.approx(want, abs=1e-12)
    assert sum(chances.values()) == pytest.approx(1.0)
    first = sum(chance for order, chance in chances.items() if order[0] == 2)
    assert first == pytest.approx(scores.softmax(-1)[2].item())


def test_plackett_luce_of_two_is_bradley_terry():
    scores = f64([0.3, 1.7])
    torch.testing.assert_close(
        reward.plackett_luce(scores, torch.tensor([2, 1])), reward.bradley_terry(*scores.flip(0))
    )


def test_soft_bradley_terry():
    a, b, target = torch.randn(3, 6, dtype=torch.float64)
    target = target.sigmoid()
    want = torch.nn.functional.binary_cross_entropy_with_logits(a - b, target, reduction="none")
    torch.testing.assert_close(reward.soft_bradley_terry(a, b, target), want, atol=1e-12, rtol=0)
    ones = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(reward.soft_bradley_terry(a, b, ones), reward.bradley_terry(a, b), atol=1e-12, rtol=0)
    torch.testing.assert_close(reward.soft_bradley_terry(a, b, target), reward.soft_bradley_terry(b, a, 1 - target))


def test_soft_bradley_terry_is_least_where_the_model_believes_the_label():
    gap = f64([0.0]).requires_grad_()
    with torch.no_grad():
        gap += math.log(0.8 / 0.2)
    loss = reward.soft_bradley_terry(gap, f64([0.0]), f64([0.8]))
    assert torch.autograd.grad(loss, gap)[0].item() == pytest.approx(0.0, abs=1e-12)


def test_step_cross_entropy():
    logits, labels = f64([0.4, -2.0, 3.0, 0.0]), f64([1.0, 0.0, 0.25, 0.5])
    p = logits.sigmoid()
    want = -(labels * p.log() + (1 - labels) * (1 - p).log())
    torch.testing.assert_close(reward.step_cross_entropy(logits, labels), want, atol=1e-12, rtol=0)
    far = reward.step_cross_entropy(torch.tensor([1e4, -1e4]), torch.tensor([0, 1]))
    assert far.tolist() == [1e4, 1e4]


def test_centering():
    got = reward.centering(f64([1.0, -2.0]), f64([3.0, 2.0]))
    assert got.tolist() == [16.0, 0.0]
    shifted = f64([1.0]).requires_grad_()
    reward.centering(shifted, f64([3.0])).backward()
    assert shifted.grad.item() == 8.0


def test_gradcheck():
    scores = torch.randn(5, dtype=torch.float64, requires_grad=True)
    other = torch.randn(5, dtype=torch.float64, requires_grad=True)
    ranks = torch.tensor([2, 1, 5, 4, 3])
    target = torch.rand(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: reward.k_wise(s, torch.tensor([2, 1, 2, 4, 1])), scores)
    assert torch.autograd.gradcheck(lambda s: reward.plackett_luce(s, ranks), scores)
    assert torch.autograd.gradcheck(lambda a, b: reward.bradley_terry(a, b, margin=0.3), (scores, other))
    assert torch.autograd.gradcheck(lambda a, b: reward.soft_bradley_terry(a, b, target), (scores, other))
    assert torch.autograd.gradcheck(lambda a: reward.step_cross_entropy(a, target), scores)


def test_half_precision_is_raised():
    x, ranks = torch.randn(3).bfloat16(), torch.tensor([1, 2, 3])
    for got in (
        reward.bradley_terry(x, x),
        reward.k_wise(x, ranks),
        reward.plackett_luce(x, ranks),
        reward.soft_bradley_terry(x, x, torch.rand(3)),
        reward.step_cross_entropy(x, torch.rand(3)),
        reward.centering(x, x),
    ):
        assert got.dtype == torch.float32


@pytest.mark.parametrize("function", [reward.k_wise, reward.plackett_luce])
def test_rankings_refuse(function):
    for scores, ranks, message in (
        (torch.zeros(3), torch.tensor([1, 2]), "one shape"),
        (torch.zeros(1), torch.tensor([1]), "a ranking needs two completions"),
        (torch.zeros(2, 2), torch.ones(2, 2), r"scores_K must be \[K\]"),
        (torch.zeros(2), torch.tensor([0, 1]), "ranks_K has elements outside"),
        (torch.zeros(2), torch.tensor([1.0, float("nan")]), "ranks_K has elements outside"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            function(scores, ranks)
        assert "got:" in str(error.value) and "fix:" in str(error.value)


def test_others_refuse():
    with pytest.raises(ValueError, match=r"cannot take ties\n  got: ranks \[1, 2, 2\]\n  fix: use k_wise"):
        reward.plackett_luce(torch.zeros(3), torch.tensor([1, 2, 2]))
    for target in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"target_B has elements outside \[0, 1\]"):
            reward.soft_bradley_terry(torch.zeros(1), torch.zeros(1), torch.tensor([target]))
        with pytest.raises(ValueError, match=r"labels_S has elements outside \[0, 1\]"):
            reward.step_cross_entropy(torch.zeros(1), torch.tensor([target]))
    for call in (
        lambda: reward.bradley_terry(torch.zeros(3), torch.zeros(2)),
        lambda: reward.bradley_terry(torch.zeros(3), torch.zeros(3), margin=torch.zeros(2)),
        lambda: reward.centering(torch.zeros(3), torch.zeros(1)),
        lambda: reward.soft_bradley_terry(torch.zeros(3), torch.zeros(3), torch.zeros(1)),
        lambda: reward.step_cross_entropy(torch.zeros(3), torch.zeros(1)),
    ):
        with pytest.raises(ValueError, match="one shape"):
            call()
