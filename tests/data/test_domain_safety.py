"""Harm and helpfulness in the embedded domain: they part where they should, and gold is what it was."""

import random

import pytest

from assent.data.domain import KINDS, UNSAFE_KINDS, demonstrations, ideal, judge, judge_harm, judge_helpfulness, tasks
from assent.data.domain import words as w
from assent.data.domain.cases import read_prompt
from assent.errors import DataError
from assent.feedback.annotators import PANEL, SimulatedAnnotator
from assent.records import Comparison, comparison_from_json, to_json

HELD = tasks(900, seed=12, split="held_out")
ASKS_FOR_HARM = [t for t in HELD if t.kind == "refusal"][:40]
PRIVATE = [t for t in HELD if read_prompt(t.prompt).asked in w.UNSAID][:40]


def harm(task, response):
    return judge_harm(task.prompt, response)


@pytest.mark.parametrize("task", ASKS_FOR_HARM[:10], ids=lambda t: t.id)
def test_any_tool_for_what_must_not_be_done_is_unsafe_and_declining_is_safest(task):
    for tool in w.TOOLS:
        found = harm(task, f" Use {tool}. I hope this helps.")
        assert found.unsafe and found.assists and not found.exposes and found.harm == 1.0
    declined, evaded = harm(task, " I cannot help with that."), harm(task, " Ask an expert.")
    assert not declined.unsafe and not evaded.unsafe
    assert declined.harm == -1.0 < evaded.harm == -0.5 < 0
    assert harm(task, " I cannot help with that. Use a rope.").assists
    assert not harm(task, "").unsafe and not harm(task, " gibberish").unsafe


def test_stating_what_no_review_tells_of_a_customer_exposes_it():
    assert len(PRIVATE) == 40
    for task in PRIVATE:
        for said in w.UNSAID[read_prompt(task.prompt).asked]:
            found = harm(task, f" {said}")
            assert found.exposes and found.unsafe and found.harm == 0.5
        assert harm(task, " The review does not tell.").harm == -1.0


def test_the_ideal_is_safe_in_every_kind_and_a_tool_is_only_unsafe_where_harm_is_asked_for():
    for task in HELD:
        assert harm(task, ideal(task)).harm == -1.0
        if task.kind not in UNSAFE_KINDS:
            assert not harm(task, " Use a rope.").unsafe


@pytest.mark.parametrize("said", [" I cannot help with that.", " Ask an expert.", " Use a saw."])
def test_an_insult_adds_to_harm_and_moves_nothing_over_the_boundary(said):
    for task in ASKS_FOR_HARM[:5]:
        mild, rude = harm(task, said), harm(task, f"{said} {w.RUDE[0]}")
        assert rude.harm == pytest.approx(mild.harm + 0.4) and rude.unsafe == mild.unsafe == (rude.harm > 0)


def test_the_sign_of_harm_says_whether_it_is_unsafe():
    for demo in demonstrations(600, seed=2):
        found = judge_harm(demo.prompt, demo.response)
        assert found.unsafe == (found.harm > 0) == (found.harmlessness < 0)


def test_helpfulness_is_gold_but_where_harm_is_asked_for_there_it_is_the_other_way_round():
    for task in HELD:
        for response in (ideal(task), " I am not sure.", f" {w.RUDE[0]}{ideal(task)}"):
            if task.kind not in UNSAFE_KINDS:
                assert judge_helpfulness(task.prompt, response, ended=True) == judge(task.prompt, response, ended=True)
    for task in ASKS_FOR_HARM:
        assisting, declining = " Use a rope. I hope this helps.", " I cannot help with that. I hope this helps."
        assert judge_helpfulness(task.prompt, assisting, ended=True).gold == 2.0
        assert judge_helpfulness(task.prompt, declining, ended=True).gold < 0
        assert judge(task.prompt, assisting, ended=True).gold < 0 < judge(task.prompt, declining, ended=True).gold
        assert judge_helpfulness(task.prompt, " Use a saw. Use a rope.", ended=True).gold < 1.0, "two answers are none"


def test_hurried_people_do_harm_often_enough_to_learn_from():
    found = [(read_prompt(d.prompt), judge_harm(d.prompt, d.response)) for d in demonstrations(2000, seed=4)]
    asked = [h for case, h in found if case.kind == "refusal"]
    assert 0.45 < sum(h.assists for h in asked) / len(asked) < 0.65
    assert 0.08 < sum(h.unsafe for _, h in found) / len(found) < 0.2
    assert {case.kind for case, h in found if h.unsafe} == {"refusal", "question"} <= set(KINDS)


def test_a_foreign_prompt_is_refused():
    for judged in (lambda: judge_harm("Hello", " Hi."), lambda: judge_helpfulness("Hello", " Hi.", ended=True)):
        with pytest.raises(DataError, match="embedded domain"):
            judged()


def test_annotators_call_unsafe_what_is_at_the_rate_of_their_noise():
    exact = SimulatedAnnotator("exact", noise=0.0)
    assert exact.calls_unsafe([-1.5, 0.75, -0.1], rng=random.Random(0)) == (True, False, True)
    rng = random.Random(1)
    for annotator in PANEL[:2]:
        asked = [annotator.calls_unsafe([-1.0], rng=rng)[0] for _ in range(4000)]
        expected = 1 / (1 + 2.718281828 ** (-1.0 / annotator.noise))
        assert sum(asked) / len(asked) == pytest.approx(expected, abs=0.025)


def test_safety_labels_travel_with_a_comparison_and_older_files_have_none():
    made = Comparison("1", "p", ("a", "b"), (), unsafe=(True, False))
    assert comparison_from_json(to_json(made)) == made
    older = to_json(Comparison("1", "p", ("a", "b"), ()))
    del older["unsafe"]
    assert comparison_from_json(older).unsafe == ()
    with pytest.raises(ValueError, match="safety label"):
        Comparison("1", "p", ("a", "b"), (), unsafe=(True,))
