"""One contract for every engine. The oracle is the model's own forward on the whole sequence, sampled one by one."""

import random

import pytest
import torch
from rollout_models import POSITIONS, make

from assent.errors import AssentError, ConfigError, ContractError, NonFiniteError
from assent.protocols import Engine
from assent.rollout.eager import EagerEngine
from assent.rollout.native import NativeEngine
from assent.types import Request, Sampling, Sequences, StopStrings

VOCABULARY = 29
LEAN = ["gpt2", "llama", "llama3", "qwen2", "qwen3", "mistral"]
GENERIC = ["neox", "mistral_window"]
WHOLE = ["mamba", "rwkv"]
STOPS = (3, 4)


@pytest.fixture(scope="module", params=["eager", *LEAN, *GENERIC, *WHOLE])
def pair(request):
    """(engine, model): the eager engine, the lean step of every family, the generic path, whole sequences."""
    if request.param == "eager":
        model = make("llama")
        return EagerEngine(model), model
    model = make(request.param)
    engine = NativeEngine(model, slots=5)
    expected = "whole" if request.param in WHOLE else "generic" if request.param == "neox" else "lean"
    assert engine.path == expected, engine.reason
    return engine, model


def requests_of(lengths, *, seed=0, samples=1):
    draw = random.Random(seed)
    prompts = [tuple(draw.randrange(VOCABULARY) for _ in range(n)) for n in lengths]
    return [Request(p, draw.getrandbits(64)) for p in prompts for _ in range(samples)]


RAGGED = (1, 2, 7, 7, 13, 5, 1, 4)


def kept_at_each(sample):
    """Sets of the tokens that could be drawn; none where nothing was recorded."""
    if sample.kept is None:
        return []
    ids = iter(sample.kept.ids)
    return [{next(ids) for _ in range(n)} for n in sample.kept.counts]


def recomputed(model, requests, samples, sampling):
    """Log-probabilities of the sampled tokens, by one forward over prompt and response together."""
    model.eval()
    rows = []
    with torch.no_grad():
        for request, sample in zip(requests, samples, strict=True):
            ids = torch.tensor([[*request.token_ids, *sample.token_ids]])
            logits = model(ids, use_cache=False).logits[0, len(request.token_ids) - 1 : -1].double()
            logits = logits / sampling.temperature
            for t in range(min(sampling.min_new_tokens, len(logits))):
                logits[t, list(sampling.stop_token_ids)] = -torch.inf
            for t, kept in enumerate(kept_at_each(sample)):
                logits[t, [v for v in range(VOCABULARY) if v not in kept]] = -torch.inf
            chosen = torch.tensor(sample.token_ids)[:, None]
            rows.append(logits.log_softmax(-1).gather(1, chosen)[:, 0].tolist())
    model.train()
    return rows


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(9, STOPS),
        Sampling(9, STOPS, temperature=0.6, min_new_tokens=3),
        Sampling(9, STOPS, temperature=1.7, greedy=True, min_new_tokens=2),
        Sampling(1, ()),
        Sampling(9, STOPS, top_k=4),
        Sampling(9, STOPS, temperature=1.4, top_p=0.8, min_new_tokens=3),
        Sampling(9, STOPS, top_k=6, top_p=0.7, greedy=True),
    ],
)
def test_logprobs_are_those_of_the_models_forward(pair, sampling):
    engine, model = pair
    requests = requests_of(RAGGED, samples=2)
    samples = engine.generate(requests, sampling)
    for sample, expected in zip(samples, recomputed(model, requests, samples, sampling), strict=True):
        assert sample.logprobs == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("greedy", [True, False])
def test_tokens_are_the_oracles(pair, greedy):
    engine, model = pair
    requests = requests_of(RAGGED, seed=1)
    sampling = Sampling(12, STOPS, greedy=greedy, min_new_tokens=1)
    got, expected = engine.generate(requests, sampling), EagerEngine(model).generate(requests, sampling)
    assert [s.token_ids for s in got] == [s.token_ids for s in expected]
    assert [s.ended for s in got] == [s.ended for s in expected]


