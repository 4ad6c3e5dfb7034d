"""Recipes: read whole or refused whole."""

from pathlib import Path

import pytest
from toy import RECIPE, TABLE

from assent.errors import ConfigError
from assent.pipeline.recipe import load_recipe, parse_recipe


def refused(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(text, TABLE, overrides)
    return str(caught.value)


def test_a_recipe_knows_its_stages_kinds_and_parents() -> None:
    recipe = parse_recipe(RECIPE, TABLE)
    assert list(recipe.stages) == ["first", "second", "last"]
    assert recipe.kinds == {"first": "count", "second": "count", "last": "join"}
    assert recipe.parents == {"first": (), "second": ("first",), "last": ("first", "second")}
    assert recipe.stages["first"].steps == 6


def test_references_are_found_at_every_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = """
stages:
  a: {do: count}
  b: {do: count, start: a}
  c: {do: count, start: org/model}
  d:
    do: join
    parts: [c, ./data.jsonl]
    judges: {x: {model: a}, y: {model: hub/judge}}
    either: {model: b}
    label: a
  e: {do: join, parts: [c], either: b}
"""
    recipe = parse_recipe(text, TABLE)
    assert recipe.parents["d"] == ("c", "a", "b")
    assert recipe.externals["d"] == ("./data.jsonl", "hub/judge")
    assert recipe.externals["c"] == ("org/model",)
    assert recipe.parents["e"] == ("c", "b"), "a plain text field such as label is no reference"


def test_later_stages_and_slips_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "stages:\n  first: {do: count, start: second}\n  second: {do: count, start: frist}\n"
    said = refused(text)
    assert "stages.first.start (line 2): it refers to the stage 'second', which does not come before" in said
    assert "stages.second.start (line 3): there is no stage 'frist'" in said
    assert "did you mean 'first'" in said
    assert "does not come before" in refused("stages: {one: {do: count, start: one}}")
    (tmp_path / "frist").mkdir()
    text = "stages: {first: {do: count}, second: {do: count, start: frist}}"
    assert parse_recipe(text, TABLE).externals["second"] == ("frist",), "a path that exists is no slip"


def test_every_problem_of_a_recipe_is_listed_at_once() -> None:
    said = refused("""
name: x
stages:
  first: {do: cuont}
  second: {do: count, stpes: 3}
  third: {steps: 3}
  Fourth: {do: count}
  fifth: {do: count, steps: three}
parameters: {unused: 1}
""")
    for part in (
        "6 problems",
        "stages.first.do (line 4): there is nothing to do called 'cuont'; did you mean 'count'?",
        "stages.second.stpes (line 5): unknown key; did you mean 'steps'?",
        "stages.third.do (line 6): the key `do` is missing",
        "stages.Fourth (line 7): the stage's name cannot be used",
        "stages.fifth.steps (line 8)",
        "parameters.unused (line 9): no stage uses",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("stage: {}", "did you mean 'stages'"),
        ("stages: {}", "there is no stage"),
        ("stages: {a: 3}", "stages.a"),
        ("stages: {a: null}", "stages.a"),
        ("name: 3\nstages: {a: {do: count}}", "valid string"),
    ],
)
def test_the_top_level_is_checked(text: str, part: str) -> None:
    assert part in refused(text)


def test_overrides_and_parameters() -> None:
    text = "parameters: {data: null, n: 4}\nstages:\n  a: {do: count, start: '${data}', steps: '${n}'}\n"
    recipe = parse_recipe(text, TABLE, ["data=org/x", "stages.a.slow=1e-3", "seed=9", "name=other"])
    assert recipe.stages["a"].start == "org/x"
    assert recipe.stages["a"].steps == 4
    assert recipe.stages["a"].slow == 1e-3
    assert (recipe.seed, recipe.name) == (9, "other")
    assert parse_recipe(text, TABLE, ["data=org/x", "n=5"]).stages["a"].steps == 5
    assert "add data=VALUE" in refused(text)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("dta=x", "did you mean 'data'"),
        ("stages.b.steps=1", "there is no stage 'b'"),
        ("stages.a.stesp=1", "did you mean 'steps'"),
        ("a.steps=1", "begin the path with stages."),
        ("steps", "key=value"),
        ("stages.a.steps.x=1", "leads nowhere"),
    ],
)
def test_bad_overrides_are_refused(override: str, part: str) -> None:
    text = "parameters: {data: null}\nstages:\n  a: {do: count, start: '${data}', steps: 2}\n"
    assert part in refused(text, "data=org/x", override)


def test_the_resolved_recipe_reads_back_to_itself() -> None:
    text = "parameters: {n: 4}\nstages:\n  a: {do: count, steps: '${n}', slow: 1e-7}\n  b: {do: join, parts: [a]}\n"
    recipe = parse_recipe(text, TABLE)
    again = parse_recipe(recipe.to_yaml(), TABLE)
    assert again.stages == recipe.stages
    assert again.parents == recipe.parents
    assert "steps: 4" in recipe.to_yaml()


def test_seeds_differ_by_stage_and_recipe_and_can_be_set() -> None:
    recipe = parse_recipe(RECIPE, TABLE)
    other = parse_recipe(RECIPE, TABLE, ["seed=8"])
    own = parse_recipe(RECIPE, TABLE, ["stages.first.seed=3"])
    seeds = [recipe.seed_of("first"), recipe.seed_of("second"), other.seed_of("first")]
    assert len(set(seeds)) == 3
    assert all(0 <= s < 2**31 for s in seeds)
    assert own.seed_of("first") == 3
    assert own.seed_of("second") == recipe.seed_of("second")
    # Pinned (`printf 7/first | sha256sum`, 8 digits, halved): a change would silently change every published run.
    assert recipe.seed_of("first") == 444276508


def test_the_file_names_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("stages: {a: {do: count}}")
    assert load_recipe(tmp_path / "mine.yaml", TABLE).name == "mine"
