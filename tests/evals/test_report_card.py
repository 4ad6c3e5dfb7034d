import json
from dataclasses import replace

import numpy as np
import pytest

from assent.errors import DataError
from assent.evals.calibration import calibration
from assent.evals.ceiling import NoiseCeiling, ceiling_from_votes
from assent.evals.correlation import cosine, pearson, ranks, spearman
from assent.evals.judged import JudgedPair, ScoredResponse, judged_pairs
from assent.evals.report_card import ReportCard, report_card
from assent.records import Comparison, Degree


def pair(prompt, better, worse, **named):
    return JudgedPair(prompt, ScoredResponse(*better), ScoredResponse(*worse), **named)


def simulate(score, *, prompts=600, annotators=3, seed=0, degree=Degree.UNSTATED):
    """Two responses a prompt with known gold; each annotator prefers by Bradley-Terry on gold; `score(gold,
    length)`."""
    rng = np.random.default_rng(seed)
    pairs = []
    for p in range(prompts):
        gold, length = rng.normal(0, 1.2, 2), rng.integers(5, 60, 2)
        a, b = (
            ScoredResponse(name, float(score(gold[i], length[i], rng)), float(length[i]), float(gold[i]))
            for i, name in enumerate("ab")
        )
        for n in range(annotators):
            first = rng.random() < 1 / (1 + np.exp(gold[1] - gold[0]))
            better, worse = (a, b) if first else (b, a)
            pairs.append(JudgedPair(f"p{p}", better, worse, annotator=f"n{n}", degree=degree))
    return pairs


@pytest.fixture(scope="module")
def perfect():
    return report_card(simulate(lambda gold, length, rng: gold))


def test_a_perfect_scorer_hits_the_ceiling(perfect):
    assert perfect.gold.accuracy.value == 1.0 and perfect.gold.pearson == pytest.approx(1.0)
    assert perfect.gold.votes.value == pytest.approx(perfect.accuracy.value)  # its accuracy on votes is the annotators'
    ceiling = perfect.ceiling
    assert ceiling.at_least < perfect.accuracy.value + 0.03
    assert perfect.accuracy.value < ceiling.accuracy + 0.02
    truth = np.random.default_rng(9).normal(0, 1.2, (200_000, 2))
    best = (1 / (1 + np.exp(-np.abs(truth[:, 0] - truth[:, 1])))).mean()
    assert perfect.accuracy.value == pytest.approx(best, abs=0.03)
    assert ceiling.at_least < best + 0.01 and best < ceiling.accuracy + 0.01
    assert perfect.warnings == ()


def test_a_calibrated_scorer_has_no_error_beyond_chance(perfect):
    assert perfect.calibration.expected_error < 3 * perfect.calibration.noise_floor
    assert abs(perfect.calibration.overconfidence) < 0.03
    shouting = report_card(simulate(lambda gold, length, rng: 6 * gold))
    assert shouting.calibration.overconfidence > 0.15
    assert any("too sure of itself" in w for w in shouting.warnings)
    assert shouting.accuracy == perfect.accuracy  # scale changes no order


def test_a_random_scorer_is_warned_of():
    card = report_card(simulate(lambda gold, length, rng: rng.normal()))
    assert 0.5 in card.accuracy.interval and card.accuracy.value == pytest.approx(0.5, abs=0.06)
    assert any("guessing" in w for w in card.warnings) and any("as gold does" in w for w in card.warnings)


def test_few_pairs_are_said_to_be_few():
    few = report_card(simulate(lambda gold, length, rng: gold, prompts=40))
    assert any("hold out more prompts (40 now)" in w for w in few.warnings)


def test_length_figures_do_not_depend_on_who_won():
    pairs = simulate(lambda gold, length, rng: gold + length / 15, prompts=80, annotators=1)
    other = [replace(p, better=p.worse, worse=p.better) for p in pairs]
    one, two = report_card(pairs).length, report_card(other).length
    assert one.gap_correlation == pytest.approx(two.gap_correlation) and one.gap_correlation > 0.5
    mixed = report_card([*pairs[:40], *other[40:]]).length
    assert mixed.gap_correlation == pytest.approx(one.gap_correlation)
    assert mixed.model_prefers_longer.value == one.model_prefers_longer.value


def test_a_scorer_that_is_the_length_is_warned_of():
    card = report_card(simulate(lambda gold, length, rng: length / 10))
    assert card.length.pearson == pytest.approx(1.0) and card.length.gap_correlation == pytest.approx(1.0)
    assert card.length.model_prefers_longer.value == 1.0
    assert card.length.people_prefer_longer.value == pytest.approx(0.5, abs=0.06)
    assert any("follows length: r = 1.00" in w for w in card.warnings)