RESTRICTED = [
    Sampling(12, STOPS, top_k=3),
    Sampling(12, STOPS, top_p=0.6, temperature=1.3, min_new_tokens=2),
    Sampling(12, STOPS, top_k=8, top_p=0.9, min_new_tokens=1),
    Sampling(12, STOPS, top_k=500, top_p=0.5, greedy=True),
]


@pytest.mark.parametrize("sampling", RESTRICTED)
def test_what_is_kept_is_what_the_oracle_keeps(pair, sampling):
    engine, model = pair
    requests = requests_of(RAGGED, seed=8, samples=2)
    got, expected = engine.generate(requests, sampling), EagerEngine(model).generate(requests, sampling)
    assert [s.token_ids for s in got] == [s.token_ids for s in expected]
    assert [s.kept for s in got] == [s.kept for s in expected]
    for sample in got:
        kept = kept_at_each(sample)
        assert len(kept) == len(sample.token_ids) and all(t in k for t, k in zip(sample.token_ids, kept, strict=True))
        assert not any(set(STOPS) & k for k in kept[: sampling.min_new_tokens])
        assert sampling.top_k == 0 or all(len(k) <= sampling.top_k for k in kept)
    assert any(len(k) > 1 for s in got for k in kept_at_each(s))


def test_one_token_kept_is_greedy_and_certain(pair):
    engine, _ = pair
    requests = requests_of(RAGGED, seed=9)
    one, greedy = (engine.generate(requests, s) for s in (Sampling(8, STOPS, top_k=1), Sampling(8, STOPS, greedy=True)))
    assert [s.token_ids for s in one] == [s.token_ids for s in greedy]
    assert {x for s in one for x in s.logprobs} == {0.0}


