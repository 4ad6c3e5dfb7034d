"""The work that both sides are given: models, a tokenizer and token ids in a folder. Needs torch and transformers.

    python benchmarks/peers/workload.py FOLDER --size S --family gpt2

Sizes: S = 4 layers of 160, vocabulary 2048; M = 6 layers of 384, vocabulary 8192. Prompts of 16 to 64 tokens, responses
of 8 + Exp(38) tokens, at most 128; a model's own responses end with probability 1/48 at each token. Weights are random,
and made here once for both sides; fp32, no dropout.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

SIZES = {"S": (4, 160, 4, 2048), "M": (6, 384, 6, 8192)}
"""Layers, width, heads, vocabulary."""

END, LONGEST, ROWS = 0, 128, 768
END_RATE = 1 / 48


def config_of(size: str, family: str):
    layers, width, heads, vocabulary = SIZES[size]
    ends = dict(bos_token_id=END, eos_token_id=END, pad_token_id=1, vocab_size=vocabulary)
    if family == "gpt2":
        none = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, summary_first_dropout=0.0)
        return GPT2Config(n_layer=layers, n_embd=width, n_head=heads, n_positions=512, **ends, **none)
    shape = dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads)
    inner = width * 8 // 3 // 16 * 16
    return LlamaConfig(**shape, intermediate_size=inner, max_position_embeddings=512, tie_word_embeddings=True, **ends)


def ending(model, rate: float) -> None:
    """Give the end token this probability at a typical state: a direction that all states share points at it."""
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        direction = torch.nn.functional.normalize(torch.randn(table.shape[1]), dim=0)
        table += direction
        low, high = 0.0, 4.0
        before = table[END].clone()
        tokens = torch.randint(2, table.shape[0], (8, 40))
        for _ in range(30):
            middle = (low + high) / 2
            table[END] = before + middle * direction
            share = model(tokens).logits[:, 8:].softmax(-1)[..., END].mean().item()
            low, high = (middle, high) if share < rate else (low, middle)


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """One word a token, so that text and ids say the same on both sides."""
    words = {"<end>": END, "<pad>": 1} | {f"w{i}": i for i in range(2, vocabulary)}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<pad>", bos_token="<end>")


def rows_of(vocabulary: int, prompt: tuple[int, int], count: int, completions: int) -> list[dict]:
    g = torch.Generator().manual_seed(1)

    def tokens(n: int) -> list[int]:
        return torch.randint(2, vocabulary, (n,), generator=g).tolist()

    rows = []
    for _ in range(count):
        size = int(torch.randint(prompt[0], prompt[1] + 1, (1,), generator=g))
        spans = -38 * torch.rand(completions, generator=g).log()
        answers = [[*tokens(min(LONGEST - 1, 7 + int(n))), END] for n in spans]
        rows.append({"prompt": tokens(size), "responses": answers})
    return rows


def given(rows: list[dict], place: int, k: int) -> list[int]:
    """The k-th response to the prompt of a row, where both sides shall learn from the same ones."""
    answer: list[int] = rows[(place + k) % len(rows)]["responses"][0]
    return answer


def build(folder: Path, size: str, family: str, *, prompt: tuple[int, int] = (16, 64)) -> Path:
    """The folder, made once: `policy`, `reward`, `rows.json`."""
    if (folder / "rows.json").exists():
        return folder
    torch.manual_seed(0)
    config = config_of(size, family)
    tokenizer = tokenizer_of(config.vocab_size)
    policy = AutoModelForCausalLM.from_config(config)
    ending(policy, END_RATE)
    config.num_labels = 1
    reward = AutoModelForSequenceClassification.from_config(config)
    reward.base_model.load_state_dict(policy.base_model.state_dict())
    for name, model in {"policy": policy, "reward": reward}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = rows_of(config.vocab_size, prompt, ROWS, 4)
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="S")
    parser.add_argument("--family", choices=("gpt2", "llama"), default="gpt2")
    parser.add_argument("--prompt", type=int, nargs=2, default=(16, 64))
    options = parser.parse_args()
    build(options.folder, options.size, options.family, prompt=tuple(options.prompt))
