"""The other process of check D11: it calls `main`, which loads what was saved and reads it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers import __version__ as TRANSFORMERS

from assent.doctor.reload import FOUND
from assent.models.folders import CausalModel, ScalarFolder, load_causal, load_scalar
from assent.models.forward import ScalarModel, token_outputs
from assent.models.raw_scores import RAW_SCORE, SCORE_OFFSET
from assent.models.tokenizer import tokenizer_hash
from assent.pipeline.artefact import code_version
from assent.types import PackedSequences, Sequences

POLICY, SCALAR, ROWS = "policy", "scalar", "rows.pt"
"""What a probe's folder may hold: a language model, a scalar model, and the sequences to read."""


def policy_numbers(causal: CausalModel, sequences: Sequences) -> dict[str, Tensor]:
    """Log-probabilities of the tokens, and entropies, which every logit takes part in."""
    outputs = token_outputs(causal.model, sequences, temperature=1.0)
    return {"log-probabilities": outputs.logprobs_BT.detach().cpu(), "entropies": outputs.entropy_BT.detach().cpu()}


def scalar_numbers(folder: ScalarFolder, sequences: Sequences) -> dict[str, Tensor]:
    """Scores, and values where the model has them."""
    found = {"scores": folder.scalar.last_scores(sequences)}
    if isinstance(folder.scalar, ScalarModel):
        found["values"] = folder.scalar.token_values(sequences)
    return {name: numbers.detach().cpu() for name, numbers in found.items()}


TOKENS = {"bos_token_id", "eos_token_id", "pad_token_id"}
VOLATILE = TOKENS | {"architectures", "transformers_version", "_name_or_path", SCORE_OFFSET, RAW_SCORE}
"""Parts of a config that saving sets, or that differ between two models which are saved and loaded alike."""


def configuration(kind: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """What decides whether a model of this kind can be saved and loaded: everything but the numbers in it."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in VOLATILE}
    what = [config, str(model.dtype), tokenizer_hash(tokenizer), code_version(), torch.__version__, TRANSFORMERS]
    return f"{kind} {hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]}"


def save_rows(folder: Path, sequences: Sequences) -> None:
    """The block itself; not what could be drawn, which is no matter of the files that are checked."""
    held = {f.name: getattr(sequences, f.name) for f in fields(sequences) if f.name != "kept"}
    torch.save({name: tensor.cpu() for name, tensor in held.items()}, folder / ROWS)


def numbers_of(folder: Path, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """Of everything that was saved in a probe's folder."""
    rows = torch.load(folder / ROWS, weights_only=True)
    sequences = PackedSequences(**rows) if "positions_BL" in rows else Sequences(**rows)
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        if (folder / POLICY).is_dir():
            found |= policy_numbers(load_causal(folder / POLICY, dtype=dtype), sequences)
        if (folder / SCALAR).is_dir():
            found |= scalar_numbers(load_scalar(folder / SCALAR, dtype=dtype), sequences)
    return found


def main(folder: str, dtype: str) -> None:
    torch.save(dict(numbers_of(Path(folder), getattr(torch, dtype))), Path(folder) / FOUND)
