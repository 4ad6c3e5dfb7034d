"""Direct alignment through its stage, on a tiny model with random weights and a file of pairs."""

import json
import math
from pathlib import Path

import pytest
import torch

from assent.algorithms.dpo import DPO
from assent.errors import ConfigError, DataError
from assent.models.folders import load_causal
from assent.pipeline.recipe import parse_recipe
from assent.stages import TABLE, align
from tests.end_to_end.own import BAD, GOOD, QUESTIONS, make_data, make_policy, turn, write_lines
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


def aligned(start: Path, folder: Path, *overrides: str, data: Path | None = None, kind: str = "pairs"):
    """The stage on `data`, whose format is `kind`; on the pairs of `make_data` when None."""
    text = ALIGN.replace("format: pairs", f"format: {kind}").replace("pairs.jsonl", f"{data.name}") if data else ALIGN
    where = f"data={data.parent if data else start}"
    made, console = run_tiny(folder, f"start={start / 'raw'}", where, *overrides, text=text)
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


ON_PAIRS = ["robust_dpo", "ipo", "hinge", "apo_zero", "apo_down", "simpo", "cpo", "orpo"]
WITHOUT_REFERENCE = ["simpo", "cpo", "orpo"]


@pytest.mark.parametrize("name", ON_PAIRS)
def test_every_loss_trains_and_only_those_with_a_reference_read_one(start, tmp_path, name):
    made, lines, said = aligned(start, tmp_path, f"stages.dpo.algorithm={{name: {name}}}")
    assert lines[-1]["loss/preference"] < lines[0]["loss/preference"]
    assert any("reference log-probabilities" in line for line in said) == (name not in WITHOUT_REFERENCE)
    assert ("logprobs/chosen_shift" in lines[0]) == (name not in WITHOUT_REFERENCE)
    checks = {c["name"]: c["outcome"] for c in json.loads((made.folder / "first_batch.json").read_text())["checks"]}
    assert checks["D7"] == checks["D8"] == "passed" and ("D5" in checks) == (name not in WITHOUT_REFERENCE)


@pytest.mark.parametrize("name", ["kto", "bco"])
def test_pairs_are_judgements_of_single_responses_too(start, tmp_path, name):
    made, lines, said = aligned(start, tmp_path, f"stages.dpo.algorithm={{name: {name}, beta: 0.5}}")
    assert lines[-1]["loss/preference"] < lines[0]["loss/preference"]
    assert lines[0]["loss/preference"] == pytest.approx({"kto": 0.5, "bco": math.log(2)}[name], abs=1e-4)
    assert lines[-1]["implicit_reward/desirable"] > lines[-1]["implicit_reward/undesirable"]
    baseline = [line[{"kto": "baseline/kl", "bco": "baseline/reward"}[name]] for line in lines]
    assert baseline[0] == pytest.approx(0.0, abs=1e-3) and any(abs(b) > 1e-3 for b in baseline)
    checks = {c["name"]: c["outcome"] for c in json.loads((made.folder / "first_batch.json").read_text())["checks"]}
    assert checks == {"D8": "passed", "D5": "passed", "D2": "passed", "D7": "passed", "D11": "skipped"}
    assert made.metrics["accuracy"] > 0.8 and made.metrics["training_desirable"] == made.metrics["training_undesirable"]
    assert not any("warning: desirable" in line for line in said)


def thumbs(start: Path, folder: Path, *overrides: str, good: int, bad: int):
    rows = [{"prompt": q, "completion": GOOD, "label": True} for q in QUESTIONS[:good]]
    rows += [{"prompt": q, "completion": BAD, "label": False} for q in QUESTIONS[24 - bad :]]
    folder.mkdir()
    data = write_lines(folder / "thumbs.jsonl", rows)
    algorithm = overrides or ("stages.dpo.algorithm={name: kto, beta: 0.5}",)
    return aligned(start, folder / "run", *algorithm, data=data, kind="unpaired")


def test_thumbs_are_read_and_their_imbalance_is_said_with_its_cure(start, tmp_path):
    made, lines, said = thumbs(start, tmp_path / "uneven", good=24, bad=8)
    assert lines[-1]["implicit_reward/desirable"] > lines[-1]["implicit_reward/undesirable"]
    good, bad = made.metrics["training_desirable"], made.metrics["training_undesirable"]
    (warning,) = [line for line in said if line.startswith("warning: desirable")]
    assert f"set undesirable_weight to between {good / bad * 3 / 4:.3g} and {good / bad:.3g}" in warning
    weight = f"stages.dpo.algorithm={{name: kto, beta: 0.5, undesirable_weight: {good / bad * 0.9}}}"
    _, _, said = thumbs(start, tmp_path / "weighed", weight, good=24, bad=8)
    assert not any(line.startswith("warning: desirable") for line in said)


def test_a_loss_on_pairs_refuses_thumbs_and_kto_needs_both_kinds(start, tmp_path):
    with pytest.raises(DataError, match="take kto or bco"):
        thumbs(start, tmp_path / "pairs", "stages.dpo.algorithm={name: ipo}", good=24, bad=24)
    with pytest.raises(DataError, match="must be of both kinds"):
        thumbs(start, tmp_path / "one", good=24, bad=0)


