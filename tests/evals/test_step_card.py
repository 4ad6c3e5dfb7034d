"""The card of a process reward model: against figures counted by hand and by brute force."""

import json

import numpy as np
import pytest

from assent.errors import DataError
from assent.evals.step_card import JudgedSolution, StepCard, step_card


def judged(prompt, logits, targets, first, whole=True, kind=""):
    return JudgedSolution(prompt, tuple(logits), tuple(targets), first, whole, kind)


BY_HAND = [
    judged("a", (2.0, -1.0, 1.0), (1.0, 0.0, None), 1, kind="x"),
    judged("b", (2.0, 1.0), (1.0, 1.0), None, kind="x"),
    judged("c", (0.5, 3.0, -0.5), (1.0, 1.0, 0.0), 2, kind="y"),
    judged("d", (-1.0, 1.0), (1.0, 1.0), None, kind="y"),
    judged("e", (0.5, -3.0, -2.0), (1.0, 0.0, None), 1, kind="y"),
    judged("f", (1.0, 2.0), (None, 0.0), 1, whole=False),
]


def test_by_hand():
    """12 labelled steps: 8 right ones, of which one is called wrong, and 4 wrong ones, of which one is called right."""
    card = step_card(BY_HAND)
    assert card.accuracy.value == pytest.approx(10 / 12) and card.accuracy.clusters == 6
    assert card.commoner == pytest.approx(8 / 12)
    assert card.balanced.value == pytest.approx((7 / 8 + 3 / 4) / 2)
    assert card.first_error.located.value == 1.0 and card.first_error.located.items == 3
    assert card.first_error.clean.value == 0.5
    assert card.first_error.f1.value == pytest.approx(2 / 3)
    assert card.first_error.weakest.value == 1.0 and card.first_error.guess == pytest.approx(1 / 3)
    assert [(s.name, s.accuracy.value) for s in card.by_kind] == [("x", 1.0), ("y", pytest.approx(6 / 7))]


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    some = []
    for p in range(40):
        z = np.round(rng.normal(size=5), 1)  # rounded, so that there are ties
        some.append(judged(str(p), z, (rng.random(5) < 1 / (1 + np.exp(-2 * z))).astype(float), None))
    up = [z for s in some for z, t in zip(s.logits, s.targets, strict=True) if t == 1]
    down = [z for s in some for z, t in zip(s.logits, s.targets, strict=True) if t == 0]
    pairs = np.mean([(a > b) + 0.5 * (a == b) for a in up for b in down])
    area = step_card(some).auc
    assert area.value == pytest.approx(pairs) and area.interval.low < pairs < area.interval.high


def test_intervals_cover_and_know_prompts_from_steps():
    """Solutions of one prompt all alike: the interval is that of the prompts, wider than if each step were new."""
    rng = np.random.default_rng(1)
    luck = rng.random(60) < 0.7
    several = [judged(str(p), [2.0 if ok else -2.0] * 4, [1.0] * 4, None) for p, ok in enumerate(luck)]
    alone = [judged(f"{p}/{i}", [2.0 if ok else -2.0], [1.0], None) for p, ok in enumerate(luck) for i in range(4)]
    wide, narrow = step_card(several).accuracy.interval, step_card(alone).accuracy.interval
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


def test_a_model_that_knows_nothing():
    rng = np.random.default_rng(2)
    some = []
    for p in range(300):
        first = int(rng.integers(0, 8))
        targets = [1.0] * min(first, 5) + ([0.0] + [None] * (4 - first) if first < 5 else [])
        some.append(judged(str(p), rng.normal(size=5), targets, first if first < 5 else None))
    card = step_card(some)
    assert 0.5 in card.auc.interval and 0.5 in card.balanced.interval
    assert card.first_error.guess in card.first_error.weakest.interval


def test_what_cannot_be_counted_is_none_and_the_card_goes_through_json():
    card = step_card([judged("a", (1.0, 2.0), (1.0, 1.0), None), judged("b", (1.0,), (0.8,), None)])
    assert card.auc.value is None and card.balanced.value is None and card.first_error.located.value is None
    assert card.first_error.f1.value is None and card.first_error.guess is None and card.accuracy.value == 1.0
    for whole in (card, step_card(BY_HAND)):
        assert StepCard.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_nothing_labelled_is_refused():
    with pytest.raises(DataError, match="held-out steps"):
        step_card([judged("a", (1.0,), (None,), None)])
