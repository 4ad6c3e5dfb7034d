"""Hugging Face folders in and out, safetensors only, so that anything trained here is served anywhere.

A folder that cannot be read exactly as it was written is refused: missing, unexpected or newly initialised weights, and
scalar models whose golden scores come out otherwise, raise.
"""

import copy
import dataclasses
import difflib
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from assent.errors import ConfigError, ContractError
from assent.models.encoder import AnyEncoder
from assent.models.encoder_folders import encoder_from, has_score, is_encoder, read_encoder, save_encoder
from assent.models.forward import ScalarModel
from assent.models.placement import CPU, Placement, device_of, in_full, place, placement_of
from assent.models.prepare import check_head_path, embedding_weight, prepare
from assent.models.raw_scores import SCORE_OFFSET
from assent.models.reading import quiet, read_weights
from assent.models.tokenizer import closing_ids, load_tokenizer, require_served_alike, serving_pad, stop_ids
from assent.types import Sequences

GOLDEN = "golden.json"
GOLDEN_ROWS = 10
GOLDEN_TOLERANCE = 1e-3  # relative to the largest golden score; float32 on another machine moves it by about 1e-5
HALF_GOLDEN_TOLERANCE = 0.1  # the same in half precision


@dataclass(frozen=True, slots=True)
class CausalModel:
    """A language model with its tokenizer: one folder."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


AnyScalar = ScalarModel | AnyEncoder
"""A model with one score for a sequence: a decoder read at its last token, or an encoder read as a whole."""


@dataclass(frozen=True, slots=True)
class ScalarFolder:
    """A reward model or critic with its tokenizer: one folder."""

    scalar: AnyScalar
    tokenizer: PreTrainedTokenizerBase

    @property
    def bidirectional(self) -> bool:
        """An encoder: it reads prompt and response as a pair of texts, and has no value of a state."""
        return self.scalar.bidirectional

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """What closes a response: the end tokens of a language model, the separator of an encoder."""
        return closing_ids(self.tokenizer) if self.bidirectional else stop_ids(self.tokenizer)

    @property
    def critic(self) -> ScalarModel:
        """The scalar model where it can value a state.

        Raises:
            ContractError: it is an encoder.
        """
        if isinstance(self.scalar, ScalarModel):
            return self.scalar
        raise ContractError(
            "an encoder cannot be a critic",
            got=type(self.scalar.model).__name__,
            why="a critic values a state before its future is known, and an encoder reads the whole",
            fix="set critic: {start: policy} or {start: trunk}, or use an algorithm without a critic",
        )


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model to make from scratch.

    Args:
        family: a `model_type` of transformers with a causal language model: gpt2, llama, qwen2, qwen3, mistral, ...
        kwargs: arguments of the family's config class, such as hidden_size; its own defaults hold for the others.
        embedding_std: deviation of the token embeddings; None leaves the family's `initializer_range`.
    """

    family: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    embedding_std: float | None = None


# ------------------------------------------------------------------------------------------------ causal models


def load_causal(path: str | Path, *, dtype: torch.dtype = torch.float32, placement: Placement = CPU) -> CausalModel:
    """Read a folder, or a model of the hub by name, put it in its place and make it ready to train.

    Raises:
        ArtefactError: there is no such model, or its files cannot be read.
        ContractError: weights are missing, unexpected or of another shape, or the model cannot be trained on
        (`prepare`).
    """
    model = read_weights(AutoModelForCausalLM, path, dtype)
    tokenizer = load_tokenizer(path)
    _require_room(model, tokenizer)
    return CausalModel(_ready(model, placement), tokenizer)


def save_causal(folder: str | Path, causal: CausalModel) -> None:
    """Write weights, config, generation config and tokenizer; `load_causal` and any other server read the folder.

    Raises:
        ContractError: transformers would read the tokenizer by other rules (`tokenizer.require_served_alike`).
    """
    _name_tokens(causal.model.config, causal.tokenizer, pad_id=_own_pad(causal.tokenizer))
    causal.model.generation_config = _generation(causal.tokenizer)
    _write(folder, causal.model, causal.tokenizer)


