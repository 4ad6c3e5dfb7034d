"""The simulated critic: it removes what offends its principle, leaves the rest, errs at its stated rates."""

import random

import pytest

from assent.data import domain
from assent.data.domain import words as w
from assent.data.domain.critic import SimulatedCritic, offence

UNSAFE = [t.prompt for t in domain.tasks(300, seed=3, kinds=["refusal"])]
QUESTIONS = [t.prompt for t in domain.tasks(60, seed=3, kinds=["question"])]
PERFECT = SimulatedCritic(misses=0.0, alarms=0.0)


def revised(prompt, response, about="", critic=PERFECT, seed=0):
    return critic.revise(prompt, response, about, rng=random.Random(seed))[1]


def test_kinds_of_tasks_and_demonstrations():
    tasks = domain.tasks(50, seed=1, kinds=["refusal", "howto"])
    assert {t.kind for t in tasks} == {"refusal", "howto"}
    assert domain.tasks(50, seed=1) == domain.tasks(50, seed=1, kinds=domain.KINDS)
    prompts = {d.prompt for d in domain.demonstrations(40, seed=1, kinds=["route"])}
    assert all(str(p).startswith("Message:") for p in prompts)
    with pytest.raises(ValueError, match="kinds are some of"):
        domain.tasks(5, seed=1, kinds=["refusals"])


def test_help_with_what_must_not_be_done_is_declined_and_manners_stay():
    got = revised(UNSAFE[0], " Use a rope. I hope this helps.", "harm")
    assert got == " I cannot help with that. I hope this helps."
    assert not domain.judge_harm(UNSAFE[0], got).unsafe


def test_each_principle_sees_its_own_offence_alone():
    response = " Use a rope. You should know this."
    assert revised(UNSAFE[0], response, "manners") == " Use a rope."
    assert revised(UNSAFE[0], response, "harm") == " I cannot help with that. You should know this."
    assert revised(UNSAFE[0], response, "privacy") == response
    assert revised(UNSAFE[0], response, "whatever") == " I cannot help with that."
    private = " The customer is forty years old. Have a nice day."
    for about in ("privacy", "honesty"):
        assert revised(QUESTIONS[0], private, about) == " The review does not tell. Have a nice day."


def test_the_blameless_is_left_as_it_is_byte_for_byte():
    for prompt in (UNSAFE[0], QUESTIONS[0]):
        for response in (" I cannot help with that.", "  odd   spacing ,no end", ""):
            assert revised(prompt, response, "harm") == response
    howto = domain.tasks(5, seed=2, kinds=["howto"])[0].prompt
    assert revised(howto, " Use a rope.", "harm") == " Use a rope."


def test_it_errs_at_its_rates():
    critic = SimulatedCritic(misses=0.2, alarms=0.1)
    missed = sum(revised(p, " Use a rope.", "harm", critic, i) == " Use a rope." for i, p in enumerate(UNSAFE))
    alarmed = sum(revised(UNSAFE[0], " Hm.", "harm", critic, i) == " I cannot help with that." for i in range(300))
    assert 35 <= missed <= 85 and 12 <= alarmed <= 50


def test_it_prefers_the_harmless_and_leans_to_the_first():
    pairs = [(" I cannot help with that.", " Use a rope."), (" I cannot help with that.", " I am not sure.")]
    for better, worse in pairs:
        first = [PERFECT.first_preferred(UNSAFE[0], better, worse, "harm", rng=random.Random(i)) for i in range(200)]
        second = [PERFECT.first_preferred(UNSAFE[0], worse, better, "harm", rng=random.Random(i)) for i in range(200)]
        assert sum(first) / 200 > 0.6 and all(f > 1 - s or f > 0.5 for f, s in zip(first, second, strict=True))
        assert sum(first) / 200 > 1 - sum(second) / 200, "being first adds"
    equal = [PERFECT.first_preferred(UNSAFE[0], " x.", " y.", "manners", rng=random.Random(i)) for i in range(200)]
    assert 0.55 < sum(equal) / 200 < 0.65, "0.4 of log-odds"


def test_offence_by_topic():
    rude = f" Use a rope. {w.RUDE[0]}"
    assert [offence(UNSAFE[0], rude, about) for about in ("harm", "privacy", "manners")] == [1.0, 0.0, 1.0]
    assert offence(UNSAFE[0], rude, "") == pytest.approx(1.4)
    assert offence(UNSAFE[0], " I cannot help with that.", "harm") == -1.0
