import numpy as np
import pytest

from assent.errors import DataError
from assent.evals.intervals import Interval, wilson
from assent.evals.length_control import fit_logistic, length_controlled
from assent.evals.win_rate import Judge, WinRate, compare, compare_kinds, lost_kinds, over_seeds, verdict

GOLD = Judge("the gold judgement")


def ids(n):
    return [f"p{i}" for i in range(n)]


def test_counts_and_ties():
    rate = compare([1.0, 2.0, 3.0, 0.5], [0.0, 2.05, 1.0, 2.0], ids(4), tie_width=0.1)
    assert (rate.win, rate.tie, rate.loss, rate.prompts) == (2, 1, 1, 4)
    assert rate.rate == pytest.approx(0.625)


def test_one_sample_per_prompt_without_ties_is_wilson():
    policy = np.array([1.0] * 70 + [-1.0] * 30)
    assert compare(policy, np.zeros(100), ids(100)).interval == wilson(70, 100)
    assert WinRate.of_counts(70, 0, 30).interval == wilson(70, 100)


@pytest.mark.parametrize(("samples", "n"), [(1, 80), (4, 50), (4, 8)])
def test_interval_covers_the_true_rate(samples, n):
    """Simulation: prompts differ in their win chance, samples share it; 95 % intervals must cover near 95 %."""
    rng = np.random.default_rng(7)
    covered, runs = 0, 250
    for _ in range(runs):
        chance = rng.beta(2, 1.5, n)
        gap = np.where(rng.random((n, samples)) < chance[:, None], 1.0, -1.0)
        gap = np.where(rng.random((n, samples)) < 0.2, 0.0, gap).ravel()
        truth = 0.2 * 0.5 + 0.8 * (2 / 3.5)
        rate = compare(gap, np.zeros(n * samples), [str(i) for i in np.repeat(np.arange(n), samples)])
        covered += truth in rate.interval
    # 3.5 standard errors of a 95 % coin over 250 runs is 4.8 points
    assert 0.902 < covered / runs <= 0.995


def test_bad_rows_are_refused():
    with pytest.raises(DataError, match="same length"):
        compare([1.0], [1.0, 2.0], ids(2))
    with pytest.raises(DataError, match="finite"):
        compare([1.0, float("nan")], [1.0, 2.0], ids(2))
    with pytest.raises(DataError, match="at least 1"):
        compare([], [], [])


def test_kinds():
    rows = compare_kinds([1, 2, 3, 4], [0, 3, 1, 1], ids(4), ["qa", "qa", "sum", "sum"])
    assert [(r.kind, r.policy_score, r.baseline_score, r.win_rate.rate) for r in rows] == [
        ("qa", 1.5, 1.5, 0.5),
        ("sum", 3.5, 1.0, 1.0),
    ]


def of_kinds(rng, rates, n):
    """Scores of a policy that wins each kind at its rate, against a baseline of zeros."""
    kinds = [kind for kind in rates for _ in range(n)]
    won = np.concatenate([rng.random(n) < rate for rate in rates.values()])
    return np.where(won, 1.0, -1.0), np.zeros(len(kinds)), [str(i) for i in range(len(kinds))], kinds


def test_a_lost_kind_is_named_beneath_a_win():
    rows = of_kinds(np.random.default_rng(0), {"a": 0.95, "b": 0.95, "route": 0.2, "close": 0.45}, 60)
    lost = lost_kinds(*rows)
    assert [row.kind for row in lost] == ["route"]
    told = verdict(compare(*rows[:3]), Judge("gold"), lost=lost)
    assert told.improved and told.text.startswith("The policy is better than the baseline")
    assert told.text.endswith(f"It loses on route (win rate {100 * lost[0].win_rate.rate:.1f} %, 60 prompts).")
    assert verdict(compare(*rows[:3]), Judge("gold")).text == told.text.split(" It loses")[0]
    assert lost_kinds([0.0] * 30, [1.0] * 30, rows[2][:30], [""] * 30) == ()


def test_an_equal_model_is_seldom_charged_with_a_lost_kind():
    rng, trials = np.random.default_rng(1), 400
    rates = {str(i): 0.5 for i in range(10)}
    equal = (rng, rates, 60)
    charged = sum(bool(lost_kinds(*of_kinds(*equal))) for _ in range(trials))
    alone = sum(any(r.win_rate.interval.high < 0.5 for r in compare_kinds(*of_kinds(*equal))) for _ in range(trials))
    assert charged <= 0.05 * trials < alone