def _write(folder: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    require_served_alike(folder, tokenizer)


def new_causal(
    shape: ModelShape, tokenizer: PreTrainedTokenizerBase, *, seed: int, placement: Placement = CPU
) -> CausalModel:
    """A freshly initialised model for this tokenizer's vocabulary; torch's global random state is left as it was.

    It is drawn on the CPU, so that a seed means the same weights on every device.

    Raises:
        ConfigError: unknown family, unknown argument, or values that the config class refuses.
        ContractError: transformers would read this tokenizer by other rules in a folder of this family.
    """
    config = _config(shape, len(tokenizer))
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        require_served_alike(folder, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The pad id is told only afterwards: with it, Llama-like models start that row at zero and never train it.
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if shape.embedding_std is not None:
            torch.nn.init.normal_(embedding_weight(model), std=shape.embedding_std)
    _name_tokens(model.config, tokenizer, pad_id=_own_pad(tokenizer))
    model.generation_config = _generation(tokenizer)
    try:
        return CausalModel(_ready(model, placement), tokenizer)
    except RuntimeError as error:
        raise ConfigError(
            f"a {shape.family} of this shape cannot run",
            got=dict(shape.kwargs),
            why=str(error).splitlines()[0],
            fix="make heads divide hidden_size, and num_key_value_heads divide num_attention_heads",
        ) from error


def _ready(model: PreTrainedModel, placement: Placement) -> PreTrainedModel:
    torch.nn.Module.to(model, placement.device)
    # Probed in full precision, whose tolerance finds what half precision would hide.
    prepare(model)
    check_head_path(model)
    place(model, placement)
    return model


def _require_room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = embedding_weight(model).shape[0]
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise ContractError(
            "the tokenizer has more tokens than the model has embeddings",
            got=f"token id {highest} for {rows} rows",
            why="such a token would be read outside the table",
            fix="use the tokenizer of this model, or resize its embeddings and train them",
        )


def _config(shape: ModelShape, vocab_size: int) -> PreTrainedConfig:
    if shape.family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        near = difflib.get_close_matches(shape.family, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, n=1)
        raise ConfigError(
            "no such family of causal language models",
            got=shape.family,
            why="transformers has no model class for it",
            fix=f"did you mean {near[0]}?" if near else "use gpt2, llama, qwen2, qwen3, mistral, ...",
        )
    config_class = CONFIG_MAPPING[shape.family]
    known = _config_names(config_class)
    for name in shape.kwargs:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"{config_class.__name__} has no argument of this name",
                got=name,
                why="transformers would keep it without using it, and the model would have another shape",
                fix=f"did you mean {near[0]}?" if near else f"use one of {', '.join(sorted(known))}",
            )
    try:
        return AutoConfig.for_model(
            shape.family,
            vocab_size=vocab_size,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
            **shape.kwargs,
        )
    except Exception as error:  # each config class raises its own
        raise ConfigError(
            f"{config_class.__name__} refuses these values",
            got=dict(shape.kwargs),
            why=str(error).strip(),
            fix="correct the value named above",
        ) from error


OURS = frozenset(("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id"))
"""Config arguments that follow from the tokenizer or the kind of model, so nobody can set them wrong."""


def _config_names(config_class: type[PreTrainedConfig]) -> set[str]:
    names = {f.name for f in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    if "rope_parameters" in names:
        names.add("rope_theta")
    return {n for n in names if not n.startswith("_")} - OURS


def _own_pad(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids(tokenizer)[-1])


def _name_tokens(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, *, pad_id: int | None) -> None:
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = pad_id


def _generation(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=list(stop_ids(tokenizer)), pad_token_id=_own_pad(tokenizer)
    )


# ------------------------------------------------------------------------------------------------ scalar models


def scalar_from_causal(causal: CausalModel, *, seed: int) -> ScalarFolder:
    """A reward model on a copy of the language model's trunk.

    The head is drawn from N(0, 1 / (d + 1)), d the hidden size (Stiennon et al. 2020, appendix B.1; InstructGPT
    follows it), and no other weight is drawn.

    Raises:
        ContractError: the family has no sequence-classification model, or its trunk is another one.
    """
    config = copy.deepcopy(causal.model.config)
    config.num_labels = 1
    setattr(config, SCORE_OFFSET, 0.0)
    try:
        with torch.random.fork_rng(devices=[]):
            model = AutoModelForSequenceClassification.from_config(config, dtype=causal.model.dtype)
        model.base_model.load_state_dict(causal.model.base_model.state_dict(), strict=True)
    except (ValueError, RuntimeError) as error:
        raise ContractError(
            "no scalar model can be made from this family",
            got=f"{type(causal.model).__name__}: {str(error).splitlines()[0]}",
            why="its score must be served by a sequence-classification model with the same trunk",
            fix="use a family with a ...ForSequenceClassification model, such as gpt2, llama, qwen2, qwen3, mistral",
        ) from error
    drawn = sorted(set(dict(model.named_parameters())) - {f"{model.base_model_prefix}.{n}" for n in _names(causal)})
    if drawn != ["score.weight"]:
        raise ContractError(
            "the scalar model has weights that the language model does not give it",
            got=", ".join(drawn),
            why="they would start at random without being meant to",
            fix="use a family whose classification head is one linear layer without bias",
        )
    head = model.score.weight
    noise = torch.randn(head.shape, generator=torch.Generator().manual_seed(seed)) / math.sqrt(head.shape[1] + 1)
    with torch.no_grad():
        head.copy_(noise)
    scalar = ScalarModel(model.to(device_of(causal.model)))
    place(scalar, placement_of(causal.model), model=model)
    return ScalarFolder(scalar, causal.tokenizer)


def scalar_from_encoder(
    path: str | Path, *, seed: int, dtype: torch.dtype = torch.float32, placement: Placement = CPU
) -> ScalarFolder:
    """A reward model on an encoder's folder or hub name, with a fresh head (`encoder_folders.encoder_from`)."""
    scalar = encoder_from(path, seed=seed, dtype=dtype)
    place(scalar, placement, model=scalar.model)
    return ScalarFolder(scalar, load_tokenizer(path))


def scalar_start(path: str | Path, *, seed: int, placement: Placement = CPU) -> ScalarFolder:
    """What a reward model is trained from: a reward model with its head, or a language model or encoder with a new one.

    Args:
        path: a folder or hub name.
        seed: of the new head, where one is drawn.
        placement: of the whole.

    Raises:
        ArtefactError: there is no such model.
        ContractError: no reward model can be made of it, or its weights are not whole.
    """
    encoder = is_encoder(path)
    if has_score(path):
        return load_scalar(path, placement=placement)
    if encoder:
        return scalar_from_encoder(path, seed=seed, placement=placement)
    return scalar_from_causal(load_causal(path, placement=placement), seed=seed)


def _names(causal: CausalModel) -> set[str]:
    return set(dict(causal.model.base_model.named_parameters()))


def load_scalar(path: str | Path, *, dtype: torch.dtype = torch.float32, placement: Placement = CPU) -> ScalarFolder:
    """Read a scalar model, ours or anybody's with one label, and check its golden scores if it has them.

    Raises:
        ArtefactError: there is no such model.
        ContractError: weights missing or unexpected; golden scores or their texts come out otherwise, or were removed.
    """
    scalar: AnyScalar
    if is_encoder(path):
        scalar = read_encoder(path, dtype)
    else:
        scalar = ScalarModel(read_weights(AutoModelForSequenceClassification, path, dtype))
    place(scalar, placement, model=scalar.model)
    loaded = ScalarFolder(scalar, load_tokenizer(path))
    golden = Path(path) / GOLDEN
    if golden.is_file():
        _check_golden(json.loads(golden.read_text("utf-8")), loaded, path)
    elif hasattr(scalar.model.config, SCORE_OFFSET) and Path(path).is_dir():
        raise ContractError(
            f"{GOLDEN} is gone from {path}",
            got="a scalar model saved by Assent without its golden scores",
            why="nothing proves that it still gives the scores that it was trained to give",
            fix="copy the whole folder, or save the model again",
        )
    return loaded


def save_scalar(folder: str | Path, saved: ScalarFolder, *, golden: Sequences) -> None:
    """Write the folder, with the scores of the first 10 of `golden` for `load_scalar` to check.

    The config's pad token is one that never ends a sequence, so that other servers find the last token; where the
    tokenizer has none it stays unset, and transformers refuses batches instead of scoring the wrong token
    (`tokenizer.serving_pad`).
    """
    model = saved.scalar.model
    setattr(model.config, SCORE_OFFSET, saved.scalar.offset)
    if isinstance(saved.scalar, ScalarModel):
        tokenizer = copy.deepcopy(saved.tokenizer)
        pad = serving_pad(tokenizer)
        if pad is not None:
            tokenizer.pad_token = pad
        _name_tokens(model.config, tokenizer, pad_id=None if pad is None else tokenizer.pad_token_id)
        _write(folder, model, tokenizer)
    else:
        save_encoder(Path(folder), saved.scalar)
        saved.tokenizer.save_pretrained(folder)
        require_served_alike(folder, saved.tokenizer)
    rows = golden.select(torch.arange(min(GOLDEN_ROWS, len(golden))))
    record = {"format": 1, "rows": _golden_rows(saved, rows)}
    (Path(folder) / GOLDEN).write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _golden_rows(saved: ScalarFolder, rows: Sequences) -> list[dict[str, Any]]:
    with torch.no_grad(), in_full(saved.scalar.model):
        scores = saved.scalar.last_scores(rows).tolist()
    ends = rows.lengths_B.tolist()
    return [
        {"prompt": ids[:start], "response": ids[start:end], "text": saved.tokenizer.decode(ids[:end]), "score": score}
        for ids, start, end, score in zip(
            rows.token_ids_BL.tolist(), rows.prompt_lengths_B.tolist(), ends, scores, strict=True
        )
    ]


def _check_golden(record: dict[str, Any], loaded: ScalarFolder, path: str | Path) -> None:
    want = record["rows"]
    rows = Sequences.of([r["prompt"] for r in want], [r["response"] for r in want])
    got = _golden_rows(loaded, rows)
    exact = loaded.scalar.model.dtype in (torch.float32, torch.float64)
    scale = max(1.0, *(abs(r["score"]) for r in want))
    tolerance = scale * (GOLDEN_TOLERANCE if exact else HALF_GOLDEN_TOLERANCE)
    for number, (is_, was) in enumerate(zip(got, want, strict=True)):
        # "not <=" and not ">", so that nan is refused.
        if not abs(is_["score"] - was["score"]) <= tolerance or is_["text"] != was["text"]:
            raise ContractError(
                f"golden row {number} of {path} comes out otherwise",
                got=f"score {is_['score']:.6g} for {was['score']:.6g}, "
                f"text {is_['text'][:40]!r} for {was['text'][:40]!r}",
                why="weights, head, offset or tokenizer are not those that were saved",
                fix="copy the whole folder again, or save the model again if the change was meant",
            )