def test_exchanged_labels_and_constant_scores_are_named():
    upside = report_card(simulate(lambda gold, length, rng: -gold))
    assert any("exchanged" in w for w in upside.warnings)
    constant = report_card(simulate(lambda gold, length, rng: 0.25))
    assert constant.accuracy.value == 0.5 and constant.length.pearson is None
    assert any("exactly equal scores" in w for w in constant.warnings)


def test_a_score_above_the_ceiling_is_a_leak():
    pairs = [pair(f"p{i}", ("a", 1.0, 9.0), ("b", 0.0, 9.0)) for i in range(300)]
    card = report_card(pairs, ceiling=NoiseCeiling.given(0.75))
    assert any("above the noise ceiling" in w for w in card.warnings)


def test_ties_count_apart():
    pairs = [
        pair("p1", ("a", 2.0, 10.0), ("b", 0.0, 11.0)),
        pair("p2", ("a", 0.0, 10.0), ("b", 1.0, 20.0), degree=Degree.NEGLIGIBLY, kind="qa"),
        pair("p3", ("a", 0.3, 10.0), ("b", 0.1, 10.0), tie=True),
    ]
    card = report_card(pairs)
    assert card.accuracy.value == 0.5 and card.accuracy.items == 2
    assert card.ties.pairs == 1 and card.ties.mean_gap == pytest.approx(0.2) and card.ties.mean_gap_ordered == 1.5
    assert [(s.name, s.accuracy.value) for s in card.by_degree] == [("negligibly", 0.0), ("unstated", 1.0)]
    assert [(s.name, s.accuracy.items) for s in card.by_kind] == [("qa", 1)]
    assert card.length_matched.items == 1 and card.length_matched.value == 1.0  # 1 of 11 is under 10 %, 1 of 10 is not
    assert card.gold is None and any("about 55 %" in w for w in card.warnings)


def test_pairs_on_which_annotators_agree_are_told_from_the_others():
    a, b, c = ("a", 1.0, 9.0), ("b", 0.0, 9.0), ("c", 2.0, 9.0)
    votes = [
        *[pair("p1", a, b)] * 3,  # three alike, and the model with them
        *[pair("p1", a, c)] * 2,  # two alike, and the model against them
        pair("p2", a, b), pair("p2", b, a), pair("p2", b, a),
        pair("p3", a, b), pair("p3", a, b, tie=True),
        pair("p4", b, a), pair("p1", b, c),  # asked once
    ]  # fmt: skip
    card = report_card(votes)
    found = {s.name: (s.accuracy.value, s.accuracy.items) for s in card.by_agreement}
    assert found == {"annotators agree": (3 / 5, 5), "annotators differ": (2 / 4, 4)}
    assert report_card([pair("p", a, b)]).by_agreement == ()
    older = {k: v for k, v in card.to_json().items() if k != "by_agreement"}
    assert ReportCard.from_json(older).accuracy == card.accuracy


def test_only_ties_is_an_error():
    with pytest.raises(DataError, match="all ties"):
        report_card([pair("p", ("a", 0.0, 1.0), ("b", 0.0, 1.0), tie=True)])
    with pytest.raises(DataError, match="finite scores"):
        pair("p", ("a", float("nan"), 1.0), ("b", 0.0, 1.0))


def test_json_round_trip(perfect):
    assert ReportCard.from_json(json.loads(json.dumps(perfect.to_json()))) == perfect


def test_ceiling_by_hand():
    """Votes ab, ab, ba on one pair and ab, ab on another."""
    a, b = ("a", 0.0, 1.0), ("b", 0.0, 1.0)
    votes = [pair("p", a, b), pair("p", a, b), pair("p", b, a), pair("q", a, b), pair("q", a, b), pair("r", a, b)]
    ceiling = ceiling_from_votes(votes)
    # agreements 1/3 and 1; one vote on r says nothing
    assert ceiling.agreement.value == pytest.approx(2 / 3)
    # left out: an a-vote sees one a and one b (half right), the b-vote sees two a (wrong): 1/3; q: 1
    assert ceiling.at_least == pytest.approx((1 / 3 + 1) / 2)
    assert ceiling.accuracy == pytest.approx(min((2 / 3 + 1) / 2, (1 + np.sqrt(1 / 3)) / 2))
    assert ceiling_from_votes(votes[-1:]) is None
    assert ceiling_from_votes([*votes, pair("p", b, a, tie=True)]) == ceiling  # a tie does not vote


def test_ceiling_of_pairs_that_differ_in_difficulty():
    """One pair 10 to 0, one 5 to 5: the majority share, .75, is below the bound from agreement, .833."""
    a, b = ("a", 0.0, 1.0), ("b", 0.0, 1.0)
    votes = [pair("p", a, b)] * 10 + [pair("q", a, b)] * 5 + [pair("q", b, a)] * 5
    assert ceiling_from_votes(votes).accuracy == pytest.approx(0.75)


