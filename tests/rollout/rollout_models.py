"""Tiny models of every family, with weights large enough that their distributions are far from flat."""

import warnings

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

POSITIONS = 48


def make(family: str, vocabulary: int = 29, seed: int = 0, hidden: int = 16):
    """A model of the family, its weights the smaller the wider it is; `neox` is one that the lean step does not know,
    `mamba` and `rwkv` have another cache than it cuts rows from: one raises, the other would say nothing."""
    spread = 0.3 * (16 / hidden) ** 0.5
    common = dict(vocab_size=vocabulary, initializer_range=spread, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    body = dict(hidden_size=hidden, intermediate_size=hidden * 3 // 2, num_hidden_layers=2, num_attention_heads=4)
    grouped = dict(**common, **body, num_key_value_heads=2, max_position_embeddings=POSITIONS)
    gpt2 = dict(**common, n_embd=hidden, n_layer=2, n_head=2, n_positions=POSITIONS)
    llama3 = dict(
        rope_type="llama3",
        rope_theta=10000.0,
        factor=4.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=16,
    )
    small = dict(hidden_size=hidden, num_hidden_layers=2, max_position_embeddings=POSITIONS)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        makers = {
            "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**gpt2, scale_attn_by_inverse_layer_idx=True)),
            "llama": lambda: LlamaForCausalLM(LlamaConfig(**grouped, tie_word_embeddings=True)),
            "llama3": lambda: LlamaForCausalLM(
                LlamaConfig(**grouped, rope_parameters=llama3, attention_bias=True, mlp_bias=True)
            ),
            "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**grouped)),
            "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**grouped, head_dim=12)),
            "mistral": lambda: MistralForCausalLM(MistralConfig(**grouped, sliding_window=POSITIONS)),
            "mistral_window": lambda: MistralForCausalLM(MistralConfig(**grouped, sliding_window=4)),
            "mamba": lambda: MambaForCausalLM(MambaConfig(**common, **small, state_size=4)),
            "rwkv": lambda: RwkvForCausalLM(RwkvConfig(**common, **small, context_length=POSITIONS)),
            "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**common, **body, max_position_embeddings=POSITIONS)),
        }
        model = makers[family]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:  # else all 0 or 1, which hides a forgotten one
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.train()  # as a learner leaves it: engines must not sample with dropout
