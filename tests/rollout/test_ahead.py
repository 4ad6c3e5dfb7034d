"""Dynamic sampling and sampling ahead: what a step holds, what it asked for, and that a kill changes neither."""

import io
from array import array
from collections import Counter
from dataclasses import replace

import pytest
import torch

from assent.errors import ArtefactError, ConfigError
from assent.protocols import Source
from assent.rewards.asked_once import AskedOnce
from assent.rewards.combined import CombinedScorer
from assent.rollout.ahead import AheadSource
from assent.rollout.drawn import Drawn, drawn_from_state, drawn_to_state
from assent.rollout.dynamic import DynamicDrawing
from assent.rollout.source import PromptSource
from assent.stages.online.sampling import DynamicSampling, asked_once, build_source
from assent.train.weighing import WeightedScorer, ask
from assent.types import JudgedRollout, Kept, Mean, NoScore, Prompt, Sample, Sampling, ScoreEvent

PROMPTS = [Prompt(f"p{i}", f"text {i}", (i + 1, 2)) for i in range(7)]


class Echo:
    """An engine whose responses tell the prompt, the seed, and the version of the weights they were drawn with."""

    def __init__(self):
        self.version, self.requests = 0, 0

    def generate(self, requests, sampling):
        self.requests += len(requests)
        return [Sample((r.token_ids[0], r.seed, self.version), (-0.1, -0.2, -0.3), True) for r in requests]

    def sync(self, weights, *, version):
        self.version = version

    def fingerprint(self):
        return "none"


class Judge:
    """Tells responses to even prompts apart; says the same of all responses to odd ones. Counts what it is asked."""

    name = "judge"

    def __init__(self, odd=0.0):
        self.asked, self.odd = 0, odd

    def score(self, rollouts):
        self.asked += len(rollouts)
        return [(ScoreEvent(2, r.token_ids[1] % 1000 * (1.0 if r.token_ids[0] % 2 else self.odd)),) for r in rollouts]


def plain(engine, *, steps=6, seed=5, samples=2, per_step=3):
    return PromptSource(
        PROMPTS, engine, Sampling(4, (0,)), prompts_per_step=per_step, samples_per_prompt=samples, steps=steps,
        seed=seed, decode=str,
    )  # fmt: skip


def dynamic(engine, judge, *, tries=10, spread=0.0, weight=1.0, **settings):
    scorers = [(AskedOnce(judge), weight)]
    return DynamicDrawing(plain(engine, **settings), [judge], scorers, groups=3, tries=tries, spread=spread)


def dynamic_on(source):
    return DynamicDrawing(source, [Judge()], [(AskedOnce(Judge()), 1.0)], groups=3, tries=2)


def ahead(drawing, lag=0) -> AheadSource:
    return AheadSource(drawing, PROMPTS, str, lag=lag)


def make(kind: str, lag: int, engine=None) -> Source:
    engine = engine or Echo()
    return ahead(plain(engine) if kind == "plain" else dynamic(engine, Judge()), lag)


def trained(source, seen, *, stop=None):
    """Iterate as the loop does: new weights after each step; the state after the last finished step."""
    state = source.state_dict()
    for step, rollouts in source:
        if step == stop:  # killed in the midst of this step
            return state
        seen.append((step, rollouts, dict(source.metrics)))
        source.sync({}, version=step + 1)
        state = source.state_dict()
    return state


# ------------------------------------------------------------------------------------------------ contract


@pytest.mark.parametrize("lag", [0, 1, 3])
@pytest.mark.parametrize("kind", ["plain", "dynamic"])
@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_resuming_leaves_no_gap_and_repeats_nothing(kind, lag, stop):
    whole, parts = [], []
    trained(make(kind, lag), whole)
    assert [step for step, _, _ in whole] == list(range(6))
    torch.save(trained(make(kind, lag), parts, stop=stop), buffer := io.BytesIO())
    buffer.seek(0)
    resumed = make(kind, lag)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    resumed.sync({}, version=stop)
    trained(resumed, parts)
    assert parts == whole


