"""Tiny encoders with random weights, as folders: BERT with its masked head, and one of sentence-transformers."""

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["why", "is", "it", "so", "not", "because", "the", "kettle", "broke", "no", "yes", ".", "?", ","]
SHAPE = dict(
    vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
    max_position_embeddings=40,
)  # fmt: skip


def tokenizer(folder: Path) -> BertTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return BertTokenizer.from_pretrained(folder)


def masked(folder: Path) -> Path:
    """As BERT is published: with a head that fills in masks, and no pooler."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = BertForMaskedLM(BertConfig(**SHAPE, initializer_range=0.3))
    model.save_pretrained(folder)
    tokenizer(folder).save_pretrained(folder)
    return folder


def pooled(folder: Path, mode: str = "pooling_mode_mean_tokens") -> Path:
    """As sentence-transformers publishes encoders."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = BertModel(BertConfig(**SHAPE, initializer_range=0.3))
    model.save_pretrained(folder)
    tokenizer(folder).save_pretrained(folder)
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **modes, mode: True}))
    return folder
