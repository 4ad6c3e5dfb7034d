"""Ensembles and averages of reward models through their stages, on a tiny model with random weights."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from assent.errors import ConfigError, ContractError
from assent.models.folders import load_causal, load_scalar
from assent.stages import reward_ensemble, reward_training
from assent.stages.enough import TooFewComparisons
from assent.stages.reward_average import average, require_one_start
from assent.types import Sequences
from tests.end_to_end.own import make_data, make_policy
from tests.end_to_end.tiny import run_tiny

RECIPE = """
parameters: {start: null, data: null}
stages:
  ensemble:
    do: reward_ensemble
    model: "${start}"
    data: &data [{format: pairs, path: "${data}/pairs.jsonl"}]
    epochs: 2
    batch_size: 8
    held_out: 0.3
    members: 3
    optimization: {optimizer: {name: adamw, lr: 0.003}, checkpoint_seconds: 0}
    skip_checks: [D11]
"""
AVERAGE = """
  average:
    do: reward_average
    of: [ensemble]
    data: *data
    held_out: 0.3

  report: {do: report, of: [ensemble, average]}
"""
SHARED = ("stages.ensemble.heads=shared", "stages.ensemble.lr_factors=[1, 2]")


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    make_data(folder, dialogues=False)
    make_policy(folder / "raw", "llama")
    return folder


def made(start: Path, folder: Path, *overrides: str, text: str = RECIPE):
    return run_tiny(folder, f"start={start / 'raw'}", f"data={start}", *overrides, text=text)


@pytest.fixture(scope="module")
def shared(start, tmp_path_factory):
    return made(start, tmp_path_factory.mktemp("shared"), *SHARED, text=RECIPE + AVERAGE)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_scalar(folder).scalar.state_dict()


def head(folder: Path) -> torch.Tensor:
    """Its direction: normalisation only scales it."""
    found = load_scalar(folder).scalar.head.weight[0].detach()
    return found / found.norm()


def test_members_differ_and_each_is_a_reward_model(start, tmp_path):
    artefacts, console = made(start, tmp_path)
    ensemble = artefacts["ensemble"]
    folders = reward_ensemble.member_folders(ensemble.folder)
    assert [f.name for f in folders] == ["0", "1", "2"]
    starts = [json.loads((f / reward_training.START).read_text()) for f in folders]
    assert len({s["trunk"] for s in starts}) == 1 and len({s["head"] for s in starts}) == 3
    heads = [head(f) for f in folders]
    assert all(abs(float(heads[i] @ heads[j])) < 0.9 for i in range(3) for j in range(i))
    lines = [json.loads(line) for line in (ensemble.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(len(lines))) and len(lines) % 3 == 0
    accuracies = [json.loads((f / "card.json").read_text())["accuracy"]["value"] for f in folders]
    assert ensemble.metrics["member_accuracy"] == pytest.approx(sum(accuracies) / 3)
    assert ensemble.metrics["members"] == 3 and ensemble.metrics["member_deviation"] > 0
    assert json.loads((ensemble.folder / "card.json").read_text())["accuracy"]["value"] == ensemble.metrics["accuracy"]
    assert any("member 3 of 3" in line for line in console.said)


def test_members_of_a_shared_head_differ_by_data_order_and_learning_rate(shared):
    folders = reward_ensemble.member_folders(shared[0]["ensemble"].folder)
    starts = [json.loads((f / reward_training.START).read_text()) for f in folders]
    assert len({s["head"] for s in starts}) == 1
    heads = [head(f) for f in folders]
    assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    lines = [json.loads(x) for x in (shared[0]["ensemble"].folder / "metrics.jsonl").read_text().splitlines()]
    each = len(lines) // 3
    assert lines[each]["lr"] == pytest.approx(2 * lines[0]["lr"]) and lines[2 * each]["lr"] == lines[0]["lr"]


def test_the_average_is_the_mean_of_the_weights_as_trained(shared):
    artefacts, console = shared
    folders = reward_ensemble.member_folders(artefacts["ensemble"].folder)
    averaged = weights(artefacts["average"].folder / "model")
    members = [weights(f) for f in folders]
    stds = [json.loads((f / reward_training.START).read_text())["std"] for f in folders]
    for name, found in averaged.items():
        raw = [m[name] * (s if name == "model.score.weight" else 1.0) for m, s in zip(members, stds, strict=True)]
        expected = sum(raw) / len(raw)
        if name == "model.score.weight":
            found, expected = found / found.norm(), expected / expected.norm()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    figures = artefacts["average"].metrics
    assert {"accuracy", "member_accuracy", "mean_score_accuracy"} <= set(figures)
    assert figures["member_accuracy"] == pytest.approx(artefacts["ensemble"].metrics["member_accuracy"])
    assert figures["mean_score_accuracy"] == pytest.approx(artefacts["ensemble"].metrics["accuracy"])
    assert any(line.startswith("average of 3 models") for line in console.said)


def test_the_report_says_how_well_members_their_mean_and_their_average_judge(shared):
    artefacts, _ = shared
    page = (artefacts["report"].folder / "report.html").read_text()
    for stage, figure, label in (
        ("ensemble", "accuracy", "held-out accuracy of the mean"),
        ("ensemble", "member_accuracy", "of a member, on average"),
        ("average", "accuracy", "held-out accuracy"),
    ):
        assert re.search(rf"{label}\W.{{0,80}}?{artefacts[stage].metrics[figure]:.3g}", page, re.DOTALL)


def test_the_average_of_one_model_with_itself_scores_as_it_does(shared, tmp_path):
    """Taking the normalisation back and putting it on again changes no score."""
    member = reward_ensemble.member_folders(shared[0]["ensemble"].folder)[0]
    record = json.loads((member / reward_training.START).read_text())
    twice = average([member, member], [record, record])
    twice.scalar.normalise(record["mean"], record["std"])
    rows = Sequences.of([[1, 2], [3]], [[4, 5], [6]])
    with torch.no_grad():
        torch.testing.assert_close(twice.scalar.last_scores(rows), load_scalar(member).scalar.last_scores(rows))


def test_independent_heads_are_not_averaged(start, tmp_path):
    with pytest.raises(ContractError, match="their heads were drawn apart"):
        made(start, tmp_path, text=RECIPE + AVERAGE)


def test_other_trunks_and_single_models_are_not_averaged_either(tmp_path):
    records = [{"trunk": "a", "head": "h"}, {"trunk": "b", "head": "h"}]
    with pytest.raises(ContractError, match="trained from different models"):
        require_one_start([tmp_path / "0", tmp_path / "1"], records)
    with pytest.raises(ContractError, match="one model has no average"):
        require_one_start([tmp_path / "0"], records[:1])


def test_a_probed_head_is_what_every_member_starts_from(start, tmp_path):
    """WARM's start: the head trained alone on a frozen trunk, then given to every member."""
    probe = """
  probe:
    do: reward_model
    model: "${start}"
    data: [{format: pairs, path: "${data}/pairs.jsonl"}]
    batch_size: 8
    held_out: 0.3
    train_layers: 0
    optimization: {optimizer: {name: adamw, lr: 0.01}, checkpoint_seconds: 0}
    skip_checks: [D11]
"""
    text = RECIPE.replace("stages:\n", "stages:" + probe, 1).replace(
        'model: "${start}"\n    data: &data', "model: probe\n    data: &data"
    )
    artefacts, _ = made(start, tmp_path, "stages.ensemble.members=2", text=text + AVERAGE)
    probed = weights(artefacts["probe"].folder / "model")
    untouched = [n for n in probed if "score" not in n]
    trunk = {f"model.{n}": p for n, p in load_causal(start / "raw").model.state_dict().items()}
    assert untouched and all(torch.equal(probed[n], trunk[n]) for n in untouched)
    starts = [
        json.loads((f / reward_training.START).read_text())
        for f in reward_ensemble.member_folders(artefacts["ensemble"].folder)
    ]
    assert len({s["head"] for s in starts}) == 1
    assert math.isfinite(artefacts["average"].metrics["accuracy"])


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("after", [2, 5, 6, 7, 10])
def test_an_interrupted_ensemble_ends_with_the_same_bits(start, tmp_path, monkeypatch, after):
    """In the first member, at its end, at the beginning of the next, in the middle of it."""
    whole, _ = made(start, tmp_path / "whole")
    seen = 0
    real = reward_training.offline

    def cut(source, algorithm, learner, tracker, checkpoint):
        class Cut:
            def restore(self):
                return checkpoint.restore()

            def after_step(self, done):
                nonlocal seen
                checkpoint.after_step(done)
                seen += 1
                if seen == after:
                    raise Interrupted

        real(source, algorithm, learner, tracker, Cut())

    monkeypatch.setattr(reward_training, "offline", cut)
    with pytest.raises(Interrupted):
        made(start, tmp_path / "cut")
    monkeypatch.setattr(reward_training, "offline", real)
    again, console = made(start, tmp_path / "cut")
    assert any("continued" in line for line in console.said)
    one, other = whole["ensemble"].folder, again["ensemble"].folder
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for number in range(3):
        a, b = weights(one / "members" / str(number)), weights(other / "members" / str(number))
        assert all(torch.equal(a[n], b[n]) for n in a)
    assert again["ensemble"].metrics == whole["ensemble"].metrics


