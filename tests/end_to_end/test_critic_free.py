"""RLOO and GRPO through the stage, on a tiny policy: no critic is made, groups are whole, settings are refused well."""

import json
import math
from pathlib import Path

import pytest
import torch

from assent.algorithms.ppo import PPO
from assent.errors import ConfigError
from assent.models.folders import load_causal
from assent.pipeline.recipe import parse_recipe
from assent.stages import TABLE
from tests.end_to_end.own import make_data, make_policy
from tests.end_to_end.tiny import TINY, run_tiny

RECIPE = """
parameters: {start: null, tasks: null}
stages:
  tuned:
    do: rl
    policy: "${start}"
    rewards: [{function: "judge_of_groups:long"}]
    tasks: {format: tasks, path: "${tasks}"}
    steps: 3
    prompts_per_step: 6
    samples_per_prompt: 3
    generation: {max_new_tokens: 6}
    algorithm: {name: rloo, minibatches: 2}
    kl: {coefficient: 0.1}
    optimization: {optimizer: {name: adamw, lr: 0.001}}
    skip_checks: [D11]
"""
JUDGE = "def long(rollout):\n    return float(len(rollout.text))\n"


@pytest.fixture
def start(tmp_path, monkeypatch) -> Path:
    make_data(tmp_path, dialogues=False)
    make_policy(tmp_path / "policy", "llama")
    (tmp_path / "judge_of_groups.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "judge_of_groups", raising=False)
    return tmp_path


ALGORITHMS = {
    "rloo": "{name: rloo, minibatches: 2}",
    "grpo": "{name: grpo, epochs: 2, minibatches: 2}",
    "dr_grpo": "{name: grpo, scale_by_std: false, reduction: {name: constant, tokens: 6}}",
    "grpo_with_exact_kl": "{name: grpo, leash: {name: exact}, importance_cap: 2.0}",
    "reinforce": "{name: reinforce, minibatches: 2, to_go: true}",
    "reinforce_pp": "{name: reinforce_pp, minibatches: 2, importance_cap: 2.0}",
    "reinforce_pp_baseline": "{name: reinforce_pp_baseline, minibatches: 2}",
    "remax": "{name: remax, minibatches: 2}",
    "cispo": "{name: cispo, epochs: 2, leash: {name: k2}}",
    "online_dpo": "{name: online_dpo, minibatches: 2}",
    "gspo": "{name: grpo, sequence_ratio: true, clip_low: 0.0003, clip_high: 0.0004}",
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_trains_without_a_critic(start, name):
    artefacts, _ = run_tiny(
        start / "run",
        f"start={start / 'policy'}",
        f"tasks={start / 'tasks.jsonl'}",
        f"stages.tuned.algorithm={ALGORITHMS[name]}",
        text=RECIPE,
    )
    folder = artefacts["tuned"].folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and not (folder / "critic").exists()
    assert all(0 <= line.get("group/no_signal", 0.0) <= 1 and math.isfinite(line["grad_norm"]) for line in lines)
    assert all(("greedy/score" in line) == (name == "remax") for line in lines)
    assert not any("value" in key or "critic" in key for line in lines for key in line)
    checks = {c["name"]: c["outcome"] for c in json.loads((folder / "first_batch.json").read_text())["checks"]}
    assert {checks[n] for n in ("D1", "D2", "D3", "D4", "D5", "D7", "D8")} == {"passed"}
    before, after = (load_causal(f).model.state_dict() for f in (start / "policy", folder / "model"))
    assert any(not torch.equal(before[n], after[n]) for n in before)


def read(*overrides: str):
    return parse_recipe(TINY, TABLE, [f"stages.ppo.{o}" for o in overrides])


def test_ppo_is_what_no_name_means():
    recipe = read("algorithm={epochs: 3}")
    assert recipe.stages["ppo"].algorithm == PPO(epochs=3)
    assert parse_recipe(recipe.to_yaml(), TABLE).stages == recipe.stages


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["algorithm={name: grop}"], "did you mean 'grpo'"),
        (["algorithm={epocs: 2}"], "did you mean 'epochs'"),
        (["algorithm={name: grpo, clip_hihg: 0.3}", "samples_per_prompt=2"], "did you mean 'clip_high'"),
        (["algorithm={name: rloo, epochs: 2}", "samples_per_prompt=2"], "unknown key"),
        (["algorithm={name: grpo, reduction: {name: constant, token: 9}}", "samples_per_prompt=2"], "'tokens'"),
        (["algorithm={name: rloo}"], "samples_per_prompt must be at least 2; got 1"),
        (["algorithm={name: rloo}", "samples_per_prompt=2", "critic={start: trunk}"], "rloo has no critic"),
        (["algorithm={name: reinforce}", "critic={start: trunk}"], "reinforce has no critic"),
        (["algorithm={name: cispo}"], "cispo compares the responses .* at least 2; got 1"),
        (["algorithm={name: online_dpo}"], "online_dpo compares the responses .* at least 2; got 1"),
        (["algorithm={name: reinforce_pp_baseline}"], "reinforce_pp_baseline compares .* at least 2; got 1"),
        (["algorithm={name: online_dpo}", "samples_per_prompt=2", "kl={coefficient: 0}"], "beta is kl.coefficient"),
        (["algorithm={name: grpo, leash: {name: k4}}", "samples_per_prompt=2"], "leash"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides, says):
    with pytest.raises(ConfigError, match=says):
        read(*overrides)