def test_dpo_is_what_no_name_means(start):
    def read(text: str):
        return parse_recipe(ALIGN, TABLE, ["start=a/b", "data=c/d", f"stages.dpo.algorithm={text}"])

    recipe = read("{beta: 0.2}")
    assert recipe.stages["dpo"].algorithm == DPO(beta=0.2)
    assert parse_recipe(recipe.to_yaml(), TABLE).stages == recipe.stages
    with pytest.raises(ConfigError, match="did you mean 'kto'"):
        read("{name: ktoo}")
    with pytest.raises(ConfigError, match="did you mean 'flip_probability'"):
        read("{name: robust_dpo, flip_probabilty: 0.1}")


OWN = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.types import Loss, Mean


@dataclass(frozen=True)
class Squared:
    uses_reference: ClassVar[bool] = True
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False
    name: str = "squared"
    margin: float = 1.0

    def loss(self, batch, forward):
        chosen, rejected = batch.sides(self.implicit_rewards(batch, forward))
        per_pair = (chosen - rejected - self.margin).square()
        return Loss(per_pair, torch.ones_like(per_pair, dtype=torch.bool), {"user/squared": Mean.of(per_pair)})

    def implicit_rewards(self, batch, forward):
        sums = torch.where(batch.sequences.mask_BT, forward.logprobs(batch.sequences), 0.0).sum(1)
        return sums - batch.ref_logprobs_B


@dataclass(frozen=True)
class Incomplete:
    name: str = "incomplete"
"""


def test_a_loss_of_ones_own_is_named_by_path(start, tmp_path, monkeypatch):
    (tmp_path / "loss_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = "stages.dpo.algorithm={path: 'loss_of_mine:Squared', margin: 2.0}"
    made, lines, _ = aligned(start, tmp_path / "run", own)
    assert lines[0]["user/squared"] == pytest.approx(4.0, abs=1e-3) and lines[-1]["user/squared"] < 3.0
    assert made.metrics["accuracy"] > 0.8
    with pytest.raises(ConfigError, match=r"lacks uses_reference .* loss .*implicit_rewards"):
        aligned(start, tmp_path / "no", "stages.dpo.algorithm={path: 'loss_of_mine:Incomplete'}")


def test_another_algorithm_on_the_same_responses_reads_the_reference_back(start, tmp_path):
    """DPO computes; IPO, KTO and a second DPO read the judged responses back, and KTO's mismatched ones are its own."""
    text = ALIGN
    for name in ("ipo", "kto"):
        text += f"  {name}: {{<<: *align, algorithm: {{name: {name}}}}}\n"
    made, console = run_tiny(tmp_path, f"start={start / 'raw'}", f"data={start}", text=text)
    said = [line for line in console.said if line.startswith("reference log-probabilities")]
    assert [("once" in line, "read back; saved" in line) for line in said] == [
        (True, False), (False, True), (False, True), (True, False)
    ]  # fmt: skip
    fresh, _ = run_tiny(tmp_path / "fresh", f"start={start / 'raw'}", f"data={start}", text=text, only="ipo")
    one, other = weights(made["ipo"].folder / "model"), weights(fresh["ipo"].folder / "model")
    assert all(torch.equal(one[n], other[n]) for n in one), "what is read back is what would be computed"


def test_formatting_is_masked_in_a_dialogue(start, tmp_path):
    """The end of turn is in no log-probability, and the audit says so; without the setting it is in every one."""
    rows = [{"prompt": turn(q), "chosen": GOOD, "rejected": BAD} for q in QUESTIONS]
    data = write_lines(tmp_path / "turns.jsonl", rows)
    audits, firsts = [], []
    for masked in ("true", "false"):
        made, lines, _ = aligned(start, tmp_path / masked, f"stages.dpo.mask_formatting={masked}", data=data)
        audits.append((made.folder / "token_audit.txt").read_text())
        firsts.append(lines[0]["logprobs/chosen"])
        assert lines[-1]["implicit_reward/accuracy"] > 0.8
    assert "with it in the loss: 0\n" in audits[0] and "with it in the loss: 0\n" not in audits[1]
    assert firsts[0] > firsts[1] + 1, "a token less, of a policy that knows nothing: ln 340 nats"


def test_falling_sides_are_said_once(start, tmp_path):
    """The same words called good and bad, and only the bad ones weighed: both fall, and the run says so, once."""
    rows = [{"prompt": q, "completion": GOOD, "label": i % 2 == 0} for i, q in enumerate(QUESTIONS)]
    data = write_lines(tmp_path / "thumbs.jsonl", rows)
    hard = ("stages.dpo.optimization.optimizer.lr=0.01", "stages.dpo.epochs=5")

    def told(name: str, weight: float):
        kto = f"stages.dpo.algorithm={{name: kto, desirable_weight: {weight}}}"
        _, lines, said = aligned(start, tmp_path / name, *hard, kto, data=data, kind="unpaired")
        fell = [max(line["logprobs/desirable_shift"], line["logprobs/undesirable_shift"]) < -5 for line in lines]
        return fell, [line for line in said if line.startswith("warning: likelihood displacement")]

    fell, warnings = told("falls", 0.0)
    assert sum(fell) > 1
    assert len(warnings) == 1 and f"at step {fell.index(True)}:" in warnings[0] and "desirable_weight" in warnings[0]
    fell, warnings = told("holds", 3.0)
    assert not any(fell) and not warnings


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
