"""Continuous batching: what is computed, how often, and at which pace it may be looked at."""

import random

import pytest
import torch
from rollout_models import make

from assent.rollout import native, slots
from assent.rollout.eager import EagerEngine
from assent.rollout.native import NativeEngine
from assent.types import Request, Sampling

SAMPLING = Sampling(9, (3, 4))


def requests_of(prompts, samples):
    draw = random.Random(0)
    return [Request(p, draw.getrandbits(64)) for p in prompts for _ in range(samples)]


@pytest.fixture
def watched(monkeypatch):
    """Rows of every prefill, and slots and tokens seen of every step."""
    prefills, steps = [], []

    def prefill(decoder, token_ids_BL, original=slots.prefill):
        prefills.append(tuple(token_ids_BL.shape))
        return original(decoder, token_ids_BL)

    def step(decoder, cache, token_ids_B, positions_B, seen, original=slots.step):
        steps.append((len(token_ids_B), seen))
        return original(decoder, cache, token_ids_B, positions_B, seen)

    monkeypatch.setattr(slots, "prefill", prefill)
    monkeypatch.setattr(slots, "step", step)
    return prefills, steps


def test_a_prompt_is_read_once_for_all_its_samples(watched):
    prompts = [(1, 2, 3, 5), (6, 7), (8, 9, 2)]
    requests = requests_of(prompts, samples=6)
    random.Random(1).shuffle(requests)
    NativeEngine(make("llama"), slots=4).generate(requests, SAMPLING)
    assert watched[0] == [(3, slots.PAD)]


def test_a_prompt_is_read_in_a_length_that_no_other_prompt_changes(watched):
    """Alone or beside others; the model's last position is the end."""
    prompts = [tuple(i % 25 + 1 for i in range(n)) for n in (3, 17, 18, 30, 40)]
    model = make("llama")
    NativeEngine(model, slots=4).generate(requests_of(prompts, 1), Sampling(2, ()))
    together = sorted(watched[0])
    watched[0].clear()
    for prompt in prompts:
        NativeEngine(model, slots=4).generate(requests_of([prompt], 1), Sampling(2, ()))
    assert together == [(1, 8), (1, 16), (1, 24), (1, 32), (1, 40)]
    assert sorted(length for _, length in watched[0]) == [8, 16, 24, 32, 40]


def test_prompts_of_one_token_need_no_prefill(watched):
    NativeEngine(make("llama"), slots=4).generate(requests_of([(1,), (2,)], 3), SAMPLING)
    assert watched[0] == []


def test_prefills_stay_within_their_tokens(watched, monkeypatch):
    monkeypatch.setattr(native, "CPU_PACE", (1, 20))
    prompts = [tuple(range(1, n)) for n in (26, 12, 11, 10, 9, 3)]
    NativeEngine(make("gpt2"), slots=4).generate(requests_of(prompts, 2), SAMPLING)
    assert sum(rows for rows, _ in watched[0]) == len(prompts)
    assert all(rows * length <= 20 or rows == 1 for rows, length in watched[0])


def test_little_is_computed_that_nobody_asked_for(watched):
    requests = requests_of([(1, 2, 3), (4, 5, 6), (7, 8, 9, 10)], samples=40)
    samples = NativeEngine(make("llama"), slots=16).generate(requests, SAMPLING)
    wanted = sum(len(s.token_ids) for s in samples)
    computed = sum(rows for rows, _ in watched[1])
    assert max(rows for rows, _ in watched[1]) == 16
    assert wanted <= computed <= 1.1 * wanted
    assert max(seen for _, seen in watched[1]) <= 4 + 9 - 1


@pytest.mark.parametrize("look_every", [1, 3, 50])
@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_looking_seldom_changes_no_sample(monkeypatch, family, look_every):
    model = make(family)
    requests = requests_of([(1, 2, 3), (4,), (5, 6, 7, 8, 9), (10, 11)], samples=4)
    expected = [s.token_ids for s in EagerEngine(model).generate(requests, SAMPLING)]
    monkeypatch.setattr(native, "CPU_PACE", (look_every, 8))
    assert [s.token_ids for s in NativeEngine(model, slots=5).generate(requests, SAMPLING)] == expected


def test_one_engine_serves_calls_of_every_size_in_turn():
    model = make("llama")
    engine, oracle = NativeEngine(model, slots=6), EagerEngine(model)
    for prompts, samples, budget in (([(1, 2)], 1, 2), ([(3, 4, 5)] * 2, 8, 30), ([(6,) * 12], 3, 4), ([(7,)], 1, 1)):
        requests, sampling = requests_of(prompts, samples), Sampling(budget, (3,))
        got, expected = (e.generate(requests, sampling) for e in (engine, oracle))
        assert [s.token_ids for s in got] == [s.token_ids for s in expected]


def test_a_double_model_is_lean():
    model = make("llama").double()
    engine = NativeEngine(model, slots=3)
    requests = requests_of([(1, 2, 3), (4, 5)], 3)
    assert engine.path == "lean"
    for request, sample in zip(requests, engine.generate(requests, SAMPLING), strict=True):
        ids = torch.tensor([[*request.token_ids, *sample.token_ids]])
        with torch.no_grad():
            logits = model.eval()(ids).logits[0, len(request.token_ids) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, ids[0, len(request.token_ids) :, None])[:, 0]
        assert sample.logprobs == pytest.approx(
            expected.tolist(), abs=1e-5
        )  # norms and angles are float32 in the model


def test_an_engine_in_half_precision_turns_by_the_angles_of_the_learner():
    """Frequencies of 8 bits pass every comparison with a copy that has them too, and are wrong far from the start."""
    model = make("llama3")
    engine = NativeEngine(model, slots=3, dtype=torch.bfloat16)
    assert engine.path == "lean", engine.reason
    places = torch.arange(40)[None]
    like = torch.zeros(1, dtype=torch.float64)
    expected, found = (m.model.rotary_emb(like, places) for m in (model, engine._model))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    assert {p.dtype for p in engine._model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_half_precision_is_lean_and_follows_a_change_of_precision(family, dtype):
    model = make(family)
    engine = NativeEngine(model, slots=3)
    requests = requests_of([(1, 2, 3), (4, 5)], 3)
    before = engine.generate(requests, SAMPLING)
    model.to(dtype)
    assert engine.generate(requests, SAMPLING) != before
    assert engine.path == "lean", engine.reason
    model.float()
    assert engine.generate(requests, SAMPLING) != before  # the bits that half precision dropped are gone