@pytest.mark.parametrize("kind", ["plain", "dynamic"])
@pytest.mark.parametrize("lag", [0, 1, 2])
def test_a_step_is_drawn_with_the_weights_of_as_many_steps_before(kind, lag):
    seen = []
    trained(make(kind, lag), seen)
    for step, rollouts, _ in seen:
        assert {r.version for r in rollouts} == {max(0, step - lag)} == {r.token_ids[2] for r in rollouts}


@pytest.mark.parametrize("kind", ["plain", "dynamic"])
def test_the_lag_changes_the_weights_and_nothing_else(kind):
    def asked(lag):
        seen = []
        trained(make(kind, lag), seen)
        return [[(r.prompt.id, r.token_ids[:2]) for r in rollouts] for _, rollouts, _ in seen]

    assert asked(0) == asked(1) == asked(4)


def test_without_a_lag_it_is_the_plain_source():
    one, other = list(make("plain", 0)), list(plain(Echo()))
    assert one == other


def test_the_state_of_another_source_is_refused():
    for kind in ("plain", "dynamic"):
        state = make(kind, 1).state_dict()
        other = plain(Echo(), seed=6)
        wrong = ahead(other if kind == "plain" else dynamic_on(other))
        with pytest.raises(ArtefactError, match="seed"):
            wrong.load_state_dict(state)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="lag"):
        make("plain", -1)
    for change in ({"tries": 0}, {"spread": -1.0}, {"samples": 1}):
        with pytest.raises(ConfigError, match="for dynamic sampling"):
            dynamic(Echo(), Judge(), **change)


# ------------------------------------------------------------------------------------------------ dynamic sampling


def test_groups_of_one_score_are_replaced_by_the_prompts_that_follow():
    engine, judge, seen = Echo(), Judge(), []
    trained(ahead(dynamic(engine, judge)), seen)
    flat = [r for _, rollouts, _ in seen for r in rollouts]
    assert len(flat) == 6 * 3 * 2 and all(r.token_ids[0] % 2 for r in flat), "prompts with an odd token teach"
    row = [r for r in plain(Echo()).ask(0, 40)[::2] if r.token_ids[0] % 2]
    assert [r.prompt.id for r in flat[::2]] == [r.prompt.id for r in row[:18]], "none is passed over, none repeated"
    asked = sum(m["sampling/asked"].value for _, _, m in seen)
    assert asked == engine.requests == judge.asked
    assert all(m["sampling/kept"].value == 3 * 2 / m["sampling/asked"].value for _, _, m in seen)
    assert all(m["sampling/filled"].value == 0.0 for _, _, m in seen)


def test_a_step_that_finds_too_few_is_filled_up_and_says_so():
    seen = []
    trained(ahead(dynamic(Echo(), Judge(), tries=1)), seen)
    short = [m["sampling/filled"].value for _, _, m in seen]
    assert max(short) > 0 and all(m["sampling/asked"].value == 6 for _, _, m in seen)
    for (_, rollouts, metrics), filled in zip(seen, short, strict=True):
        idle = [r for r in rollouts if not r.token_ids[0] % 2]
        assert len(rollouts) == 6 and len(idle) == round(filled * 6)
        assert metrics["sampling/kept"].value == pytest.approx(1 - filled)
        assert idle == rollouts[len(rollouts) - len(idle) :]
    none = []
    trained(ahead(dynamic(Echo(), Judge(), tries=4, weight=0.0)), none)
    assert all(len(r) == 6 and m["sampling/filled"].value == 1.0 for _, r, m in none)
    assert all(m["sampling/asked"].value == 4 * 3 * 2 for _, _, m in none)


def test_a_difference_within_the_spread_is_none():
    for spread, odd_teaches in ((0.0, True), (1e-3, False)):
        seen = []
        trained(ahead(dynamic(Echo(), Judge(odd=1e-7), spread=spread)), seen)
        assert any(not r.token_ids[0] % 2 for _, rollouts, _ in seen for r in rollouts) == odd_teaches


def test_a_group_in_which_only_one_response_was_scored_teaches_nothing():
    class Shy(Judge):
        def score(self, rollouts):
            said, met = super().score(rollouts), Counter()
            for i, r in enumerate(rollouts):
                met[r.prompt.id] += 1
                if r.token_ids[0] == 1 and met[r.prompt.id] > 1:
                    said[i] = ()
            return said

    seen = []
    trained(ahead(dynamic(Echo(), Shy())), seen)
    assert not any(r.token_ids[0] == 1 for _, rollouts, _ in seen for r in rollouts)


