"""An algorithm of one's own, in one file outside the package, named in a recipe by its path."""

import json
import sys
from pathlib import Path

import pytest

from assent.errors import ConfigError
from assent.pipeline.recipe import parse_recipe
from assent.stages import TABLE
from tests.end_to_end.own import make_data, make_policy
from tests.end_to_end.tiny import run_tiny

RECIPE = """
parameters: {start: null, tasks: null}
stages:
  tuned:
    do: rl
    policy: "${start}"
    rewards: [{function: "judge_of_mine:long", run_in: this_process}]
    tasks: {format: tasks, path: "${tasks}"}
    steps: 2
    prompts_per_step: 6
    samples_per_prompt: 2
    generation: {max_new_tokens: 6}
    algorithm: {path: "mine:Sharp", weight: 2.0}
    kl: {coefficient: 0.1}
    optimization: {optimizer: {name: adamw, lr: 0.001}}
    skip_checks: [D11]
"""
JUDGE = "def long(rollout):\n    return float(len(rollout.text))\n"
MINE = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.types import ConstantLength, Loss, Mean, PolicyExperience


@dataclass(frozen=True)
class Sharp:
    """Learns from the sign of a score against the batch's median."""

    uses_critic: ClassVar[bool] = False
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 1
    epochs: ClassVar[int] = 1

    name: str = "sharp"
    minibatches: int = 1
    weight: float = 1.0

    def experience(self, scored):
        scores_B = scored.score_events_BT.sum(1)
        signs_B = self.weight * (scores_B - scores_B.median()).sign()
        weights_BT, units_B = ConstantLength(1).weigh(scored.mask_BT)
        advantages_BT = signs_B[:, None].expand(scored.mask_BT.shape)
        return PolicyExperience(
            scored.sequences, scored.old_logprobs_BT, scored.ref_logprobs_BT, advantages_BT, weights_BT, units_B, 0.0,
            {"user/won": Mean.of((signs_B > 0).float())},
        )

    def loss(self, batch, forward):
        per_token = -batch.weights_BT * batch.advantages_BT * forward.logprobs(batch.sequences)
        return Loss(per_token, batch.mask_BT, {"user/pull": Mean.of(per_token, batch.mask_BT)})

    def stops(self, metrics):
        return False

    def at(self, step):
        return self


@dataclass(frozen=True)
class Half:
    name: str = "half"
    epochs: int = 1
    minibatches: int = 1

    def loss(self, batch, forward): ...


@dataclass
class Loose:
    name: str = "loose"


def function(scored): ...
'''


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "judge_of_mine.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("mine", "judge_of_mine"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def read(*overrides: str):
    given = ["start=some/model", "tasks=tasks.jsonl", *(f"stages.tuned.{o}" for o in overrides)]
    return parse_recipe(RECIPE, TABLE, given)


def test_one_file_is_enough(folder):
    """Its first batch is checked like any other's, and its own figures are logged."""
    make_data(folder, dialogues=False)
    make_policy(folder / "policy", "llama")
    given = (f"start={folder / 'policy'}", f"tasks={folder / 'tasks.jsonl'}")
    artefacts, _ = run_tiny(folder / "run", *given, text=RECIPE)
    made = artefacts["tuned"].folder
    lines = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(0 <= line["user/won"] <= 1 and "user/pull" in line for line in lines)
    checks = {c["name"]: c["outcome"] for c in json.loads((made / "first_batch.json").read_text())["checks"]}
    assert {checks[n] for n in ("D1", "D4", "D5", "D7", "D8")} == {"passed"}


def test_it_is_read_with_its_settings_and_written_with_its_path(folder):
    recipe = read()
    algorithm = recipe.stages["tuned"].algorithm
    assert (type(algorithm).__name__, algorithm.weight, algorithm.minibatches) == ("Sharp", 2.0, 1)
    written = recipe.config_of("tuned")["algorithm"]
    assert written["path"] == "mine:Sharp" and written["weight"] == 2.0 and len(written["source"]) == 16
    assert parse_recipe(recipe.to_yaml(), TABLE).stages == recipe.stages


def test_a_changed_file_is_another_algorithm(folder, monkeypatch):
    """Another configuration, so that the stage is done again; a resolved recipe is refused with another file."""
    before = read()
    (folder / "mine.py").write_text(MINE + "\n# another thought\n")
    monkeypatch.delitem(sys.modules, "mine")
    assert read().config_of("tuned") != before.config_of("tuned")
    with pytest.raises(ConfigError, match="has changed since this recipe was resolved"):
        parse_recipe(before.to_yaml(), TABLE)


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [
        ('{path: "mine:Sharp", wieght: 2.0}', "no setting 'wieght'; did you mean 'weight'"),
        ('{path: "mine:Sharp", weight: heavy}', "weight: Input should be a valid number, got 'heavy'"),
        ('{path: "mine:Shrap"}', "has no 'Shrap'; did you mean 'Sharp'"),
        ('{path: "mien:Sharp"}', "no module 'mien'; run from the folder that holds the file"),
        ('{path: "mine.Sharp"}', "not of the form package.module:Name"),
        ('{path: "mine:function"}', "'mine:function' is no frozen dataclass"),
        ('{path: "mine:Loose"}', "'mine:Loose' is no frozen dataclass"),
        ('{path: "mine:Half"}', r"it lacks uses_critic \(whether .*smallest_group \(.*experience \(.*stops.*at \("),
    ],
)
def test_what_cannot_be_trained_with_is_refused_when_the_recipe_is_read(folder, algorithm, says):
    with pytest.raises(ConfigError, match=says):
        read(f"algorithm={algorithm}")


def test_its_needs_are_held_against_the_rest_of_the_stage(folder):
    with pytest.raises(ConfigError, match="sharp has no critic"):
        read("critic={start: trunk}")
