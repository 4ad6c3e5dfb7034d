import itertools

import numpy as np
import pytest

from assent.errors import DataError
from assent.evals.intervals import bootstrap_mean, mean_interval, share_estimate, t_quantile, wilson


def test_wilson_by_hand():
    interval = wilson(8, 10)
    # (p + z^2/2n ± z sqrt(p q / n + z^2 / 4 n^2)) / (1 + z^2/n), z = 1.959964, worked out on paper
    assert interval.low == pytest.approx(0.490160, abs=1e-5)
    assert interval.high == pytest.approx(0.943317, abs=1e-5)
    assert wilson(0, 20).low == 0.0 and wilson(20, 20).high == 1.0 and wilson(20, 20).low < 0.9


def test_wilson_covers_by_enumeration():
    """Coverage of all binomial outcomes, exactly: averaged over shares it must be near 95 %."""
    n, total, shares = 40, 0.0, np.linspace(0.02, 0.98, 97)
    for share in shares:
        chance = 1.0
        binomial = [(1 - share) ** n]
        for k in range(1, n + 1):
            chance = binomial[-1] * (n - k + 1) / k * share / (1 - share)
            binomial.append(chance)
        total += sum(p for k, p in enumerate(binomial) if share in wilson(k, n))
    assert 0.945 < total / len(shares) < 0.965


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (1, 12.7062),
        (2, 4.3027),
        (3, 3.1824),
        (4, 2.7764),
        (9, 2.2622),
        (10, 2.2281),
        (30, 2.0423),
        (120, 1.9799),
        (1000, 1.9623),
    ],
)
def test_t_quantile_against_the_printed_table(degrees, expected):
    assert t_quantile(0.975, degrees) == pytest.approx(expected, abs=1e-4)


def test_t_interval_by_hand():
    estimate = mean_interval([0.795, 0.818, 0.789])
    assert estimate.value == pytest.approx(0.80067, abs=1e-5)
    # sd .015308, / sqrt 3 = .0088380, * 4.3027
    assert estimate.interval.high - estimate.value == pytest.approx(0.03803, abs=1e-4)


def test_one_seed_has_no_interval():
    with pytest.raises(DataError, match="two finite values"):
        mean_interval([0.8])


def test_bootstrap_over_prompts_is_wider_than_over_rows():
    rng = np.random.default_rng(1)
    per_prompt = rng.integers(0, 2, 150).astype(float)
    rows = np.repeat(per_prompt, 8)
    prompts = [str(i) for i in np.repeat(np.arange(150), 8)]
    by_prompt = bootstrap_mean(rows, prompts)
    by_row = bootstrap_mean(rows, [str(i) for i in range(len(rows))])
    ratio = (by_prompt.high - by_prompt.low) / (by_row.high - by_row.low)
    assert ratio == pytest.approx(np.sqrt(8), rel=0.1)


def test_bootstrap_is_the_enumeration_of_resamples():
    values, ids = [0.0, 1.0, 0.0, 0.25, 1.0, 0.5], ["a", "a", "a", "a", "b", "c"]
    groups = [[0.0, 1.0, 0.0, 0.25], [1.0], [0.5]]
    means = sorted(np.mean([v for g in draw for v in g]) for draw in itertools.product(groups, repeat=3))
    interval = bootstrap_mean(values, ids, level=0.8, resamples=20_000)
    low, high = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    assert interval.low == pytest.approx(low, abs=1e-9) and interval.high == pytest.approx(high, abs=1e-9)


def test_a_clean_sweep_is_not_certainty():
    estimate = share_estimate([1.0] * 30, [str(i // 3) for i in range(30)])
    assert estimate.value == 1.0 and estimate.interval == wilson(10, 10)


def test_nothing_counted_is_none():
    assert share_estimate([], []).value is None


def test_duplicated_prompts_add_no_evidence():
    rng = np.random.default_rng(1)
    per_prompt = rng.integers(0, 2, 150).astype(float)
    once = share_estimate(per_prompt, [str(i) for i in range(150)])
    copies = share_estimate(np.repeat(per_prompt, 8), [str(i) for i in np.repeat(np.arange(150), 8)])
    naive = share_estimate(np.repeat(per_prompt, 8), [str(i) for i in range(1200)])
    width = [e.interval.high - e.interval.low for e in (once, copies, naive)]
    assert width[1] == pytest.approx(width[0], rel=0.02) and width[1] > 2.5 * width[2]
    assert (copies.clusters, copies.items) == (150, 1200)


def test_agrees_with_the_bootstrap_where_both_are_good():
    rng = np.random.default_rng(2)
    chance = np.repeat(rng.beta(2, 1, 400), 3)
    outcomes = np.where(rng.random(1200) < 0.1, 0.5, rng.random(1200) < chance)
    ids = [str(i) for i in np.repeat(np.arange(400), 3)]
    share, bootstrap = share_estimate(outcomes, ids).interval, bootstrap_mean(outcomes, ids, resamples=8000)
    assert share.low == pytest.approx(bootstrap.low, abs=0.002)
    assert share.high == pytest.approx(bootstrap.high, abs=0.002)


def test_independent_samples_of_one_prompt_do_add_evidence():
    rng = np.random.default_rng(3)
    flips = rng.integers(0, 2, 4 * 300).astype(float)
    shared = share_estimate(flips, [str(i) for i in np.repeat(np.arange(300), 4)]).interval
    apart = wilson(flips.sum(), 1200)
    assert shared.high - shared.low == pytest.approx(apart.high - apart.low, rel=0.12)
