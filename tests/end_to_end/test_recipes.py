"""Every recipe that ships: explained whole, strict about its keys; the sentiment one really run."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from assent import cli
from assent.config import read_yaml
from assent.errors import ConfigError
from assent.pipeline.recipe import load_recipe
from assent.stages import TABLE
from tests.conftest import ROOT
from tests.end_to_end.own import make_classifier, make_policy
from tests.end_to_end.tiny import run_tiny

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def settings(recipe: Path) -> list[str]:
    """A value for each parameter that has none; explaining reads no data."""
    parameters = read_yaml(recipe).data.get("parameters", {})
    return [f"{name}=somewhere" for name, value in parameters.items() if value is None]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_explains_itself(recipe):
    told = CliRunner().invoke(cli.app, ["explain", str(recipe), *settings(recipe)])
    assert told.exit_code == 0, told.output
    for stage in load_recipe(recipe, TABLE, settings(recipe)).stages:
        assert f"\n{stage}: " in told.output


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_the_resolved_recipe_reads_back_to_the_same_artefacts(recipe, tmp_path):
    read = load_recipe(recipe, TABLE, settings(recipe))
    (tmp_path / "resolved.yaml").write_text(read.to_yaml())
    again = load_recipe(tmp_path / "resolved.yaml", TABLE)
    assert again.stages == read.stages and again.seed == read.seed


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_unknown_keys_are_refused_with_the_nearest_name(recipe):
    stages = load_recipe(recipe, TABLE, settings(recipe)).stages
    for name, spec in stages.items():
        known = next(k for k in type(spec).model_fields if k != "seed")
        with pytest.raises(ConfigError, match=f"did you mean '{known}'"):
            load_recipe(recipe, TABLE, [*settings(recipe), f"stages.{name}.{known}z=1"])


@pytest.mark.parametrize("recipe", [r for r in RECIPES if settings(r)], ids=lambda p: p.stem)
def test_data_must_be_named(recipe):
    name = settings(recipe)[0].partition("=")[0]
    with pytest.raises(ConfigError, match=f"'{name}' is used here but has no value"):
        load_recipe(recipe, TABLE)


# ------------------------------------------------------------------------------------------------ sentiment


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return make_policy(folder / "gpt2", "gpt2"), make_classifier(folder / "classifier")


SHORT = ["stages.ppo.steps=2", "stages.ppo.samples_per_prompt=4", "stages.verdict.best_of=2",
         "stages.ppo.skip_checks=[D11]"]  # fmt: skip


def sentiment(folder: Path, folders: tuple[Path, Path], *overrides: str):
    text = (ROOT / "recipes" / "sentiment_gpt2.yaml").read_text()
    return run_tiny(folder, f"policy={folders[0]}", f"classifier={folders[1]}", *SHORT, *overrides, text=text)


def test_the_sentiment_recipe_runs_on_local_folders(folders, tmp_path):
    made, _ = sentiment(tmp_path, folders)
    lines = [json.loads(line) for line in (made["ppo"].folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and lines[0]["objective/kl"] == pytest.approx(0.0, abs=1e-3)
    assert made["report"].folder.joinpath("report.html").exists()
    assert json.loads((made["verdict"].folder / "results.json").read_text())["judge"] == "POSITIVE"
    assert lines[0]["response/unscored"] == 0
    # The score is the classifier's own logit of prompt and response, read by its own tokenizer, alone and unpadded.
    model = AutoModelForSequenceClassification.from_pretrained(folders[1])
    tokenizer = AutoTokenizer.from_pretrained(folders[1])
    model.eval()
    for line in (made["ppo"].folder / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        ids = tokenizer(sample["prompt"] + sample["response"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = model(input_ids=ids).logits[0, 1].item()
        assert sample["scores"]["POSITIVE"] == pytest.approx(expected, abs=1e-4)


def test_a_label_that_the_classifier_lacks_is_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match="no label of this name"):
        sentiment(tmp_path, folders, "label=HAPPY")
