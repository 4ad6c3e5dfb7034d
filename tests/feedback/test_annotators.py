"""Simulated annotators: rankings that hold together, and people-like faults of a measured size."""

import itertools
import random
from dataclasses import replace

import pytest

from assent.feedback.annotators import DEGREES, PANEL, SimulatedAnnotator
from assent.records import Comparison, Degree

ORDER = [Degree.NEGLIGIBLY, Degree.SLIGHTLY, Degree.BETTER, Degree.SIGNIFICANTLY]
EXACT = SimulatedAnnotator("exact", noise=0.0, tie_width=0.0)


def ask(annotator: SimulatedAnnotator, scores: list[float], rng: random.Random) -> Comparison:
    return annotator.compare("c", "p", [f"r{i}" for i in range(len(scores))], scores, rng=rng, kind="k")


SFT_GAPS = (
    0.0,
    0.0,
    0.0,
    0.0,
    0.05,
    0.15,
    0.2,
    0.3,
    0.4,
    0.45,
    0.5,
    0.5,
    0.5,
    0.5,
    0.55,
    0.6,
    0.65,
    0.75,
    0.8,
    0.9,
    0.9,
    1.0,
    1.0,
    1.05,
    1.1,
    1.15,
    1.3,
    1.35,
    1.45,
    1.5,
    1.5,
    1.5,
    1.6,
    1.8,
    1.9,
    2.0,
    2.0,
    2.1,
    2.3,
    2.35,
    2.4,
    2.45,
    2.6,
    2.9,
    3.0,
    3.0,
    3.25,
    3.5,
    3.8,
    4.45,
)
"""Fifty quantiles of the absolute gap in gold between two temperature-1 samples of a lab SFT model (1,500 prompts)."""


def sft_like_scores(n: int, seed: int) -> list[list[float]]:
    rng = random.Random(seed)
    return [rng.sample([0.0, rng.choice(SFT_GAPS)], 2) for _ in range(n)]


def test_a_comparison_records_who_saw_what_in_which_order():
    made = ask(replace(EXACT, name="ada"), [0.0, 1.0, 2.0], random.Random(0))
    assert made.annotator == "ada" and made.kind == "k" and sorted(made.shown) == [0, 1, 2]
    assert len({ask(EXACT, [0.0, 1.0, 2.0], random.Random(i)).shown for i in range(50)}) == 6


@pytest.mark.parametrize("k", [2, 3, 4, 7])
def test_all_pairs_are_judged_once(k):
    rng = random.Random(k)
    for _ in range(50):
        pairs = ask(PANEL[-1], [rng.gauss(0, 1) for _ in range(k)], rng).preferences
        assert len(pairs) == k * (k - 1) // 2
        assert {frozenset((p.better, p.worse)) for p in pairs} == {
            frozenset(c) for c in itertools.combinations(range(k), 2)
        }


def test_without_noise_the_ranking_is_the_gold_order_with_the_degree_of_the_gap():
    for gap, degree in ((0.39, Degree.NEGLIGIBLY), *((least, d) for least, d in DEGREES)):
        (pair,) = ask(EXACT, [0.0, gap], random.Random(1)).preferences
        assert (pair.better, pair.worse, pair.tie, pair.degree) == (1, 0, False, degree)


def test_rankings_are_transitive_and_ties_are_groups():
    rng = random.Random(3)
    wide = SimulatedAnnotator("wide", noise=0.5, tie_width=0.6)
    saw_tie = 0
    for _ in range(300):
        made = ask(wide, [rng.gauss(0, 1) for _ in range(5)], rng)
        tied = {frozenset((p.better, p.worse)) for p in made.preferences if p.tie}
        beats = {(p.better, p.worse) for p in made.preferences if not p.tie}
        saw_tie += len(tied)
        assert all(p.better < p.worse and p.degree is Degree.NEGLIGIBLY for p in made.preferences if p.tie)
        for a, b, c in itertools.permutations(range(5), 3):
            if (a, b) in beats and ((b, c) in beats or frozenset((b, c)) in tied):
                assert (a, c) in beats
            if frozenset((a, b)) in tied and frozenset((b, c)) in tied:
                assert frozenset((a, c)) in tied
    assert saw_tie > 100


def test_degrees_never_fall_along_a_ranking():
    rng = random.Random(4)
    for _ in range(300):
        made = ask(PANEL[0], [rng.gauss(0, 1) for _ in range(5)], rng)
        degree = {(p.better, p.worse): ORDER.index(p.degree) for p in made.preferences if not p.tie}
        for a, b, c in itertools.permutations(range(5), 3):
            if {(a, b), (b, c), (a, c)} <= set(degree):
                assert degree[a, c] >= max(degree[a, b], degree[b, c])


def test_a_larger_gold_gap_is_seen_more_often_and_called_larger():
    rng = random.Random(5)
    seen, degrees = [], []
    for gap in (0.0, 0.5, 1.0, 2.0, 4.0):
        pairs = [ask(PANEL[2], [0.0, gap], rng).preferences[0] for _ in range(2000)]
        right = [p for p in pairs if not p.tie]
        seen.append(sum(p.better == 1 for p in right) / len(right))
        degrees.append(sum(ORDER.index(p.degree) for p in pairs) / len(pairs))
    assert seen == sorted(seen) and abs(seen[0] - 0.5) < 0.04 and seen[-1] > 0.95
    assert degrees == sorted(degrees)