# ------------------------------------------------------------------------------------------------ asked once


def test_what_was_said_at_sampling_is_what_is_used_and_nobody_is_asked_twice():
    judge = Judge()
    drawn = dynamic(Echo(), judge).draw(0)
    before = judge.asked
    once = AskedOnce(judge)
    answers = once.score(drawn.rollouts)
    assert judge.asked == before and once.name == "judge"
    assert all(isinstance(r, JudgedRollout) and dict(r.answers)["judge"] == a
               for r, a in zip(drawn.rollouts, answers, strict=True))  # fmt: skip
    fresh = plain(Echo()).rollouts(3)
    mixed = [fresh[0], drawn.rollouts[0], fresh[1]]
    assert once.score(mixed) == [judge.score([r])[0] for r in mixed]


def test_what_the_parts_of_a_combination_said_is_known_under_dynamic_sampling_and_asked_once():
    """And the metrics of how they were combined are those of the rollouts that are trained on."""

    class Other(Judge):
        name = "other"

    class Lower:
        def __call__(self, scores_MB, rollouts):
            return scores_MB.amin(0), {"met": Mean(float(len(rollouts)), 1.0)}

    judges, engine = (Judge(), Other(odd=0.5)), Echo()
    weighted = [WeightedScorer(CombinedScorer("both", judges, Lower()), 2.0)]
    source = build_source(
        plain(engine), DynamicSampling(tries=4), weighted, PROMPTS, str, groups=3, lag=0, followers=()
    )
    _, rollouts = next(iter(source))
    once = asked_once(weighted, DynamicSampling(tries=4))[0].scorer
    answer = ask(once, rollouts)
    assert [j.asked for j in judges] == [engine.requests] * 2, "each about every rollout that was drawn, and once"
    assert engine.requests > len(rollouts) == 6 and answer.metrics["met"].value == 6
    assert [part.name for part in answer.parts] == ["judge", "other"]
    for part, judge in zip(answer.parts, judges, strict=True):
        assert part.scores_B.tolist() == [events[0].value for events in judge.score(rollouts)]
    assert [events[0].value for events in answer.events] == torch.stack([p.scores_B for p in answer.parts]).amin(
        0
    ).tolist()


def test_the_answers_survive_a_state_with_rollouts_that_wait():
    """A scorer that is not a function of the rollout (a judge that samples) is not asked again after a kill."""
    source = ahead(dynamic(Echo(), Judge()), lag=1)
    next(iter(source))
    torch.save(source.state_dict(), buffer := io.BytesIO())
    buffer.seek(0)
    resumed = ahead(dynamic(Echo(), Judge(odd=9.0)), lag=1)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    (_, first), (_, again) = next(iter(source)), next(iter(resumed))
    assert first == again and all(isinstance(r, JudgedRollout) for r in again)


def test_a_reason_for_no_score_survives_a_state():
    rollout = plain(Echo()).rollouts(0)[0]
    judged = JudgedRollout(
        **{name: getattr(rollout, name) for name in rollout.__slots__}, answers=(("a", NoScore("timeout")), ("b", ()))
    )
    state = drawn_to_state(Drawn([judged], {}))
    (again,) = drawn_from_state(state, {p.id: p for p in PROMPTS}, str).rollouts
    assert again == judged and again.answers[0][1].reason == "timeout"
    assert AskedOnce(Judge()).score([again])  # nobody named `judge` has answered
    assert AskedOnce(Judge()).metrics() == {}


def test_what_was_kept_survives_a_state():
    """Under a policy that has moved on, the tokens that could be drawn cannot be found again."""
    plain_one = plain(Echo()).rollouts(0)[0]
    counts = array("i", [1 + t % 2 for t in range(len(plain_one.token_ids))])
    rollout = replace(plain_one, kept=Kept(counts, array("i", range(sum(counts)))))
    torch.save(drawn_to_state(Drawn([rollout, plain_one], {})), buffer := io.BytesIO())
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert drawn_from_state(state, {p.id: p for p in PROMPTS}, str).rollouts == [rollout, plain_one]
