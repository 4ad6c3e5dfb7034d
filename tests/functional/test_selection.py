"""Best of n, by enumerating every subset."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.functional.selection import best_of_n_expected, best_of_n_kl


@pytest.mark.parametrize(("n", "kl"), [(1, 0.0), (2, 0.193), (4, 0.636), (16, 1.835), (1000, 5.909), (60000, 10.002)])
def test_kl_against_the_published_table(n, kl):
    assert best_of_n_kl(n) == pytest.approx(kl, abs=6e-4)


def test_kl_against_the_integral():
    """Best of n of a uniform score has density n u^(n-1): KL = E[log(n u^(n-1))], here by the midpoint rule."""
    n, grid = 5, 20000
    cells = ((i + 0.5) / grid for i in range(grid))
    want = sum(n * u ** (n - 1) * math.log(n * u ** (n - 1)) for u in cells) / grid
    assert best_of_n_kl(n) == pytest.approx(want, abs=1e-6)


def by_enumeration(gold, proxy, n):
    """Mean over all subsets of size n of the mean gold of those that share the best proxy."""
    total, subsets = 0.0, 0
    for subset in itertools.combinations(range(len(gold)), n):
        best = max(proxy[i] for i in subset)
        winners = [gold[i] for i in subset if proxy[i] == best]
        total, subsets = total + sum(winners) / len(winners), subsets + 1
    return total / subsets


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 4)), min_size=1, max_size=7), st.data())
def test_expected_against_enumeration_with_ties(rows, data):
    n = data.draw(st.integers(1, len(rows)))
    gold, proxy = [g for g, _ in rows], [float(p) for _, p in rows]
    got = best_of_n_expected(torch.tensor(gold, dtype=torch.float64), torch.tensor(proxy), n)
    assert got.item() == pytest.approx(by_enumeration(gold, proxy, n), abs=1e-9)


def test_ends():
    gold, proxy = torch.randn(9, dtype=torch.float64), torch.randn(9)
    assert best_of_n_expected(gold, proxy, 1).item() == pytest.approx(gold.mean().item())
    assert best_of_n_expected(gold, proxy, 9).item() == pytest.approx(gold[proxy.argmax()].item())


def test_large_pools_do_not_overflow():
    """Gold = proxy = the rank over N: the expected maximum of n draws without replacement is n (N + 1) / (n + 1)."""
    total = 20000
    ranks = torch.arange(1, total + 1, dtype=torch.float64)
    for n in (2, 100, 5000, 19999):
        got = best_of_n_expected(ranks, ranks, n).item()
        assert got == pytest.approx(n * (total + 1) / (n + 1), rel=1e-9)


def test_half_precision_is_raised():
    assert best_of_n_expected(torch.ones(3).half(), torch.ones(3).half(), 2).dtype == torch.float32


def test_refuses():
    x = torch.zeros(3)
    for n in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=r"n must be an integer of at least 1\n  got: .*\n  fix: "):
            best_of_n_kl(n)
        with pytest.raises(ValueError, match="n must be an integer of at least 1"):
            best_of_n_expected(x, x, n)
    with pytest.raises(ValueError, match=r"best of n needs n samples\n  got: n = 4, N = 3\n  fix: "):
        best_of_n_expected(x, x, 4)
    with pytest.raises(ValueError, match="proxy_N has nan"):
        best_of_n_expected(x, x * float("nan"), 2)
    with pytest.raises(ValueError, match="one shape"):
        best_of_n_expected(x, x[:2], 1)
    with pytest.raises(ValueError, match=r"gold_N must be \[N\]"):
        best_of_n_expected(x[None], x[None], 1)