def test_noise_follows_bradley_terry():
    rng = random.Random(6)
    one = SimulatedAnnotator("one", noise=0.7, tie_width=0.0)
    wins = sum(ask(one, [0.0, 1.0], rng).preferences[0].better == 1 for _ in range(6000)) / 6000
    assert wins == pytest.approx(1 / (1 + 2.718281828 ** (-1 / 0.7)), abs=0.02)


def test_ties_appear_between_near_equals_only():
    rng = random.Random(7)
    near = sum(ask(PANEL[3], [0.0, 0.0], rng).preferences[0].tie for _ in range(2000))
    far = sum(ask(PANEL[3], [0.0, 6.0], rng).preferences[0].tie for _ in range(2000))
    assert near > 100 and far < 10
    assert ask(EXACT, [1.0, 1.0, 1.0], random.Random(0)).preferences[2].tie


def test_position_bias_favours_what_is_shown_first_by_the_stated_amount():
    rng = random.Random(8)

    def first_wins(bias: float) -> float:
        biased = SimulatedAnnotator("b", noise=1.0, position_bias=bias, tie_width=0.0)
        made = [ask(biased, [0.0, 0.0], rng) for _ in range(6000)]
        return sum(m.preferences[0].better == m.shown[0] for m in made) / 6000

    assert first_wins(0.0) == pytest.approx(0.5, abs=0.02)
    assert first_wins(1.0) == pytest.approx(1 / (1 + 2.718281828**-1), abs=0.02)


def test_position_bias_falls_to_zero_for_the_last():
    biased = SimulatedAnnotator("b", noise=0.0, position_bias=0.9, tie_width=0.0)
    made = ask(biased, [0.0] * 4, random.Random(2))
    ranked = sorted(range(4), key=lambda i: sum(p.better == i for p in made.preferences), reverse=True)
    assert tuple(ranked) == made.shown
    assert ask(biased, [0.0, 0.91], random.Random(3)).preferences[0].better == 1


def test_the_careless_do_not_read():
    rng = random.Random(9)
    blind = SimulatedAnnotator("blind", noise=0.1, careless=1.0, tie_width=0.0)
    wins = sum(ask(blind, [0.0, 50.0], rng).preferences[0].better == 1 for _ in range(4000)) / 4000
    assert wins == pytest.approx(0.5, abs=0.03)


def test_two_of_the_panel_agree_as_often_as_people_did():
    """72.6 % +- 1.5 among the annotators of InstructGPT (Ouyang et al. 2022, section 3.4)."""
    rng = random.Random(10)
    agreed = judged = 0
    for scores in sft_like_scores(12_000, seed=1):
        a, b = (one.compare("c", "p", ["x", "y"], scores, rng=rng).preferences[0] for one in rng.sample(PANEL, 2))
        if not a.tie and not b.tie:
            judged += 1
            agreed += a.better == b.better
    assert judged > 9000 and agreed / judged == pytest.approx(0.726, abs=0.015)


def test_the_panel_differs_in_reliability_and_none_is_useless():
    rng = random.Random(11)
    pairs = [s for s in sft_like_scores(3000, seed=2) if s[0] != s[1]]
    right = []
    for one in PANEL:
        made = [(one.compare("c", "p", ["x", "y"], s, rng=rng).preferences[0], s) for s in pairs]
        right.append(sum(m.tie / 2 + (not m.tie and s[m.better] > s[m.worse]) for m, s in made) / len(made))
    assert len(PANEL) >= 4 and len({one.name for one in PANEL}) == len(PANEL)
    assert right[0] > right[-1] + 0.06 and min(right) > 0.65 and max(right) < 0.97


def test_the_same_state_gives_the_same_answer_and_every_call_draws_alike():
    scores = [0.3, 0.1, -1.0]
    assert ask(PANEL[1], scores, random.Random(12)) == ask(PANEL[1], scores, random.Random(12))
    ends = set()
    for one in (*PANEL, EXACT, SimulatedAnnotator("blind", careless=1.0)):
        rng = random.Random(13)
        ask(one, scores, rng)
        ends.add(rng.random())
    assert len(ends) == 1


def test_a_comparison_needs_its_own_rng():
    with pytest.raises(TypeError, match="rng"):
        EXACT.compare("c", "p", ["a", "b"], [0.0, 1.0])  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("responses", "scores"), [(["a"], [0.0]), (["a", "b"], [0.0]), (["a", "b"], [0.0, float("nan")])]
)
def test_impossible_questions_are_refused(responses, scores):
    with pytest.raises(ValueError, match="c"):
        EXACT.compare("c", "p", responses, scores, rng=random.Random(0))


@pytest.mark.parametrize("field", [{"noise": -1.0}, {"tie_width": -0.1}, {"careless": 1.2}, {"careless": -0.1}])
def test_impossible_annotators_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        SimulatedAnnotator("x", **field)
