"""Tiny models of every family, made here, and a tokenizer trained here."""

import pytest
import torch

from assent.models.folders import CausalModel, ModelShape, new_causal
from assent.models.tokenizer import SpecialTokens, train_bpe
from assent.types import Sequences

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
GATED = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 40}
FAMILIES = {
    "gpt2": SMALL,
    "llama": {**GATED, "tie_word_embeddings": True},
    "qwen2": GATED,
    "qwen3": {**GATED, "head_dim": 6},
    "mistral": GATED,
}
CORPUS = [
    "the kettle is broken and the customer is not amused",
    "please send back the kettle, and we will send another one",
    "Grüße aus Köln: 3,50 € für 2 Kessel; 你好，水壶坏了",
] * 5


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    return CORPUS


@pytest.fixture(scope="session")
def tokenizer():
    return train_bpe(CORPUS, vocab_size=300, special_tokens=SpecialTokens())


@pytest.fixture(scope="session")
def causal_models(tokenizer) -> dict[str, CausalModel]:
    """One model per family, with weights large enough that every token matters. Copy before changing one."""
    return {
        family: new_causal(ModelShape(family, {**kwargs, "initializer_range": 0.2}), tokenizer, seed=1)
        for family, kwargs in FAMILIES.items()
    }


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def causal(causal_models, family) -> CausalModel:
    return causal_models[family]


@pytest.fixture(scope="session")
def rows() -> tuple[list[list[int]], list[list[int]]]:
    """Ragged prompts and responses; id 0 is the end token and, in padding, the number of nothing."""
    generator = torch.Generator().manual_seed(3)
    sizes = [(3, 5), (7, 1), (1, 9), (4, 4)]
    prompts = [torch.randint(1, 300, (p,), generator=generator).tolist() for p, _ in sizes]
    responses = [torch.randint(1, 300, (r,), generator=generator).tolist() for _, r in sizes]
    responses[0][-1] = responses[1][-1] = responses[2][4] = 0
    return prompts, responses


@pytest.fixture(scope="session")
def sequences(rows) -> Sequences:
    return Sequences.of(*rows)
