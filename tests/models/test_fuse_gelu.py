"""GELU in one piece: the same states and gradients, fewer tensors kept."""

import copy

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import GELUTanh, NewGELUActivation

from assent.models.prepare import fuse_gelu


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
    fuse_gelu(fused)
    assert kinds(written_out).count(NewGELUActivation) == 2
    assert kinds(fused).count(NewGELUActivation) == 0
    assert kinds(fused).count(GELUTanh) == 2
    for a, b in zip(gradients(written_out), gradients(fused), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_config_still_names_the_function():
    model = model_of("gelu_new")
    fuse_gelu(model)
    assert model.config.activation_function == "gelu_new"


def test_the_exact_gelu_and_others_stay():
    for activation in ("gelu", "relu"):
        model = model_of(activation)
        before = kinds(model)
        fuse_gelu(model)
        assert kinds(model) == before
