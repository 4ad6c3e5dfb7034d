"""Models and data of one's own, made on the spot: small Hugging Face folders, messages and pairs in JSON lines."""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from assent.models.folders import ModelShape, new_causal, save_causal
from assent.models.tokenizer import CHATML, CHATML_TOKENS, SpecialTokens, train_bpe

QUESTIONS = [f"Is the {thing} {state}?" for thing in ("kettle", "fan", "lamp", "radio") for state in
             ("new", "red", "loud", "cheap", "heavy", "broken")]  # fmt: skip
GOOD, BAD = "Yes, gladly.", "No idea, go away."
TEXTS = [*QUESTIONS, GOOD, BAD, "This film was good. I liked the film.", "Nobody liked it; it was bad."] * 4

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 96}
GATED = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48}
SHAPES = {"gpt2": SIZES, "llama": {**GATED, "tie_word_embeddings": True}, "qwen2": GATED,
          "qwen3": {**GATED, "head_dim": 8}}  # fmt: skip
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
SPEECH = {
    "gpt2": (SpecialTokens(pad=None), None, None),
    "llama": (SpecialTokens(end="<|end_of_text|>", begin="<|begin_of_text|>", extra=HEADERS), LLAMA3, "<|eot_id|>"),
    "qwen2": (SpecialTokens(extra=CHATML_TOKENS), CHATML, "<|im_end|>"),
    "qwen3": (SpecialTokens(extra=CHATML_TOKENS), CHATML, "<|im_end|>"),
}
"""Special tokens, chat template and end of turn of each family; GPT-2 has neither of the last two."""


def make_policy(folder: Path, family: str, *, vocabulary: int = 340) -> Path:
    special, template, _ = SPEECH[family]
    tokenizer = train_bpe(TEXTS, vocab_size=vocabulary, special_tokens=special, chat_template=template)
    shape = ModelShape(family, {**SHAPES[family], "initializer_range": 0.1})
    save_causal(folder, new_causal(shape, tokenizer, seed=1))
    return folder


def make_classifier(folder: Path) -> Path:
    """A DistilBERT with a tokenizer of its own, which frames every text; its weights are random, its labels are not."""
    special = SpecialTokens(end="[SEP]", begin="[CLS]", pad="[PAD]")
    tokenizer = train_bpe(TEXTS, vocab_size=290, special_tokens=special)
    sizes = {"dim": 24, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 256}
    labels = {0: "NEGATIVE", 1: "POSITIVE"}
    config = AutoConfig.for_model(
        "distilbert",
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        id2label=labels,
        initializer_range=0.3,
        **sizes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def turn(question: str) -> list[dict]:
    return [{"role": "user", "content": question}]


def make_data(folder: Path, *, dialogues: bool) -> None:
    """messages.jsonl, pairs.jsonl and tasks.jsonl: everybody prefers the friendly answer."""
    asked = turn if dialogues else lambda question: question
    answer = {"role": "assistant", "content": GOOD}
    demonstrations = [{"messages": [*turn(q), answer], "prompt": q, "response": " " + GOOD} for q in QUESTIONS]
    write_lines(folder / "messages.jsonl", demonstrations)
    pairs = [{"prompt": asked(q), "chosen": GOOD, "rejected": BAD} for q in QUESTIONS]
    write_lines(folder / "pairs.jsonl", pairs)
    write_lines(folder / "tasks.jsonl", [{"prompt": asked(q)} for q in QUESTIONS])
