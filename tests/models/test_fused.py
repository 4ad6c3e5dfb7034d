"""Parts run in fewer operations: the same states and gradients, names and weights, fewer tensors kept."""

import copy

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.activations import GELUTanh, NewGELUActivation
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from assent.models.fused import RMSNorm, fuse
from assent.models.prepare import prepare


def model_of(activation: str) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = dict(n_layer=2, n_embd=16, n_head=2, vocab_size=31, n_positions=16, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(GPT2Config(**shape, activation_function=activation)).eval()


def kinds(model: torch.nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


def gradients(model: GPT2LMHeadModel) -> list[torch.Tensor]:
    ids = torch.randint(31, (3, 9), generator=torch.Generator().manual_seed(1))
    model(input_ids=ids, labels=ids).loss.backward()
    return [p.grad for p in model.parameters()]


def test_states_and_gradients_are_the_same_to_rounding():
    written_out = model_of("gelu_new").double()
    fused = copy.deepcopy(written_out)
    fuse(fused)
    assert kinds(written_out).count(NewGELUActivation) == 2
    assert kinds(fused).count(NewGELUActivation) == 0
    assert kinds(fused).count(GELUTanh) == 2
    for a, b in zip(gradients(written_out), gradients(fused), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_config_still_names_the_function():
    model = model_of("gelu_new")
    fuse(model)
    assert model.config.activation_function == "gelu_new"


def test_the_exact_gelu_and_others_stay():
    for activation in ("gelu", "relu"):
        model = model_of(activation)
        before = kinds(model)
        fuse(model)
        assert kinds(model) == before


SHAPE = dict(
    vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, head_dim=4,
    num_key_value_heads=2, max_position_embeddings=32, bos_token_id=0, eos_token_id=0, pad_token_id=0,
)  # fmt: skip
NORMED = {
    "llama": (LlamaForCausalLM, LlamaConfig, 5),
    "mistral": (MistralForCausalLM, MistralConfig, 5),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, 5),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, 9),  # those of queries and keys too
    "olmo2": (Olmo2ForCausalLM, Olmo2Config, 9),
}


def normed(family: str) -> torch.nn.Module:
    """Random weights of the norms too: ones would hide a weight left out."""
    torch.manual_seed(0)
    model_type, config_type, _ = NORMED[family]
    model = model_type(config_type(**SHAPE)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("family", NORMED)
def test_rms_norms_give_the_same_states_gradients_and_names(family):
    model = normed(family)
    fused = copy.deepcopy(model)
    fuse(fused)
    assert kinds(fused).count(RMSNorm) == NORMED[family][2]
    assert [n for n, _ in fused.named_parameters()] == [n for n, _ in model.named_parameters()]
    for (name, a), b in zip(model.state_dict().items(), fused.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(gradients(model), gradients(fused), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-6)


def test_the_written_out_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    x = (3 * torch.randn(5, 7)).requires_grad_()
    weight = torch.nn.Parameter(torch.randn(7))
    norm = RMSNorm(weight, eps=0.1)
    assert torch.autograd.gradcheck(norm._in_one_piece, (x.double(), weight.double()))


def test_an_all_but_silent_position_is_finite():
    norm = RMSNorm(torch.nn.Parameter(torch.ones(8)), eps=1e-6)
    x = torch.zeros(2, 8, requires_grad=True)
    norm(x).sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0  # the written-out form gives 1/sqrt(eps) too


def test_frozen_weights_and_inputs_get_no_gradient():
    weight = torch.nn.Parameter(torch.ones(4), requires_grad=False)
    x = torch.randn(3, 4, requires_grad=True)
    RMSNorm(weight, 1e-6)(x).sum().backward()
    assert weight.grad is None and x.grad is not None
    weight.requires_grad_(True)
    RMSNorm(weight, 1e-6)(x.detach()).sum().backward()
    assert weight.grad is not None


def test_half_precision_rounds_as_the_module_replaced():
    torch.manual_seed(0)
    theirs = LlamaRMSNorm(16, eps=1e-5).bfloat16()
    with torch.no_grad():
        theirs.weight.uniform_(0.5, 1.5)
    x = torch.randn(4, 16).bfloat16()
    assert torch.equal(RMSNorm(theirs.weight, 1e-5)(x), theirs(x))


def test_a_norm_that_adds_one_to_its_weights_is_left():
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**SHAPE, sliding_window=8)).eval()
    before = kinds(model)
    fuse(model)
    assert kinds(model) == before


def test_prepared_models_have_it():
    model = normed("llama")
    prepare(model)
    assert kinds(model).count(RMSNorm) == NORMED["llama"][2]


def test_the_input_and_one_number_a_position_are_kept():
    """The written-out form keeps the normed states too."""

    def kept(norm: torch.nn.Module) -> int:
        slots: list[int] = []

        def count(tensor: torch.Tensor) -> torch.Tensor:
            slots.append(0 if tensor is norm.weight else tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            norm(torch.randn(10, 16, requires_grad=True) * 1)
        return sum(slots)

    theirs = LlamaRMSNorm(16)
    assert kept(RMSNorm(theirs.weight, 1e-6)) <= 10 * 16 + 10 < kept(theirs)
