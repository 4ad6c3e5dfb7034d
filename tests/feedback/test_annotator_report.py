"""A panel with one fault each, found by name, and a panel without faults, left alone."""

import random
from dataclasses import replace

import pytest

from assent.feedback.annotator_report import Answer, report_annotators
from assent.feedback.annotators import SimulatedAnnotator
from assent.records import Comparison, Preference

NAMES = ("ada", "ben", "cleo", "dan")


def panel(seed, questions=150, **faults):
    """Every annotator answers every question; gold scores, texts of random length, 20 characters a second."""
    rng = random.Random(seed)
    answers, gold = [], []
    people = [replace(SimulatedAnnotator(n, noise=0.5, tie_width=0.05), **faults.get(n, {})) for n in NAMES]
    for n in range(questions):
        responses = tuple(f"{n} {i} " + "x" * rng.randrange(1, 200) for i in range(2))
        scores = [rng.gauss(0, 1), rng.gauss(0, 1)]
        better = int(scores[1] > scores[0])
        if n % 4 == 0:
            gold.append(Comparison(f"g{n}", f"p{n}", responses, (Preference(better, 1 - better),)))
        for who in people:
            c = who.compare(f"{n}/{who.name}", f"p{n}", responses, scores, rng=rng)
            answers.append(Answer(c, sum(map(len, responses)) / 20 * rng.lognormvariate(0, 0.3)))
    return answers, gold


def cards(answers, gold=()):
    report = report_annotators(answers, gold)
    return {c.name: c for c in report.cards}, report


def test_a_panel_without_faults_is_left_alone():
    """At most one false warning of a kind in twenty reports: four kinds, ten reports."""
    assert sum(len(cards(*panel(seed))[1].warnings) for seed in range(10)) <= 4


def test_two_who_answer_other_questions_are_held_against_each_other_as_two_estimates():
    """Each is as uncertain as the other: taken for the truth, the other's share would make false warnings of a fifth of
    such panels, and one report in twenty is promised."""
    warned = 0
    for seed in range(200):
        rng = random.Random(seed)
        answers = []
        for n in range(60):
            better = int(rng.random() < 0.5)
            made = Comparison(f"{n}", f"p{n}", ("long one", "short"), (Preference(better, 1 - better),), NAMES[n % 2])
            answers.append(Answer(made))
        warned += any("prefers the longer" in w for w in report_annotators(answers).warnings)
    assert warned <= 200 * 0.05 + 2 * (200 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"position_bias": 2.0}, "shown earlier"),
        ({"position_bias": -2.0}, "shown later"),
        ({"careless": 1.0}, "told from guessing"),
        ({"careless": 1.0}, "agrees with the others on"),
    ],
)
def test_the_one_with_a_fault_is_named(fault, words):
    _, report = cards(*panel(1, dan=fault))
    assert any(w.startswith("dan") and words in w for w in report.warnings)
    assert not any(w.startswith(("ada", "ben", "cleo")) for w in report.warnings)
    assert all(w in report.table() for w in report.warnings)


def test_length_bias_is_measured_against_the_rest():
    answers, gold = panel(2)
    longer = []
    for a in answers:
        c = a.comparison
        if c.annotator == "dan":
            best = int(len(c.responses[1]) > len(c.responses[0]))
            c = replace(c, preferences=(Preference(best, 1 - best),))
        longer.append(Answer(c, a.seconds))
    found, report = cards(longer, gold)
    assert found["dan"].longer.value == 1.0 and found["dan"].longer_of_rest.value == pytest.approx(0.5, abs=0.1)
    assert any(w.startswith("dan prefers the longer response more") for w in report.warnings)


def test_pace():
    answers, _ = panel(3)
    quick = [replace(a, seconds=a.seconds / (40 if a.comparison.annotator == "dan" else 1)) for a in answers]
    found, report = cards(quick)
    assert found["dan"].pace.distance > 3.5 and abs(found["ada"].pace.distance) < 1
    assert found["dan"].pace.characters == pytest.approx(800, rel=0.2)
    assert any(w.startswith("dan is much faster") for w in report.warnings)
    once = [replace(a, seconds=0.1) if i in (3, 7) else a for i, a in enumerate(answers)]  # both dan's
    found, report = cards(once)
    assert found["dan"].pace.hasty == 2 and any("2 of 150 answers" in w for w in report.warnings)
    assert cards([replace(a, seconds=None) for a in answers])[0]["dan"].pace is None


def test_reversed_buttons():
    answers, gold = panel(4)
    turned = []
    for a in answers:
        c = a.comparison
        if c.annotator == "dan":
            c = replace(c, preferences=tuple(p if p.tie else Preference(p.worse, p.better) for p in c.preferences))
        turned.append(Answer(c))
    _, report = cards(turned, gold)
    assert any("dan orders gold questions the wrong way round" in w for w in report.warnings)


def test_by_hand():
    def vote(name, better, tie=False, shown=(0, 1), prompt="p", responses=("aa", "b")):
        preference = Preference(0, 1, tie=True) if tie else Preference(better, 1 - better)
        return Answer(Comparison(name, prompt, responses, (preference,), name, shown))

    answers = [
        vote("ada", 0), vote("ben", 0), vote("cleo", 1), vote("ada", 0, prompt="q"),
        vote("ben", 0, tie=True, prompt="q"), vote("ada", 1, shown=(1, 0)),
    ]  # fmt: skip
    gold = [Comparison("g", "p", ("b", "aa"), (Preference(1, 0),))]
    found, _ = cards(answers, gold)
    ada = found["ada"]
    assert (ada.answers, ada.pairs) == (3, 3)
    assert ada.gold.value == pytest.approx(1 / 2)  # of two votes on p
    assert ada.like_the_rest.value == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)  # ben, cleo; ben's tie; ben, cleo
    assert ada.rest_among_themselves.value == 0.0  # ben against cleo on p
    assert ada.consistent.value == 0.0 and ada.consistent.items == 1
    assert ada.earlier.value == 1.0  # each time what was shown first
    assert ada.longer.value == pytest.approx(2 / 3) and found["ben"].ties == 0.5
    assert ada.longer_of_rest.value == pytest.approx(1 / 2)


def test_what_an_annotator_wrote_was_shown_nowhere():
    edited = Comparison("e", "p", ("theirs", "mine"), (Preference(1, 0),), "ada", shown=(0,))
    assert cards([Answer(edited, 3.0)])[0]["ada"].earlier.value is None
