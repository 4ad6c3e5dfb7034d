"""bfloat16: products in half precision, everything else in float32. On a CPU, where it is slow and the same."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from assent.doctor.policy import engine_follows_weights
from assent.functional.fingerprint import fingerprint
from assent.models.folders import load_causal, save_causal
from assent.models.forward import ModelForward, ScalarModel, in_blocks
from assent.models.placement import Placement, in_full, narrowed, placement_of, products_of
from assent.models.prepare import check_head_path, prepare
from assent.pipeline.artefact import Artefact
from assent.rollout.native import NativeEngine
from assent.stages import placement
from assent.types import Request, Sampling, Sequences
from tests.end_to_end.tiny import run_tiny

HALF = Placement(torch.device("cpu"), torch.bfloat16)
ROWS = Sequences.of([[1, 2, 3], [4], [5, 6]], [[7, 8], [9, 10, 11, 12], [3]])


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, pad_token_id=None, num_labels=1,
    )  # fmt: skip


def models(products: torch.dtype = torch.bfloat16):
    torch.manual_seed(0)
    policy, scalar = LlamaForCausalLM(config()), ScalarModel(LlamaForSequenceClassification(config()))
    prepare(policy)
    check_head_path(policy)
    for model in (policy, scalar.model):
        vars(model)["assent_products"] = products
    return policy, scalar


def test_numbers_are_near_those_of_float32_and_not_the_same():
    policy, scalar = models()
    forward, exact = ModelForward(policy=policy, scalar=scalar), copy.deepcopy((policy, scalar.model))
    assert products_of(policy) == torch.bfloat16 and narrowed(exact[0]) == torch.bfloat16
    half = forward.logprobs(ROWS), forward.scores(ROWS)
    with in_full(policy), in_full(scalar.model):
        full = forward.logprobs(ROWS), forward.scores(ROWS)
    for a, b in zip(half, full, strict=True):
        assert a.dtype == torch.float32 and not torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.1)
    assert narrowed(policy) == torch.bfloat16  # put back


def test_weights_gradients_and_what_they_are_moved_by_stay_float32():
    policy, scalar = models()
    forward = ModelForward(policy=policy, critic=scalar)
    out = forward.actor_critic(ROWS)
    (out.logprobs_BT.sum() + out.entropy_BT.sum() + out.values_BT.sum()).backward()
    grads = [p.grad for p in forward.modules.parameters() if p.grad is not None]
    assert {g.dtype for g in grads} == {p.dtype for p in forward.modules.parameters()} == {torch.float32}
    whole, _ = models(torch.float32)
    ModelForward(policy=whole).tokens(ROWS).logprobs_BT.sum().backward()
    policy.zero_grad()
    ModelForward(policy=policy).tokens(ROWS).logprobs_BT.sum().backward()
    flat = [torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (policy, whole)]
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.999


def test_policy_and_reference_are_one_function_at_the_start():
    policy, _ = models()
    forward = ModelForward(policy=policy, reference=copy.deepcopy(policy))
    assert forward.exact_kl(ROWS).abs().max() == 0
    reference = ModelForward(policy=copy.deepcopy(policy))
    (scored,) = in_blocks(lambda s: (reference.logprobs(s),), ROWS)
    torch.testing.assert_close(forward.logprobs(ROWS), scored, rtol=0, atol=0.05)


def test_the_engine_samples_from_a_narrow_copy_that_sync_refreshes():
    policy, _ = models()
    engine = NativeEngine(policy, slots=2, dtype=torch.bfloat16)
    assert engine.path == "lean"
    weights = dict(policy.named_parameters())
    prompts = [[1, 2, 3], [4]]
    logprobs = ModelForward(policy=policy).logprobs
    found = engine_follows_weights(
        engine, weights, logprobs, prompts, Sampling(4, (0,)), version=0, dtype=torch.bfloat16, held_in=torch.bfloat16
    )
    assert found.figure <= found.tolerance
    with torch.no_grad():
        policy.lm_head.weight.mul_(-1)
    stale = engine.generate([Request((1, 2), 0)], Sampling(3, (0,), greedy=True))
    engine.sync(weights, version=1)
    assert engine.fingerprint() == fingerprint({n: w.bfloat16() for n, w in weights.items()})
    assert engine.generate([Request((1, 2), 0)], Sampling(3, (0,), greedy=True)) != stale
    assert policy.lm_head.weight.dtype == torch.float32


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Artefact]:
    few = ("base.data.count=40", "sft.data.count=48", "sft.epochs=1", "comparisons.tasks.count=24", "reward.epochs=1",
           "ppo.steps=2", "ppo.tasks.count=24", "verdict.tasks.count=8", "reward.skip_checks=[D8]")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "_has_bfloat16", lambda device: True)
        overrides = ["device=cpu", "precision=bfloat16", *(f"stages.{x}" for x in few)]
        return run_tiny(tmp_path_factory.mktemp("half"), *overrides, until="verdict")[0]


def test_a_whole_recipe_passes_its_first_batch_checks(made):
    assert made["ppo"].environment["precision"] == "bfloat16" and made["ppo"].config["precision"] == "bfloat16"
    assert made["verdict"].metrics["policy_greedy_length"] > 0


def test_what_is_saved_is_float32_and_reads_back_in_either(made):
    folder = made["ppo"].folder / "model"
    whole, half = load_causal(folder), load_causal(folder, placement=HALF)
    assert placement_of(half.model) == HALF and whole.model.dtype == half.model.dtype == torch.float32
    assert fingerprint(dict(whole.model.named_parameters())) == fingerprint(dict(half.model.named_parameters()))
    save_causal(folder.parent.parent / "again", half)
