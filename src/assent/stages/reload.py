"""The other process of check D11: `python -m assent.stages.reload FOLDER DTYPE` loads what was saved and reads it."""

import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from assent.doctor.reload import FOUND
from assent.models.folders import CausalModel, ScalarFolder, load_causal, load_scalar
from assent.models.forward import token_outputs
from assent.types import Sequences

POLICY, SCALAR, ROWS = "policy", "scalar", "rows.pt"
"""What a probe's folder may hold: a language model, a scalar model, and the sequences to read."""


def policy_numbers(causal: CausalModel, sequences: Sequences) -> dict[str, Tensor]:
    """Log-probabilities of the tokens, and entropies, which every logit takes part in."""
    outputs = token_outputs(causal.model, sequences.to(causal.model.device), temperature=1.0)
    return {"log-probabilities": outputs.logprobs_BT.detach().cpu(), "entropies": outputs.entropy_BT.detach().cpu()}


def scalar_numbers(folder: ScalarFolder, sequences: Sequences) -> dict[str, Tensor]:
    """Scores and values."""
    there = sequences.to(folder.scalar.model.device)
    scores, values = folder.scalar.last_scores(there), folder.scalar.token_values(there)
    return {"scores": scores.detach().cpu(), "values": values.detach().cpu()}


def save_rows(folder: Path, sequences: Sequences) -> None:
    torch.save({f.name: getattr(sequences, f.name).cpu() for f in fields(sequences)}, folder / ROWS)


def numbers_of(folder: Path, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """Of everything that was saved in a probe's folder."""
    sequences = Sequences(**torch.load(folder / ROWS, weights_only=True))
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        if (folder / POLICY).is_dir():
            found |= policy_numbers(load_causal(folder / POLICY, dtype=dtype), sequences)
        if (folder / SCALAR).is_dir():
            found |= scalar_numbers(load_scalar(folder / SCALAR, dtype=dtype), sequences)
    return found


def main(folder: Path, dtype: str) -> None:
    os.nice(10)  # the training has the right of way
    torch.save(dict(numbers_of(folder, getattr(torch, dtype))), folder / FOUND)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