def votes_of(chances, pairs, seed):
    """Votes of annotators who follow the best answer with these chances, by pair and annotator."""
    draw = np.random.default_rng(seed)
    a, b = ("a", 0.0, 1.0), ("b", 0.0, 1.0)
    made = []
    for i in range(pairs):
        best, other = (a, b) if draw.random() < 0.5 else (b, a)
        for name, chance in chances(draw):
            sides = (best, other) if draw.random() < chance else (other, best)
            made.append(pair(f"p{i}", *sides, annotator=name))
    return made


def fixed(*chances):
    return lambda draw: [(f"n{j}", c) for j, c in enumerate(chances)]


def panel(draw):
    """Five annotators of different noise on pairs that are clear or not; three of them on each."""
    gap, noise = abs(draw.normal()), (0.5, 0.65, 0.7, 0.9, 1.15)
    return [(f"n{j}", 1 / (1 + np.exp(-gap / noise[j]))) for j in draw.permutation(5)[:3]]


@pytest.mark.parametrize(
    ("chances", "true", "above"),
    [
        (fixed(0.75, 0.75, 0.75), 0.75, 0.01),
        (fixed(0.9, 0.9, 0.55), 0.7833, 0.02),  # taken to be alike, the bound would be .758
        (fixed(0.95, 0.8, 0.65, 0.6, 0.55), 0.71, 0.02),  # .697
        (fixed(1.0, 1.0, 0.0), 0.6667, 0.01),  # .5: one of three always contradicts
        (fixed(0.95, 0.6), 0.775, 0.03),  # .712: of two, only the share of the majority is known
        (panel, 0.7165, 0.045),  # a bound, since pairs are not equally clear
    ],
)
def test_the_ceiling_is_not_below_the_truth_where_annotators_differ(chances, true, above):
    """The truth is known, being drawn from: the mean chance that a vote is the best answer."""
    found = [ceiling_from_votes(votes_of(chances, 1500, seed)) for seed in range(4)]
    mean = np.mean([c.accuracy for c in found])
    assert true - 0.006 < mean < true + above
    assert all(c.at_least <= c.accuracy for c in found)


def test_calibration_by_hand():
    gap = np.log(3)  # confidence .75
    result = calibration([gap, gap, -gap, gap], list("pqrs"))
    assert result.expected_error == pytest.approx(0.0) and len(result.bins) == 1
    assert result.log_loss == pytest.approx(-(3 * np.log(0.75) + np.log(0.25)) / 4)
    sure = calibration([20.0] * 5 + [-20.0] * 5, [str(i) for i in range(10)])
    assert sure.expected_error == pytest.approx(0.5, abs=1e-6) and sure.overconfidence == pytest.approx(0.5, abs=1e-6)


def test_correlations():
    assert pearson([1, 2, 3], [2, 4, 7]) == pytest.approx(np.corrcoef([1, 2, 3], [2, 4, 7])[0, 1])
    assert spearman([1, 5, 100], [3, 4, 5]) == pytest.approx(1.0)
    assert ranks([5, 1, 5, 0]).tolist() == [3.5, 2.0, 3.5, 1.0]
    assert pearson([1, 1], [1, 2]) is None and cosine([0, 0], [1, 2]) is None
    assert cosine([1, 1], [1, 1]) == pytest.approx(1.0)  # always longer and always higher is perfect agreement


def test_pairs_of_a_comparison():
    comparison = Comparison.from_ranks("c", "hi", ["x", "y", "z"], [2, 1, 2], annotator="ann", kind="qa")
    scored = {t: ScoredResponse(t, s, 4.0) for t, s in (("x", 0.1), ("y", 0.9), ("z", 0.2))}
    pairs = judged_pairs(comparison, scored, prompt_id="p")
    assert [(p.better.id, p.worse.id, p.tie) for p in pairs] == [("y", "x", False), ("x", "z", True), ("y", "z", False)]
    assert {(p.prompt_id, p.annotator, p.kind) for p in pairs} == {("p", "ann", "qa")}
    with pytest.raises(DataError, match="must be scored"):
        judged_pairs(comparison, {}, prompt_id="p")


def test_noise_floor_is_what_calibrated_models_show():
    rng = np.random.default_rng(6)
    errors, floors = [], []
    for _ in range(40):
        gap = np.abs(rng.normal(0, 1.5, 300))
        sign = np.where(rng.random(300) < 1 / (1 + np.exp(-gap)), 1.0, -1.0)
        result = calibration(gap * sign, [str(i) for i in range(300)])
        errors.append(result.expected_error)
        floors.append(result.noise_floor)
    assert np.mean(errors) == pytest.approx(np.mean(floors), rel=0.1)
