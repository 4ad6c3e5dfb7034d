"""Every recipe that is shipped is valid, resolves to itself, and can say what follows from it."""

import re

import pytest
from source_tree import ROOT

from assent.config import read_yaml
from assent.pipeline.recipe import load_recipe, parse_recipe
from assent.stages import TABLE

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def test_there_is_a_quickstart():
    assert "quickstart.yaml" in {p.name for p in RECIPES}


def filled(path):
    """A value for each parameter that the reader of the recipe must give."""
    parameters = read_yaml(path).data.get("parameters", {})
    return [f"{name}=somewhere/{name}" for name, value in parameters.items() if value is None]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_loads_and_resolves_to_itself(path):
    recipe = load_recipe(path, TABLE, filled(path))
    assert recipe.name == path.stem, "the name of a recipe is that of its file"
    again = parse_recipe(recipe.to_yaml(), TABLE)
    assert again.stages == recipe.stages and again.parents == recipe.parents
    for name, spec in recipe.stages.items():
        assert all(number >= 0 for number in TABLE[recipe.kinds[name]].derive(spec).values())


HUB = "organisation/model"
SYSTEMS = ("instructgpt", "llama2", "anthropic_hh", "constitutional", "process_supervision", "safe_rlhf",
           "deepseek_grpo", "dpo", "kto", "iterated")  # fmt: skip


def as_hub_model(path):
    """The argument that puts a model of the hub in the place of the one that the recipe makes."""
    parameters = read_yaml(path).data.get("parameters", {})
    named = next((name for name in ("model", "policy", "encoder") if name in parameters), None)
    return f"{named}={HUB}" if named else f"stages.sft.model={HUB}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_dry_runs_with_a_model_of_the_hub(path):
    recipe = load_recipe(path, TABLE, [*filled(path), as_hub_model(path)])
    users = [name for name, outside in recipe.externals.items() if HUB in outside]
    assert users, "no stage would read it"
    for name in users:
        assert recipe.kinds[name] != "pretrain" and TABLE[recipe.kinds[name]].derive(recipe.stages[name]) is not None


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_recipe_of_a_system_states_its_paper_its_settings_and_what_differs(name):
    text = (ROOT / "recipes" / f"{name}.yaml").read_text()
    head = text[: text.index("\nname:")].splitlines()
    assert any(re.search(r"\b\d{4}\.\d{5}\b", line) for line in head), "no paper"
    table = [line for line in head if re.match(r"#   \S.*\S {2,}\S", line)]
    assert len(table) >= 4, "no table of settings"
    assert any(re.search(r" {2,}here$", line) for line in head), "no column of what differs here"
    assert "model" in read_yaml(ROOT / "recipes" / f"{name}.yaml").data["parameters"]