def test_verdicts():
    better = verdict(WinRate.of_counts(80, 0, 20), GOLD, policy="PPO", baseline="SFT")
    assert better.improved is True and better.text.startswith("PPO is better than SFT")
    assert "80.0 %" in better.text and "100 prompts" in better.text and "gold" in better.text
    even = verdict(WinRate.of_counts(52, 0, 48), GOLD)
    assert even.improved is None and even.text.startswith("No evidence of improvement")
    worse = verdict(WinRate.of_counts(20, 0, 80), GOLD)
    assert worse.improved is False and "worse" in worse.text


def test_the_training_judge_proves_nothing():
    proxy = verdict(WinRate.of_counts(95, 0, 5), Judge("the reward model", trained_on=True), policy="PPO")
    assert proxy.improved is None and "trained on" in proxy.text and "held-out judge" in proxy.text
    assert verdict(WinRate.of_counts(5, 0, 95), Judge("the reward model", trained_on=True)).improved is False


def test_over_seeds():
    seeds = over_seeds([0.795, 0.818, 0.789])
    assert seeds.interval.low == pytest.approx(0.7626, abs=1e-3)
    assert "3 seeds" in verdict(seeds, GOLD).text
    assert over_seeds([0.99, 0.6]).interval == Interval(0.0, 1.0)


# ------------------------------------------------------------------------------------------- length control


def test_a_model_against_itself_is_even():
    rng = np.random.default_rng(0)
    scores, lengths = rng.normal(size=200), rng.integers(5, 50, 200)
    assert length_controlled(scores, scores, lengths, lengths, ids(200)).rate == pytest.approx(0.5, abs=1e-12)
    shuffled = rng.permutation(200)
    other = length_controlled(scores, scores, lengths, lengths[shuffled], ids(200))
    assert other.rate == pytest.approx(0.5, abs=1e-12)


def test_exchanging_the_sides_gives_one_minus_the_rate():
    rng = np.random.default_rng(3)
    a, b, la, lb = rng.normal(0.3, 1, 150), rng.normal(size=150), rng.integers(5, 50, 150), rng.integers(5, 40, 150)
    ahead = length_controlled(a, b, la, lb, ids(150))
    behind = length_controlled(b, a, lb, la, ids(150))
    assert ahead.rate + behind.rate == pytest.approx(1.0, abs=1e-9)
    assert ahead.length_effect == pytest.approx(behind.length_effect, abs=1e-7)


def test_recovers_the_rate_at_equal_length():
    """Simulated judge: log-odds theta + phi tanh(d / sd). The policy wins mostly by length."""
    rng = np.random.default_rng(5)
    n, theta, phi = 3000, 0.2, 2.0
    difference = rng.normal(8, 10, n)
    chance = 1 / (1 + np.exp(-(theta + phi * np.tanh(difference / difference.std()))))
    gap = np.where(rng.random(n) < chance, 1.0, -1.0)
    result = length_controlled(gap, np.zeros(n), 50 + difference, np.full(n, 50.0), ids(n))
    raw = compare(gap, np.zeros(n), ids(n)).rate
    assert raw > 0.68
    assert result.rate == pytest.approx(1 / (1 + np.exp(-theta)), abs=0.03)
    assert result.rate in result.interval and result.length_effect == pytest.approx(phi, abs=0.25)
    assert not result.extrapolated


def test_undefeated_and_separated_by_length_stay_finite():
    longer = np.arange(1.0, 101.0)
    result = length_controlled(np.ones(100), np.zeros(100), longer, np.zeros(100) + 1, ids(100))
    assert 0.5 < result.rate < 1.0 and np.isfinite(result.length_effect) and result.extrapolated
    signs = np.tile([1.0, -1.0], 50)
    split = length_controlled(signs, np.zeros(100), 50 + 10 * signs, np.full(100, 50.0), ids(100))
    assert split.rate == pytest.approx(0.5, abs=1e-9) and split.length_effect > 3


def test_newton_finds_the_maximum():
    """Against a brute-force grid over the penalised likelihood."""
    rng = np.random.default_rng(2)
    term, won = np.tanh(rng.normal(size=60)), rng.choice([0.0, 0.5, 1.0], 60)
    theta, phi = fit_logistic(term, won, np.ones((1, 60)))[0]

    def penalised(t, p):
        z = t + p * term
        return (
            (won * -np.logaddexp(0, -z) + (1 - won) * -np.logaddexp(0, z)).sum()
            - 0.02 * p * p
            - 0.5 * (np.logaddexp(0, -t) + np.logaddexp(0, t))
        )

    best = penalised(theta, phi)
    for angle in np.linspace(0, 2 * np.pi, 16):
        assert penalised(theta + 1e-3 * np.cos(angle), phi + 1e-3 * np.sin(angle)) < best