def test_a_margin_that_nothing_reads_and_unused_factors_are_refused(start, tmp_path):
    with pytest.raises(ConfigError, match="has no margin"):
        made(start, tmp_path, "stages.ensemble.margin=small", "stages.ensemble.algorithm={name: soft}")
    with pytest.raises(ConfigError, match="some are unused"):
        made(start, tmp_path, "stages.ensemble.lr_factors=[1, 2, 3, 4]")
    with pytest.raises(ConfigError, match="did you mean 'soft'"):
        made(start, tmp_path, "stages.ensemble.algorithm={name: sofd}")


@pytest.mark.parametrize("stage", ["ensemble", "average"])
def test_ensembles_and_averages_that_may_be_guessing_hold_the_run_too(start, tmp_path, stage):
    """No share of two dozen held-out pairs has a lower end above .999; without the bound the same run goes on."""
    given = (f"start={start / 'raw'}", f"data={start}", *SHARED)
    with pytest.raises(TooFewComparisons, match=f"the reward model {stage!r} may be guessing|not yet known"):
        run_tiny(tmp_path, *given, f"stages.{stage}.accuracy_above=0.999", text=RECIPE + AVERAGE)
    assert not list(tmp_path.glob(f"{stage}-*")) and not list(tmp_path.glob("report-*"))
    made, _ = run_tiny(tmp_path, *given, text=RECIPE + AVERAGE)
    assert "report" in made and stage in made
