"""Truths and annotators estimated together: simulated ones are found again, and the majority is beaten."""

import itertools
import math
import random

import numpy as np
import pytest

from assent.errors import DataError
from assent.feedback.annotators import SimulatedAnnotator
from assent.feedback.ratings import Ratings
from assent.feedback.reliability import (
    Votes,
    crowd_bradley_terry,
    dawid_skene,
    soften_by_bradley_terry,
    soften_by_dawid_skene,
)
from assent.records import Comparison, Preference


def simulated(seed, accuracies, units=400, q=3):
    """Labels of annotators who say the truth with a given chance, each unit read by five; and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, q, units)
    said = []
    for u in range(units):
        for a in rng.choice(len(accuracies), 5, replace=False):
            right = rng.random() < accuracies[a]
            label = truth[u] if right else rng.choice([k for k in range(q) if k != truth[u]])
            said.append((u, f"a{a}", int(label)))
    return Ratings.of(said, scale=range(q)), truth


GOOD_AND_BAD = (0.95, 0.9, 0.9, 0.4, 0.35, 0.34, 0.3)


@pytest.mark.parametrize("seed", range(4))
def test_dawid_skene_finds_the_truth_and_the_annotators(seed):
    ratings, truth = simulated(seed, GOOD_AND_BAD)
    fit = dawid_skene(ratings)
    found = (fit.posterior_UQ.argmax(1) == truth).mean()
    majority = (ratings.counts() + 1e-9 * np.random.default_rng(0).random((400, 3))).argmax(1)
    assert found > (majority == truth).mean() + 0.05
    for a, accuracy in enumerate(GOOD_AND_BAD):
        assert fit.accuracy()[f"a{a}"] == pytest.approx(accuracy, abs=0.08)


def test_the_objective_never_falls():
    ratings, _ = simulated(9, GOOD_AND_BAD)
    for fit in (dawid_skene(ratings), dawid_skene(ratings, right=1.0), crowd_bradley_terry(crowd(0)[0])):
        assert len(fit.objective) > 3
        assert min(np.diff(fit.objective)) > -1e-9 * abs(fit.objective[0])


def test_one_step_is_bayes_by_hand():
    """At the fit, the posterior is prior x product of table entries, worked out without logs."""
    ratings, _ = simulated(2, GOOD_AND_BAD, units=30)
    fit = dawid_skene(ratings)
    for u in range(30):
        joint = [
            fit.prior_Q[k]
            * math.prod(
                fit.confusion_AQQ[a, k, q]
                for n, a, q in zip(ratings.unit_N, ratings.annotator_N, ratings.label_N, strict=True)
                if n == u
            )
            for k in range(3)
        ]
        assert fit.posterior_UQ[u] == pytest.approx(np.array(joint) / sum(joint), abs=1e-9)
    assert fit.confusion_AQQ.sum(2) == pytest.approx(np.ones((7, 3)))
    assert fit.prior_Q.sum() == pytest.approx(1.0)


def test_dawid_skene_is_a_stationary_point():
    """No small change of a table row raises the objective: the log posterior density, summed over all truths."""
    ratings, _ = simulated(4, (0.9, 0.8, 0.5, 0.7, 0.6), units=25, q=2)
    fit = dawid_skene(ratings)

    def density(confusion):
        value = 0.0
        for u in range(25):
            mine = [
                (a, q) for n, a, q in zip(ratings.unit_N, ratings.annotator_N, ratings.label_N, strict=True) if n == u
            ]
            value += math.log(sum(fit.prior_Q[k] * math.prod(confusion[a, k, q] for a, q in mine) for k in (0, 1)))
        return value + sum(math.log(confusion[a, k, k]) for a in range(5) for k in (0, 1))

    best = density(fit.confusion_AQQ)
    assert best == pytest.approx(fit.objective[-1], abs=1e-6)
    for a, k, move in itertools.product(range(5), (0, 1), (-0.02, 0.02)):
        moved = fit.confusion_AQQ.copy()
        moved[a, k] += np.array([move, -move])
        if (moved[a, k] > 0).all():
            assert density(moved) < best + 1e-4


# ---------------------------------------------------------------------------------------------------------- Crowd-BT


def crowd(seed, reliabilities=(0.97, 0.95, 0.9, 0.55, 0.5, 0.1), prompts=80, k=4, judges=4):
    """Rankings of K responses to each prompt, pair by pair, by annotators some of whom guess or reverse."""
    rng = np.random.default_rng(seed)
    strength = rng.normal(0, 2.0, (prompts, k))
    said = []
    for p in range(prompts):
        for a in rng.choice(len(reliabilities), judges, replace=False):
            for i, j in itertools.combinations(range(k), 2):
                first = rng.random() < 1 / (1 + math.exp(strength[p, j] - strength[p, i]))
                if rng.random() >= reliabilities[a]:
                    first = not first
                best, other = (i, j) if first else (j, i)
                said.append((f"a{a}", (p, best), (p, other), False))
    return Votes.of(said), strength


def right_order(strength, found):
    """Share of the pairs within prompts that `found` orders as the truth does; a draw counts half."""
    pairs = [(p, i, j) for p in range(len(strength)) for i, j in itertools.combinations(range(strength.shape[1]), 2)]
    signs = [np.sign(found(p, i) - found(p, j)) * np.sign(strength[p, i] - strength[p, j]) for p, i, j in pairs]
    return float(np.mean([0.5 + 0.5 * s for s in signs]))


@pytest.mark.parametrize("seed", range(3))
def test_crowd_bradley_terry_finds_order_and_reliability_and_beats_plain_wins(seed):
    votes, strength = crowd(seed)
    fit = crowd_bradley_terry(votes)
    place = {item: i for i, item in enumerate(votes.items)}
    wins = np.bincount(votes.winner_N, minlength=len(place)) - np.bincount(votes.loser_N, minlength=len(place))
    ours = right_order(strength, lambda p, i: fit.strength_I[place[p, i]])
    majority = right_order(strength, lambda p, i: wins[place[p, i]])
    assert ours > majority + 0.03
    found = fit.reliability()
    for a, truth in enumerate((0.97, 0.95, 0.9, 0.55, 0.5, 0.1)):
        assert found[f"a{a}"] == pytest.approx(truth, abs=0.12)


def test_crowd_bradley_terry_is_a_stationary_point():
    """No small change of a strength or a reliability raises the posterior density, written out from the paper."""
    votes, _ = crowd(5, prompts=6)
    fit = crowd_bradley_terry(votes, pull=0.5, truthful=4.0, untruthful=2.0)

    def density(strength, eta):
        value = sum(3 * math.log(e) + math.log(1 - e) for e in eta)
        value += sum(0.5 * math.log(1 / (1 + math.exp(-s))) + 0.5 * math.log(1 / (1 + math.exp(s))) for s in strength)
        for w, other, a in zip(votes.winner_N, votes.loser_N, votes.annotator_N, strict=True):
            win = 1 / (1 + math.exp(strength[other] - strength[w]))
            value += math.log(eta[a] * win + (1 - eta[a]) * (1 - win))
        return value

    best = density(fit.strength_I, fit.reliability_A)
    assert best == pytest.approx(fit.objective[-1], abs=1e-9)
    for i, move in itertools.product(range(len(fit.strength_I)), (-0.05, 0.05)):
        moved = fit.strength_I.copy()
        moved[i] += move
        assert density(moved, fit.reliability_A) < best + 1e-4
    for a, move in itertools.product(range(len(fit.reliability_A)), (-0.02, 0.02)):
        moved = fit.reliability_A.copy()
        moved[a] += move
        if 0 < moved[a] < 1:
            assert density(fit.strength_I, moved) < best + 1e-4


def test_two_items_by_hand():
    """With nobody to doubt (a prior of nearly 1), 3 wins to 1 and half a win each against 0 are symmetric strengths
    whose odds solve 2 (3 - 4 sigmoid(2 s)) + 2 (0.5 - sigmoid(s)) = 0 for each half of the pull."""
    said = [("ada", "x", "y", False)] * 3 + [("ada", "y", "x", False)]
    fit = crowd_bradley_terry(Votes.of(said), truthful=1e9, untruthful=1.0001)
    s = fit.strength_I[0]
    assert fit.strength_I[1] == pytest.approx(-s, abs=1e-3)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    assert 3 - 4 * sigmoid(2 * s) + 0.5 - sigmoid(s) == pytest.approx(0, abs=1e-3)


def test_ties_pull_together():
    strict = crowd_bradley_terry(Votes.of([("ada", "x", "y", False)]))
    tied = crowd_bradley_terry(Votes.of([("ada", "x", "y", True)]))
    mixed = crowd_bradley_terry(Votes.of([("ada", "x", "y", False), ("ada", "x", "y", True)]))
    gaps = [fit.strength_I[0] - fit.strength_I[1] for fit in (tied, mixed, strict)]
    assert gaps[0] == pytest.approx(0, abs=1e-9) and gaps[0] < gaps[1] < gaps[2]


@pytest.mark.parametrize("said", [{"pull": 0}, {"truthful": 1.0}, {"untruthful": 0.5}])
def test_what_has_no_finite_answer_is_refused(said):
    with pytest.raises(ValueError, match="finite"):
        crowd_bradley_terry(Votes.of([("ada", "x", "y", False)]), **said)
    with pytest.raises(ValueError, match="prior"):
        dawid_skene(Ratings.of([("x", "ada", 1)]), wrong=0.5)
    with pytest.raises(DataError, match="votes"):
        Votes.of([])


# -------------------------------------------------------------------------------------------- soft labels for training

PANEL = (
    SimulatedAnnotator("ada", noise=0.3),
    SimulatedAnnotator("ben", noise=0.4),
    SimulatedAnnotator("cleo", noise=0.5),
    SimulatedAnnotator("dan", careless=1.0),
    SimulatedAnnotator("eve", careless=0.9),
    SimulatedAnnotator("fay", careless=1.0, noise=3.0),
)


def answered(seed, prompts=250):
    rng = random.Random(seed)
    gold, made = {}, []
    for n in range(prompts):
        responses = tuple(f"response {n}/{i}" for i in range(3))
        scores = [rng.gauss(0, 1) for _ in responses]
        gold |= {(f"prompt {n}", r): s for r, s in zip(responses, scores, strict=True)}
        for annotator in rng.sample(PANEL, 4):
            made.append(annotator.compare(f"{n}/{annotator.name}", f"prompt {n}", responses, scores, rng=rng))
    return made, gold


def loss_and_right(comparisons, gold):
    """Mean cross-entropy of the true order under the soft labels, and the share of pairs ordered right."""
    losses, right = [], []
    for c in comparisons:
        for p in c.preferences:
            better = gold[c.prompt, c.responses[p.better]] > gold[c.prompt, c.responses[p.worse]]
            target = min(max(p.target, 0.01), 0.99)
            losses.append(-math.log(target if better else 1 - target))
            right.append(0.5 if p.tie else float(better))
    return float(np.mean(losses)), float(np.mean(right))


def shares(comparisons):
    """Plain shares of votes, as `assent.data.votes.pool_votes` makes them."""
    from assent.data.votes import pool_votes

    return pool_votes(comparisons)


@pytest.mark.parametrize("soften", [soften_by_dawid_skene, soften_by_bradley_terry])
@pytest.mark.parametrize("seed", [0, 1])
def test_soft_labels_are_nearer_the_truth_than_shares_of_votes(soften, seed):
    made, gold = answered(seed)
    softened, _ = soften(made)
    ours, theirs = loss_and_right(softened, gold), loss_and_right(shares(made), gold)
    assert ours[0] < theirs[0] - 0.03 and ours[1] > theirs[1] + 0.02
    assert len(softened) == 250 and all(len(c.preferences) == 3 for c in softened)
    assert all(p.probability is not None and 0.5 <= p.probability <= 1 for c in softened for p in c.preferences)


@pytest.mark.parametrize("soften", [soften_by_dawid_skene, soften_by_bradley_terry])
def test_which_response_stands_first_changes_nothing(soften):
    made, _ = answered(3, prompts=40)
    turned = [
        Comparison(
            c.id,
            c.prompt,
            c.responses[::-1],
            tuple(Preference(2 - p.better, 2 - p.worse, p.tie) if not p.tie else Preference(
                min(2 - p.better, 2 - p.worse), max(2 - p.better, 2 - p.worse), True) for p in c.preferences),
            c.annotator,
        )
        for c in made
    ]  # fmt: skip
    of = lambda cs: {  # noqa: E731
        (c.prompt, c.responses[p.better], c.responses[p.worse]): p.target for c in cs for p in c.preferences
    }
    straight, back = of(soften(made)[0]), of(soften(turned)[0])
    for (prompt, a, b), target in straight.items():
        other = back[prompt, a, b] if (prompt, a, b) in back else 1 - back[prompt, b, a]
        assert other == pytest.approx(target, abs=1e-5)


def test_a_doubted_annotator_weighs_less():
    made, _ = answered(0)
    _, fit = soften_by_dawid_skene(made)
    found = fit.accuracy()
    assert min(found["ada"], found["ben"], found["cleo"]) > max(found["dan"], found["eve"], found["fay"]) + 0.2
    _, fit = soften_by_bradley_terry(made)
    found = fit.reliability()
    assert min(found["ada"], found["ben"], found["cleo"]) > max(found["dan"], found["eve"], found["fay"]) + 0.2


def test_an_even_vote_is_a_tie():
    two = [
        Comparison("1", "p", ("x", "y"), (Preference(0, 1),), "ada"),
        Comparison("2", "p", ("x", "y"), (Preference(1, 0),), "ben"),
    ]
    for soften in (soften_by_dawid_skene, soften_by_bradley_terry):
        ((c,), _) = soften(two)
        assert c.preferences == (Preference(0, 1, tie=True, probability=0.5),)
