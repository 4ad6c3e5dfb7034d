"""Direct alignment through its stage, on a tiny model with random weights and a file of pairs."""

import json
import math
from pathlib import Path

import pytest
import torch

from assent.errors import ConfigError
from assent.models.folders import load_causal
from assent.stages import align
from tests.end_to_end.own import make_data, make_policy
from tests.end_to_end.tiny import run_tiny

ALIGN = """
parameters: {start: null, data: null}
stages:
  dpo: &align
    do: align
    policy: "${start}"
    data: [{format: pairs, path: "${data}/pairs.jsonl"}]
    epochs: 3
    batch_size: 8
    held_out: 0.3
    optimization: {optimizer: {name: adamw, lr: 0.003}, checkpoint_seconds: 0}
    skip_checks: [D11]
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    make_data(folder, dialogues=False)
    make_policy(folder / "raw", "llama")
    return folder


def aligned(start: Path, folder: Path, *overrides: str):
    made, console = run_tiny(folder, f"start={start / 'raw'}", f"data={start}", *overrides, text=ALIGN)
    lines = (made["dpo"].folder / "metrics.jsonl").read_text().splitlines()
    return made["dpo"], [json.loads(line) for line in lines], console.said


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_causal(folder).model.state_dict()


def test_dpo_begins_at_ln_2_and_learns_the_pairs(start, tmp_path):
    made, lines, said = aligned(start, tmp_path)
    assert lines[0]["loss/preference"] == pytest.approx(math.log(2), abs=1e-5)
    assert lines[0]["logprobs/chosen_shift"] == pytest.approx(0.0, abs=1e-4)
    assert lines[-1]["loss/preference"] < lines[0]["loss/preference"]
    assert lines[-1]["implicit_reward/accuracy"] > 0.8
    checks = {c["name"]: c["outcome"] for c in json.loads((made.folder / "first_batch.json").read_text())["checks"]}
    assert checks == {"D8": "passed", "D5": "passed", "D2": "passed", "D7": "passed", "D11": "skipped"}
    figures = made.metrics
    assert 0 <= figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"] <= 1
    assert figures["held_out_pairs"] > 0 and figures["training_pairs"] > figures["held_out_pairs"]
    assert any("reference log-probabilities of" in line and "once" in line for line in said)
    before, after = weights(start / "raw"), weights(made.folder / "model")
    assert any(not torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("name", ["ipo", "simpo", "orpo"])
def test_every_loss_trains_and_only_those_with_a_reference_read_one(start, tmp_path, name):
    _, lines, said = aligned(start, tmp_path, f"stages.dpo.algorithm={{name: {name}}}")
    assert lines[-1]["loss/preference"] < lines[0]["loss/preference"]
    assert any("reference log-probabilities" in line for line in said) == (name == "ipo")
    assert ("logprobs/chosen_shift" in lines[0]) == (name == "ipo")


def test_a_named_reference_is_read_and_its_distance_reported(start, tmp_path):
    other, _, _ = aligned(start, tmp_path / "other")
    made, lines, _ = aligned(start, tmp_path / "run", f"stages.dpo.reference={other.folder / 'model'}")
    checks = {c["name"]: c for c in json.loads((made.folder / "first_batch.json").read_text())["checks"]}
    assert checks["D5"]["outcome"] == "passed" and "another model" in checks["D5"]["detail"]
    assert abs(lines[0]["logprobs/chosen_shift"]) > 1e-3


def test_a_reference_that_nothing_reads_is_refused(start, tmp_path):
    with pytest.raises(ConfigError, match="simpo has no reference"):
        aligned(start, tmp_path, "stages.dpo.algorithm={name: simpo}", f"stages.dpo.reference={start / 'raw'}")


class Interrupted(Exception):
    """Stands for a kill."""


def test_an_interrupted_run_reads_its_reference_back_and_ends_with_the_same_bits(start, tmp_path, monkeypatch):
    whole, lines, _ = aligned(start, tmp_path / "whole")
    real = align.offline

    def cut(source, algorithm, learner, tracker, checkpoint):
        class Cut:
            def restore(self):
                return checkpoint.restore()

            def after_step(self, done):
                checkpoint.after_step(done)
                if done == 2:
                    raise Interrupted

        real(source, algorithm, learner, tracker, Cut())

    monkeypatch.setattr(align, "offline", cut)
    with pytest.raises(Interrupted):
        aligned(start, tmp_path / "cut")
    monkeypatch.setattr(align, "offline", real)
    again, lines_again, said = aligned(start, tmp_path / "cut")
    assert any("computed before, read back" in line for line in said)
    assert lines_again == lines and again.metrics == whole.metrics
    one, other = weights(whole.folder / "model"), weights(again.folder / "model")
    assert all(torch.equal(one[n], other[n]) for n in one)
