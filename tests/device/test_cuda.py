"""On a real GPU, where there is one: steps, decoding and a whole short recipe against the CPU."""

import copy
import logging

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from assent.rollout.native import NativeEngine
from assent.types import Request, Sampling
from tests.contracts.test_algorithms import CASES
from tests.device.on_card.test_algorithms import stepped
from tests.device.on_card.test_whole import SHORT, STAGES
from tests.end_to_end.tiny import run_tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")

GPU = torch.device("cuda", 0)
REQUESTS = [Request(tuple(range(1, 3 + i % 7)), i) for i in range(40)]


@pytest.mark.parametrize("name", CASES)
def test_a_step_on_the_gpu_is_a_step_on_the_cpu(name, tmp_path):
    expected, found = (stepped(name, device, tmp_path) for device in (torch.device("cpu"), GPU))
    assert found[0] == pytest.approx(expected[0], rel=1e-6, abs=1e-9, nan_ok=True)
    for now, then in zip(found[1], expected[1], strict=True):
        assert now == pytest.approx(then, rel=1e-6, abs=1e-9)


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3, pad_token_id=None,
        )
    )  # fmt: skip


def test_the_gpu_decodes_what_the_cpu_does_and_recordings_are_kept(caplog):
    model, sampling = llama(), Sampling(48, (0,), greedy=True)
    expected = NativeEngine(model, slots=16).generate(REQUESTS, sampling)
    with caplog.at_level(logging.WARNING):
        engine = NativeEngine(copy.deepcopy(model).to(GPU), slots=16)
        found = engine.generate(REQUESTS, sampling)
    assert engine.path == "lean", engine.reason
    assert not caplog.text  # neither path stepped aside
    same = sum(a.token_ids == b.token_ids for a, b in zip(found, expected, strict=True))
    assert same >= len(REQUESTS) - 2  # two nearly equal logits may be ordered by rounding
    for a, b in zip(found, expected, strict=True):
        if a.token_ids == b.token_ids:
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-3)


def test_a_seed_means_the_same_tokens_whatever_is_beside_it_on_the_gpu():
    engine = NativeEngine(llama().to(GPU), slots=8)
    whole = engine.generate(REQUESTS, Sampling(24, (0,)))
    alone = [engine.generate([r], Sampling(24, (0,)))[0] for r in REQUESTS[:6]]
    assert [s.token_ids for s in whole[:6]] == [s.token_ids for s in alone]


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    return run_tiny(tmp_path_factory.mktemp("cpu"), "device=cpu", *SHORT)[0]


def test_a_short_recipe_on_the_gpu_has_the_figures_of_the_cpu(on_cpu, tmp_path):
    """Up to the reward model, before sampling by trained weights lets rounding choose another token."""
    made, _ = run_tiny(tmp_path, "device=cuda", *SHORT)
    assert "cuda:0" in made["ppo"].environment["device"]
    for stage in STAGES[:2]:
        assert dict(made[stage].metrics) == pytest.approx(dict(on_cpu[stage].metrics), rel=1e-2, abs=1e-2, nan_ok=True)
    assert {n: a.id for n, a in made.items()} == {n: a.id for n, a in on_cpu.items()}


def test_a_short_recipe_in_bfloat16_passes_its_checks(tmp_path):
    made, _ = run_tiny(tmp_path, "device=cuda", "precision=bfloat16", *SHORT)
    assert made["verdict"].environment["precision"] == "bfloat16"
