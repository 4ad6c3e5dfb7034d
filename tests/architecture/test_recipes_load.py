"""Every recipe that is shipped is valid, resolves to itself, and can say what follows from it."""

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
