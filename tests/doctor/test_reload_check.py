"""D11: a real second process on real folders, healthy and spoilt."""

from pathlib import Path

import pytest
import torch
from doctor_parts import TOKENIZER, language_model, ragged
from safetensors.torch import load_file, save_file

from assent.doctor.reload import Probe, compare
from assent.errors import CheckFailed
from assent.models.folders import save_scalar, scalar_from_causal
from assent.stages.reload import SCALAR, configuration, save_rows, scalar_numbers

FLOAT = torch.float32


def test_d11_refuses_a_head_that_is_not_saved(tmp_path: Path):
    """The loader would draw it anew: the new process refuses, and its words reach the reader."""
    folder, sequences = scalar_from_causal(language_model(), seed=0), ragged(4)
    save_rows(tmp_path, sequences)
    save_scalar(tmp_path / SCALAR, folder, golden=sequences)
    weights = tmp_path / SCALAR / "model.safetensors"
    kept = {n: t for n, t in load_file(weights).items() if "score" not in n}
    save_file(kept, weights, metadata={"format": "pt"})
    probe = Probe.start("assent.stages.reload", tmp_path, scalar_numbers(folder, sequences), dtype=FLOAT)
    with pytest.raises(CheckFailed, match=r"D11 failed(.|\n)*score.weight(.|\n)*drawn anew"):
        probe.finish()


def test_d11_refuses_other_numbers():
    expected = {"scores": torch.tensor([1.0, 2.0]), "values": torch.zeros(2, 3)}
    assert compare(expected, {n: t.clone() for n, t in expected.items()}, dtype=FLOAT).figure == 0
    redrawn = {**expected, "scores": torch.tensor([1.0, 2.01])}
    with pytest.raises(CheckFailed, match=r"scores differ by up to 0\.01"):
        compare(expected, redrawn, dtype=FLOAT)
    with pytest.raises(CheckFailed, match="gives no values"):
        compare(expected, {"scores": expected["scores"]}, dtype=FLOAT)
    with pytest.raises(CheckFailed):
        compare(expected, {**expected, "scores": torch.tensor([1.0, float("nan")])}, dtype=FLOAT)


def test_a_configuration_is_everything_but_the_numbers():
    one, other = language_model(1), language_model(2)
    assert configuration("policy", one.model, TOKENIZER) == configuration("policy", other.model, TOKENIZER)
    assert configuration("scalar", one.model, TOKENIZER) != configuration("policy", one.model, TOKENIZER)
    one.model.config.n_head = 2
    assert configuration("policy", one.model, TOKENIZER) != configuration("policy", other.model, TOKENIZER)
