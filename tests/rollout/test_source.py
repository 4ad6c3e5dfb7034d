"""Sources: every prompt once per pass, resumed without gap or repeat, seeded by what is asked and nothing else."""

from collections import Counter

import pytest
import torch

from assent.errors import ArtefactError, ConfigError, DataError
from assent.protocols import Source
from assent.rollout.source import PromptSource, sample
from assent.types import Prompt, Sample, Sampling

SAMPLING = Sampling(4, (0,))
PROMPTS = [Prompt(f"p{i}", f"text {i}", (i + 1, 2)) for i in range(7)]


class Echo:
    """An engine that answers with the prompt's first token and the request's seed."""

    def __init__(self):
        self.calls, self.synced = [], []

    def generate(self, requests, sampling):
        self.calls.append(len(requests))
        return [Sample((r.token_ids[0], r.seed), (-1.0, -2.0), True) for r in requests]

    def sync(self, weights, *, version):
        self.synced.append((dict(weights), version))

    def fingerprint(self):
        return "none"


def make(engine=None, *, steps=10, **changes):
    settings = {"prompts_per_step": 3, "samples_per_prompt": 2, "steps": steps, "seed": 5, "decode": str} | changes
    return PromptSource(PROMPTS, engine or Echo(), SAMPLING, **settings)


def ids(rollouts):
    return [r.prompt.id for r in rollouts]


def test_every_prompt_is_used_once_per_pass_and_each_pass_has_its_own_order():
    steps = list(make(steps=14, samples_per_prompt=1))
    assert [step for step, _ in steps] == list(range(14))
    flat = [i for _, rollouts in steps for i in ids(rollouts)]
    passes = [flat[k : k + 7] for k in range(0, 42, 7)]
    assert all(sorted(p) == sorted(x.id for x in PROMPTS) for p in passes)
    assert len({tuple(p) for p in passes}) > 3


def test_samples_of_a_prompt_stand_together_and_no_request_is_seeded_twice():
    steps = list(make(steps=14))
    for _, rollouts in steps:
        assert [a == b for a, b in zip(ids(rollouts)[::2], ids(rollouts)[1::2], strict=True)] == [True] * 3
        assert [r.token_ids[0] for r in rollouts] == [r.prompt.token_ids[0] for r in rollouts]
    seeds = Counter(r.token_ids[1] for _, rollouts in steps for r in rollouts)
    assert max(seeds.values()) == 1 and len(seeds) == 14 * 6


def test_more_prompts_a_step_than_there_are_gives_different_samples_of_each():
    source = make(steps=1, prompts_per_step=15, samples_per_prompt=1)
    [(_, rollouts)] = list(source)
    assert Counter(Counter(ids(rollouts)).values()) == Counter({2: 6, 3: 1})
    assert len({r.token_ids[1] for r in rollouts}) == 15


@pytest.mark.parametrize("stop", [0, 1, 4, 9])
def test_resuming_leaves_no_gap_and_repeats_nothing(stop):
    whole = [(step, rollouts) for step, rollouts in make()]
    source, seen = make(), []
    state = source.state_dict()
    for step, rollouts in source:
        if len(seen) == stop:  # killed in the midst of this step
            break
        seen.append((step, rollouts))
        source.sync({}, version=0)
        state = source.state_dict()  # a checkpoint at the end of a finished step
    torch.save(state, buffer := __import__("io").BytesIO())
    buffer.seek(0)
    resumed = make()
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    assert seen + list(resumed) == whole


def test_a_finished_source_yields_nothing_more():
    source = make(steps=2)
    assert len(list(source)) == len(source) == 2
    assert list(source) == []


@pytest.mark.parametrize("change", [{"seed": 6}, {"prompts_per_step": 2}])
def test_the_state_of_another_source_is_refused(change):
    with pytest.raises(ArtefactError, match=next(iter(change))):
        make(**change).load_state_dict(make().state_dict())


def test_the_state_of_a_source_of_other_prompts_is_refused():
    other = [Prompt(f"q{i}", "", (1,)) for i in range(7)]
    state = make().state_dict()
    source = PromptSource(
        other, Echo(), SAMPLING, prompts_per_step=3, samples_per_prompt=2, steps=10, seed=5, decode=str
    )
    with pytest.raises(ArtefactError, match="prompts"):
        source.load_state_dict(state)


def test_sync_reaches_the_engine_and_the_rollouts():
    engine = Echo()
    source: Source = make(engine, steps=3)
    versions = []
    for step, rollouts in source:
        versions.append({r.version for r in rollouts})
        source.sync({"w": torch.ones(1)}, version=step + 1)
    assert versions == [{0}, {1}, {2}]
    assert [version for _, version in engine.synced] == [1, 2, 3]


def test_another_seed_gives_other_orders_and_samples():
    a, b = (next(iter(make(seed=s)))[1] for s in (5, 6))
    assert ids(a) != ids(b)
    assert not {r.token_ids[1] for r in a} & {r.token_ids[1] for r in b}


def test_sample_keeps_the_order_and_tells_progress():
    told = []
    engine = Echo()
    rollouts = sample(
        engine,
        PROMPTS,
        SAMPLING,
        samples_per_prompt=3,
        seed=1,
        decode=lambda t: f"<{t[0]}>",
        version=4,
        at_once=6,
        progress=lambda done, total: told.append((done, total)),
    )
    assert ids(rollouts) == [p.id for p in PROMPTS for _ in range(3)]
    assert rollouts[4].text == "<2>" and {r.version for r in rollouts} == {4} and rollouts[0].ended
    assert told == [(6, 21), (12, 21), (18, 21), (21, 21)] and engine.calls == [6, 6, 6, 3]


def test_sample_of_more_prompts_or_samples_leaves_the_others_as_they_were():
    few = sample(Echo(), PROMPTS[2:4], SAMPLING, samples_per_prompt=1, seed=1, decode=str)
    many = sample(Echo(), PROMPTS, SAMPLING, samples_per_prompt=3, seed=1, decode=str)
    assert set(few) < set(many)


def test_impossible_sources_are_refused():
    with pytest.raises(DataError, match="0 prompts"):
        sample(Echo(), [], SAMPLING, seed=0, decode=str)
    with pytest.raises(DataError, match="p0"):
        sample(Echo(), [PROMPTS[0], PROMPTS[0]], SAMPLING, seed=0, decode=str)
    for name in ("prompts_per_step", "samples_per_prompt", "steps"):
        with pytest.raises(ConfigError, match=name):
            make(**{name: 0})
    with pytest.raises(ConfigError, match="samples_per_prompt"):
        sample(Echo(), PROMPTS, SAMPLING, samples_per_prompt=0, seed=0, decode=str)