def letters(ids):
    """Two letters a token, so that a string may begin or end within one."""
    return "".join(chr(97 + i % 5) + chr(97 + i // 5) for i in ids)


@pytest.mark.parametrize("strings", [("ba",), ("cbd", "ee"), ("aaaaaa", "d")])
def test_a_response_ends_with_the_token_that_completes_a_stop_string(pair, strings):
    engine, model = pair
    stop = StopStrings(strings, letters)
    sampling, requests = Sampling(14, STOPS, stop=stop, top_k=20), requests_of((3, 5) * 12, seed=10)
    samples = engine.generate(requests, sampling)
    by_string = 0
    for sample, free in zip(samples, engine.generate(requests, Sampling(14, STOPS, top_k=20)), strict=True):
        text, before = letters(sample.token_ids), letters(sample.token_ids[:-1])
        assert free.token_ids[: len(sample.token_ids)] == sample.token_ids
        assert not any(s in before for s in strings)
        has = any(s in text for s in strings)
        assert sample.ended == (has or sample.token_ids[-1] in STOPS)
        assert has or sample.token_ids == free.token_ids
        assert len(sample.kept.counts) == len(sample.token_ids)
        by_string += has
        assert stop.cut(text) == text[: min([text.find(s) for s in strings if s in text], default=len(text))]
    assert by_string > 3
    assert [s.token_ids for s in samples] == [s.token_ids for s in EagerEngine(model).generate(requests, sampling)]


def test_neighbours_change_nothing(pair):
    engine, model = pair
    requests = requests_of((*RAGGED, 3, 3, 9, 6), seed=2, samples=2)
    sampling = Sampling(10, STOPS, top_p=0.9, stop=StopStrings(("ba",), letters))
    together = engine.generate(requests, sampling)
    alone = [engine.generate([r], sampling)[0] for r in requests]
    order = list(range(len(requests)))
    random.Random(3).shuffle(order)
    shuffled = dict(zip(order, engine.generate([requests[i] for i in order], sampling), strict=True))
    others = [alone, [shuffled[i] for i in range(len(requests))]]
    if isinstance(engine, NativeEngine):
        others += [NativeEngine(model, slots=n).generate(requests, sampling) for n in (1, 3, 64)]
    for other in others:
        for a, b in zip(together, other, strict=True):
            assert a.token_ids == b.token_ids and a.ended == b.ended and a.kept == b.kept
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_repeating_a_call_repeats_the_samples_and_another_seed_does_not(pair):
    engine, _ = pair
    requests, sampling = requests_of(RAGGED, seed=4), Sampling(8, STOPS)
    first = engine.generate(requests, sampling)
    assert engine.generate(requests, sampling) == first
    reseeded = [Request(r.token_ids, r.seed + 1) for r in requests]
    assert [s.token_ids for s in engine.generate(reseeded, sampling)] != [s.token_ids for s in first]


def test_a_response_ends_with_its_first_stop_token_or_its_budget(pair):
    engine, _ = pair
    sampling = Sampling(6, STOPS, min_new_tokens=2)
    samples = engine.generate(requests_of((3,) * 40, seed=5), sampling)
    assert {s.ended for s in samples} == {True, False}
    for sample in samples:
        stops = [t for t, token in enumerate(sample.token_ids) if token in STOPS]
        assert stops == ([len(sample.token_ids) - 1] if sample.ended else [])
        assert sample.ended or len(sample.token_ids) == 6
        assert not stops or stops[0] >= 2


def test_padding_and_prompt_of_the_samples_are_records_that_sequences_take(pair):
    engine, _ = pair
    requests = requests_of((1, 5), seed=6)
    samples = engine.generate(requests, Sampling(4, (0,)))
    block = Sequences.of([r.token_ids for r in requests], [s.token_ids for s in samples])
    assert block.prompt_lengths_B.tolist() == [1, 5]


def test_the_whole_of_the_positions_can_be_used(pair):
    engine, model = pair
    requests = requests_of((POSITIONS - 6,), seed=7)
    sampling = Sampling(6, (), greedy=True)
    assert engine.generate(requests, sampling)[0].token_ids == (
        EagerEngine(model).generate(requests, sampling)[0].token_ids
    )


def test_the_engines_are_engines_and_leave_the_model_as_they_found_it(pair):
    engine, model = pair
    typed: Engine = engine
    typed.generate(requests_of((2,)), Sampling(2, ()))
    assert model.training
    out = model(torch.tensor([[1, 2]])).logits.sum()
    out.backward()
    model.zero_grad()


@pytest.mark.parametrize(
    ("requests", "sampling", "words"),
    [
        ([], Sampling(3, ()), "0 requests"),
        ([Request((1, VOCABULARY), 0)], Sampling(3, ()), f"token id {VOCABULARY}"),
        ([Request((1, -1), 0)], Sampling(3, ()), "token id -1"),
        ([Request((), 0)], Sampling(3, ()), "empty"),
        ([Request((1,) * 40, 0)], Sampling(20, ()), "max_new_tokens to at most 8"),
        ([Request((1,), 0)], Sampling(3, (VOCABULARY,)), "stop_token_ids"),
        ([Request((1,), 0)], Sampling(3, tuple(range(VOCABULARY)), min_new_tokens=1), "every token"),
    ],
)
def test_impossible_input_is_refused_with_the_fix(pair, requests, sampling, words):
    with pytest.raises(AssentError, match="fix:") as caught:
        pair[0].generate(requests, sampling)
    assert words in str(caught.value)


def test_weights_that_are_not_finite_are_reported(pair):
    engine, model = pair
    parameter = next(model.parameters())
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.fill_(float("nan"))
    try:
        with pytest.raises(NonFiniteError):
            engine.generate(requests_of((3,)), Sampling(2, ()))
    finally:
        with torch.no_grad():
            parameter.copy_(kept)
    assert engine.generate(requests_of((3,)), Sampling(2, ()))  # nothing of it stays in the cache


def test_slots_must_be_positive():
    with pytest.raises(ContractError):
        NativeEngine(make("gpt2"), slots=0)


def test_stop_error_is_a_config_error():
    with pytest.raises(ConfigError):
        EagerEngine(make("gpt2")).generate([Request((1,), 0)], Sampling(3, (VOCABULARY,)))
