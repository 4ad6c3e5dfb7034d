"""Folders of encoders: which they are, how one becomes a reward model, and how it is written and read again.

Two layouts, as encoders come. A folder of sentence-transformers (`modules.json`) is a bare encoder with its pooling; a
reward model made of it is the same with a `Dense` module of one output, which sentence-transformers reads. Any other
encoder gets its family's own `...ForSequenceClassification` head, which every server of transformers reads.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from assent.errors import ContractError
from assent.models.encoder import AnyEncoder, ClassifierEncoder, PooledEncoder, Pooling
from assent.models.reading import quiet, read_weights, unreadable

MODULES, POOLING, DENSE = "modules.json", "1_Pooling", "2_Dense"
"""Files and folders of sentence-transformers."""

KINDS: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def is_encoder(path: str | Path) -> bool:
    """Whether a folder or hub name is an encoder: trained to fill in masks, and not set up as a decoder.

    Raises:
        ArtefactError: there is no such model.
        ContractError: it is neither an encoder nor a decoder-only language model.
    """
    try:
        with quiet():
            config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if getattr(config, "is_encoder_decoder", False):
        kind = "an encoder-decoder"
    elif config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return not getattr(config, "is_decoder", False)
    elif config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return False
    else:
        kind = "neither a decoder nor an encoder of text"
    raise ContractError(
        "no reward model can be made of this model",
        got=f"{path}: model type {config.model_type!r}, {kind}",
        why="its score would be read at a place that it does not have",
        fix="use a decoder-only language model (gpt2, llama, qwen2, ...) or an encoder (bert, roberta, ...)",
    )


def has_score(path: str | Path) -> bool:
    """Whether a folder or hub name is a scalar model already: it has a head with one output."""
    if (Path(path) / DENSE).is_dir():
        return True
    config = AutoConfig.from_pretrained(path)
    named = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    return named and config.num_labels == 1


def encoder_from(path: str | Path, *, seed: int, dtype: torch.dtype = torch.float32) -> AnyEncoder:
    """An encoder with a fresh head, drawn from N(0, 1 / (d + 1)) as a decoder's is, its bias 0.

    Raises:
        ArtefactError: there is no such model.
        ContractError: weights other than the head's are missing, or a pooling that is neither mean nor first token.
    """
    if (Path(path) / MODULES).is_file():
        model = read_weights(AutoModel, path, dtype, replaced=_is_pooler)
        head = nn.Linear(model.config.hidden_size, 1)
        fresh: AnyEncoder = PooledEncoder(model, head, _pooling(Path(path)))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            prefix = AutoModelForSequenceClassification.from_config(
                AutoConfig.from_pretrained(path, num_labels=1)
            ).base_model_prefix
            model = read_weights(
                AutoModelForSequenceClassification,
                path,
                dtype,
                replaced=lambda name: not name.startswith(f"{prefix}.") or _is_pooler(name),
                num_labels=1,
            )
        fresh = ClassifierEncoder(model)
    _draw(fresh.head, seed)
    return fresh


def _is_pooler(name: str) -> bool:
    return "pooler." in name


@torch.no_grad()
def _draw(head: nn.Linear, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    head.weight.copy_(torch.randn(head.weight.shape, generator=generator) / math.sqrt(head.in_features + 1))
    head.bias.zero_()


def _pooling(folder: Path) -> Pooling:
    """Raises ContractError where texts are pooled by neither mean nor first token, or by several at once."""
    said = json.loads((folder / POOLING / "config.json").read_text("utf-8"))
    on = [name for name, value in said.items() if name.startswith("pooling_mode") and value]
    if len(on) != 1 or on[0] not in KINDS:
        raise ContractError(
            "the encoder pools its states in a way that is not known here",
            got=", ".join(on) or "none",
            why="its vectors mean what they do only under the pooling that it was trained with",
            fix=f"use an encoder with one of: {', '.join(KINDS)}",
        )
    return KINDS[on[0]]


def save_encoder(folder: Path, scalar: AnyEncoder) -> None:
    """Weights and config, and for a pooled one what sentence-transformers reads beside."""
    with quiet():
        scalar.model.save_pretrained(folder)
    if isinstance(scalar, ClassifierEncoder):
        return
    width = scalar.head.in_features
    modes = {name: pooling == scalar.pooling for name, pooling in KINDS.items()}
    dense = {"in_features": width, "out_features": 1, "bias": True}
    _write_json(folder / POOLING / "config.json", {"word_embedding_dimension": width, **modes})
    _write_json(folder / DENSE / "config.json", {**dense, "activation_function": "torch.nn.modules.linear.Identity"})
    weights = {"linear.weight": scalar.head.weight.detach(), "linear.bias": scalar.head.bias.detach()}
    save_file({n: w.contiguous().cpu() for n, w in weights.items()}, folder / DENSE / "model.safetensors")
    parts = (("", "Transformer"), (POOLING, "Pooling"), (DENSE, "Dense"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(parts)
    ]
    _write_json(folder / MODULES, modules)


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def read_encoder(path: str | Path, dtype: torch.dtype) -> AnyEncoder:
    """An encoder reward model as it was saved.

    Raises:
        ArtefactError: there is no such model.
        ContractError: weights missing or unexpected, or no head of one output.
    """
    folder = Path(path)
    if not (folder / MODULES).is_file():
        return ClassifierEncoder(read_weights(AutoModelForSequenceClassification, path, dtype))
    dense = folder / DENSE / "model.safetensors"
    if not dense.is_file():
        raise ContractError(
            "the encoder has no head with one output",
            got=f"{path}: no {DENSE}/model.safetensors",
            why="it makes vectors and no scores",
            fix="train it first: `do: reward_model` with this folder as its model",
        )
    model: PreTrainedModel = read_weights(AutoModel, path, dtype)
    weights = load_file(dense)
    head = nn.Linear(weights["linear.weight"].shape[1], 1, dtype=torch.float32)
    with torch.no_grad():
        head.weight.copy_(weights["linear.weight"])
        head.bias.copy_(weights["linear.bias"])
    return PooledEncoder(model, head, _pooling(folder))
