"""`from:`: stages of another recipe."""

import pytest
from toy import TABLE

from assent.errors import ConfigError
from assent.pipeline.recipe import load_recipe


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    return tmp_path


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


BASE = """
parameters: {steps: 4, unused: 1, data: null}
stages:
  first: {do: count, steps: "${steps}"}
  second: {do: count, start: first}
  last: {do: join, parts: [first, second], data: "${data}"}
"""


def test_what_is_taken_is_what_stands_there(folder):
    """Written out by hand, the recipe is the same: specs, parents, seeds."""
    write(folder, "base.yaml", BASE)
    text = "seed: 3\nfrom: {recipe: ../base.yaml, stages: [first, second]}\nstages: {end: {do: join, parts: [second]}}"
    recipe = load_recipe(write(folder, "below/mine.yaml", text), TABLE)
    by_hand = """
seed: 3
stages:
  first: {do: count, steps: 4}
  second: {do: count, start: first}
  end: {do: join, parts: [second]}
"""
    wanted = load_recipe(write(folder, "mine.yaml", by_hand), TABLE)
    assert (recipe.name, recipe.stages, recipe.parents, recipe.kinds) == (
        "mine",
        wanted.stages,
        wanted.parents,
        wanted.kinds,
    )
    assert list(recipe.stages) == ["first", "second", "end"]
    assert [recipe.seed_of(s) for s in recipe.stages] == [wanted.seed_of(s) for s in wanted.stages]
    assert recipe.parameters == {"steps": 4}, "parameters come along where they are used"


def test_change_command_line_and_own_parameters_go_before(folder):
    write(folder, "base.yaml", BASE)
    text = """
from: {recipe: base.yaml, stages: [first, second], change: {second.steps: 9, second.slow: 0.5}}
parameters: {steps: 6}
stages: {end: {do: join, parts: [second]}}
"""
    path = write(folder, "mine.yaml", text)
    recipe = load_recipe(path, TABLE)
    assert [recipe.stages[s].steps for s in ("first", "second")] == [6, 9]
    assert recipe.stages["second"].slow == 0.5
    recipe = load_recipe(path, TABLE, ["steps=7", "stages.second.steps=2"])
    assert [recipe.stages[s].steps for s in ("first", "second")] == [7, 2]


def test_recipes_may_follow_one_another(folder):
    write(folder, "base.yaml", BASE)
    write(
        folder, "middle.yaml", "from: {recipe: base.yaml, stages: [first]}\nstages: {more: {do: count, start: first}}"
    )
    text = "from: {recipe: middle.yaml, stages: [first, more]}\nstages: {end: {do: join, parts: [more]}}"
    assert list(load_recipe(write(folder, "mine.yaml", text), TABLE).stages) == ["first", "more", "end"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from: {recipe: base.yaml, stages: [frist]}", "fix: did you mean 'first'"),
        ("from: {recipe: base.yaml, stages: []}", "from.stages"),
        ("from: {recipe: base.yaml, stages: [end]}", "has no stage 'end'"),
        ("from: {recipe: missing.yaml, stages: [first]}", "cannot be read"),
        ("from: {recipe: mine.yaml, stages: [end]}", "leads back to itself"),
        ("from: {recipe: base.yaml, stage: [first]}", "did you mean 'stages'"),
        ("from: {recipe: base.yaml, stages: [first], change: {second.steps: 1}}", "leads into no stage that is taken"),
        ("from: {recipe: base.yaml, stages: [first], change: {first.stepps: 1}}", "did you mean 'steps'"),
        ("from: {recipe: twice.yaml, stages: [end]}", "the stage 'end' is there twice"),
        ("from: {recipe: base.yaml, stages: [second, first]}", "stages.second.start"),
    ],
)
def test_what_cannot_be_taken_is_refused(folder, text, said):
    write(folder, "base.yaml", BASE)
    write(folder, "twice.yaml", "stages: {end: {do: count}}")
    path = write(folder, "mine.yaml", text + "\nstages: {end: {do: count}}\n")
    with pytest.raises(ConfigError) as error:
        load_recipe(path, TABLE)
    assert said in str(error.value)
