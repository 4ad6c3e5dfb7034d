"""New weights, and the proof of which ones the next token is sampled from (check D4); stepping aside."""

import copy
import logging

import pytest
import torch
from rollout_models import make
from torch import nn

from assent.errors import ContractError
from assent.functional.fingerprint import fingerprint
from assent.rollout.eager import EagerEngine
from assent.rollout.native import NativeEngine
from assent.types import Request, Sampling

REQUESTS = [Request((1 + k % 5, 2, 3 + k), k) for k in range(12)]
SAMPLING = Sampling(6, (0,))


@pytest.fixture(params=["eager", "gpt2", "llama", "neox"])
def make_engine(request):
    family = "llama" if request.param == "eager" else request.param
    kind = EagerEngine if request.param == "eager" else NativeEngine
    return lambda seed=0: (kind(model := make(family, seed=seed)), model)


def disturb(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def tokens_of(engine):
    return [s.token_ids for s in engine.generate(REQUESTS, SAMPLING)]


def test_sync_brings_the_samples_and_the_fingerprint_of_the_learner(make_engine):
    engine, _ = make_engine()
    learner = make_engine()[1]
    before, first = tokens_of(engine), engine.fingerprint()
    assert first == fingerprint(dict(learner.named_parameters()))
    disturb(learner)
    # The learner has moved and nobody synced: the engine is stale, and its fingerprint says so.
    assert engine.fingerprint() == first != fingerprint(dict(learner.named_parameters()))
    assert tokens_of(engine) == before
    engine.sync(dict(learner.named_parameters()), version=1)
    assert engine.fingerprint() == fingerprint(dict(learner.named_parameters()))
    assert tokens_of(engine) != before
    assert tokens_of(engine) == tokens_of(EagerEngine(learner))


def test_one_weight_left_out_of_the_copy_is_seen(make_engine):
    engine, model = make_engine()
    learner = copy.deepcopy(model)
    disturb(learner)
    engine.sync(dict(learner.named_parameters()), version=1)
    with torch.no_grad():
        list(model.parameters())[3].view(-1)[0] += 1e-6
    assert engine.fingerprint() != fingerprint(dict(learner.named_parameters()))


def test_a_learner_of_the_same_tensors_needs_no_copy(make_engine):
    engine, model = make_engine()
    disturb(model)
    weights = dict(model.named_parameters())
    versions = {name: p._version for name, p in weights.items()}
    engine.sync(weights, version=3)
    assert {name: p._version for name, p in weights.items()} == versions
    assert engine.fingerprint() == fingerprint(weights)
    assert tokens_of(engine) == tokens_of(EagerEngine(model))


def test_a_state_dict_with_tied_names_is_taken_and_fingerprinted_under_them(make_engine):
    engine, _ = make_engine()
    learner = make_engine()[1]
    disturb(learner)
    engine.sync(learner.state_dict(), version=1)
    assert engine.fingerprint() == fingerprint(learner.state_dict())
    engine.sync(dict(learner.named_parameters()), version=2)
    assert engine.fingerprint() == fingerprint(dict(learner.named_parameters()))


def test_replaced_parameters_and_reassigned_data_are_followed(make_engine):
    engine, model = make_engine()
    before = tokens_of(engine)
    model.get_input_embeddings().weight = nn.Parameter(torch.randn_like(model.get_input_embeddings().weight))
    assert tokens_of(engine) == tokens_of(EagerEngine(model)) != before
    parameter = list(model.parameters())[4]
    parameter.data = parameter.data + 0.5 * torch.ones_like(parameter.data)
    assert tokens_of(engine) == tokens_of(EagerEngine(model))
    assert engine.fingerprint() == fingerprint(dict(model.named_parameters()))


@pytest.mark.parametrize("fault", ["unknown", "missing", "shape"])
def test_weights_of_another_model_are_refused(make_engine, fault):
    engine, model = make_engine()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    name = list(weights)[-1]
    if fault == "unknown":
        weights["nobody"] = torch.zeros(1)
    elif fault == "missing":
        del weights[name]
    else:
        weights[name] = torch.zeros(3, 3)
    before = engine.fingerprint()
    with pytest.raises(ContractError, match="nobody" if fault == "unknown" else name):
        engine.sync(weights, version=1)
    assert engine.fingerprint() == before


def test_an_unknown_family_steps_aside_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        engine = NativeEngine(make("neox"))
    assert engine.path == "generic"
    assert "GPTNeoXForCausalLM" in engine.reason and "GPTNeoXForCausalLM" in caplog.text


def test_a_known_family_is_silent(caplog):
    with caplog.at_level(logging.WARNING):
        engine = NativeEngine(make("qwen3"))
    assert engine.path == "lean" and engine.reason == "" and not caplog.records


def test_a_model_whose_arithmetic_differs_is_found_by_comparison():
    model = make("gpt2")
    block = model.transformer.h[1]
    plain = block.mlp.forward
    block.mlp.forward = lambda x: 1.01 * plain(x)  # a patch that no type or name gives away
    engine = NativeEngine(model)
    assert engine.path == "generic" and "differ" in engine.reason
    assert tokens_of(engine) == tokens_of(EagerEngine(model))


class Adapter(nn.Linear):
    """Like an adapter fresh from its maker: changes nothing yet."""


def test_an_adapter_put_in_later_makes_the_engine_step_aside():
    model = make("llama")
    engine = NativeEngine(model)
    assert engine.path == "lean"
    attention = model.model.layers[0].self_attn
    adapter = Adapter(16, 16, bias=False)
    attention.q_proj = adapter
    assert tokens_of(engine) == tokens_of(EagerEngine(model))
    assert engine.path == "generic" and "Adapter" in engine.reason


def test_hooks_make_it_step_aside():
    model = make("llama")
    model.model.layers[0].register_forward_hook(lambda module, args, out: out)
    assert "hooks" in NativeEngine(model).reason


@pytest.mark.parametrize("rope", [{"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}, None])
def test_angles_that_depend_on_the_length_step_aside(rope, caplog):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=29, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, rope_parameters=rope or {
            "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 16, "factor": 4.0,
        },
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    engine = NativeEngine(model)
    requests = [Request(tuple(range(1, 14)), k) for k in range(3)]
    sampling = Sampling(12, (), greedy=True)
    got, expected = (e.generate(requests, sampling) for e in (engine, EagerEngine(model)))
    assert [s.token_ids for s in got] == [s.token_ids for s in expected]
    if rope is None:  # 25 tokens are beyond the 16 up to which the cached keys have the angles of the whole
        assert engine.path == "generic" and "rotary" in engine.reason
        assert "keeps no cache for this call" in caplog.text and "from 17 on" in caplog.text
        caplog.clear()
        engine.generate(requests, Sampling(3, ()))
        assert not caplog.text
    else:  # within max_position_embeddings a dynamic embedding is a fixed one
        assert engine.path == "lean"


def test_a_cache_that_cannot_be_cut_or_is_not_read_is_not_used(caplog):
    for family, said in (("mamba", "cannot be used"), ("rwkv", "differ from the model's forward")):
        with caplog.at_level(logging.WARNING):
            engine = NativeEngine(make(family))
        assert engine.path == "whole" and said in engine.reason and said in caplog.text


def test_a_window_shorter_than_the_sequences_steps_aside_for_that_call(caplog):
    model = make("mistral_window")
    engine = NativeEngine(model)
    with caplog.at_level(logging.WARNING):
        engine.generate([Request((1,), 0)], Sampling(3, ()))
        assert not caplog.records
        engine.generate([Request((1, 2), 0)], Sampling(3, ()))
    assert "sliding window of 4" in caplog.text
