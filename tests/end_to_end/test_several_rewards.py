"""A gate, an ensemble and a constraint through the stage of reinforcement learning, on tiny models."""

import json
from pathlib import Path

import pytest
import torch

from assent.errors import ArtefactError, ConfigError, ContractError
from assent.models.folders import load_causal, load_scalar, save_scalar, scalar_from_causal
from assent.types import Sequences
from tests.end_to_end.own import make_data, make_policy
from tests.end_to_end.tiny import run_tiny

RECIPE = """
parameters: {start: null}
stages:
  tuned:
    do: rl
    policy: "${start}/policy"
    rewards: [{reward_model: "${start}/a"}]
    watch: [{function: "judge_of_many:long", run_in: this_process}]
    tasks: {format: tasks, path: "${start}/tasks.jsonl"}
    steps: 3
    prompts_per_step: 12
    generation: {max_new_tokens: 6}
    algorithm: {epochs: 1, minibatches: 2}
    kl: {coefficient: 0.1}
    optimization: {optimizer: {name: adamw, lr: 0.001}}
    skip_checks: [D11]
"""
GATE = "{gate: llama2, safety: {reward_model: '${start}/harmless'}, helpfulness: {reward_model: '${start}/a'}}"


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    make_data(folder, dialogues=False)
    make_policy(folder / "policy", "llama")
    (folder / "judge_of_many.py").write_text("def long(rollout):\n    return float(len(rollout.text))\n")
    causal = load_causal(folder / "policy")
    rows = Sequences.of([[1, 2], [3], [2, 2]], [[4, 5], [6, 7, 8], [1]])
    for seed, name in enumerate(("a", "b", "harmless", "many/members/0", "many/members/1")):
        made = scalar_from_causal(causal, seed=seed)
        made.scalar.normalise(0.2 * seed, 1.0 + seed)
        save_scalar(folder / name, made, golden=rows)
    save_scalar(folder / "never_normalised", scalar_from_causal(causal, seed=9), golden=rows)
    return folder


@pytest.fixture(autouse=True)
def judge(start, monkeypatch):
    monkeypatch.syspath_prepend(start)


def tuned(start: Path, folder: Path, *overrides: str):
    settings = [f"stages.tuned.{o}".replace("${start}", str(start)) for o in overrides]
    artefacts, console = run_tiny(folder, f"start={start}", *settings, text=RECIPE)
    return artefacts["tuned"], console


def lines(artefact, name: str) -> list[dict]:
    return [json.loads(line) for line in (artefact.folder / name).read_text().splitlines()]


def test_a_gate_and_an_ensemble_are_added_and_every_part_is_kept(start, tmp_path):
    ensemble = "{ensemble: '${start}/many', combine: worst_case, normalise: true, clip: 2, weight: 0.5}"
    made, _ = tuned(start, tmp_path, f"rewards=[{GATE}, {ensemble}]")
    for row in lines(made, "samples.jsonl"):
        scores = row["scores"]
        assert set(scores) == {"gate", "harmless", "a", "many", "many.0", "many.1", "long"}
        assert scores["many"] == pytest.approx(min(scores["many.0"], scores["many.1"]))
        unsafe = 1 / (1 + 2.718281828 ** -scores["harmless"]) < 0.15
        assert scores["gate"] == pytest.approx(scores["harmless"] if unsafe else scores["a"], rel=1e-3, abs=1e-4)
        assert "reward" in row
    logged = lines(made, "metrics.jsonl")[-1]
    assert logged["disagreement/many"] > 0 and logged["score_correlation/many.0 many.1"] is not None
    assert {"gate/gated", "normaliser_std/many", "score_low/a", "score_weighted/gate"} <= set(logged)


def test_the_gate_reads_the_logits_of_the_training(start, tmp_path):
    made, _ = tuned(start, tmp_path, f"rewards=[{GATE}]", "steps=1")
    row = lines(made, "samples.jsonl")[0]
    scalar = load_scalar(start / "harmless").scalar
    assert (scalar.raw_scale.mean, scalar.raw_scale.std) == pytest.approx((0.4, 3.0))
    again, _ = tuned(start, tmp_path / "plain", "rewards=[{reward_model: '${start}/harmless'}]", "steps=1")
    normalised = lines(again, "samples.jsonl")[0]
    assert normalised["response"] == row["response"]
    assert row["scores"]["harmless"] == pytest.approx(0.4 + 3.0 * normalised["scores"]["harmless"], rel=1e-4, abs=1e-5)


def test_a_constraint_trains_two_critics_and_moves_its_multiplier(start, tmp_path):
    made, _ = tuned(
        start, tmp_path,
        "algorithm={name: ppo_lagrangian, ppo: {epochs: 1, minibatches: 2}}",
        "constraint={costs: [{cost_model: '${start}/harmless', clip: 50}], multiplier: {threshold: -3, lr: 0.02}}",
    )  # fmt: skip
    rows = lines(made, "metrics.jsonl")
    weights = [row["cost/multiplier"] for row in rows]
    assert 1 < weights[0] < weights[1] < weights[2], "the threshold is out of reach, so lambda grows"
    assert all(row["grad_norm/cost_critic"] > 0 and row["grad_norm/critic"] > 0 for row in rows)
    kept = lines(made, "samples.jsonl")[0]["scores"]
    assert set(kept) == {"a", "harmless", "long"}
    assert made.metrics["cost/multiplier"] == pytest.approx(weights[-1])
    critics = [load_scalar(made.folder / name).scalar.model.score.weight for name in ("critic", "cost_critic")]
    assert not torch.allclose(*critics)


def test_a_cost_critic_starts_as_the_cost(start):
    folder = load_scalar(start / "harmless")
    rows = Sequences.of([[1, 2], [3]], [[4, 5], [6, 7, 8]])
    raw = folder.scalar.raw_scale.raw(folder.scalar.last_scores(rows))
    folder.critic.become_cost()
    torch.testing.assert_close(folder.scalar.last_scores(rows), -raw, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["rewards=[{ensemble: '${start}/a'}]"], ArtefactError, "holds no ensemble"),
        (["rewards=[{ensemble: ['${start}/a', '${start}/never_normalised']}]"], ContractError, "scale of its own"),
        ([f"rewards=[{GATE}, {{reward_model: '${{start}}/a'}}]"], ConfigError, "two scorers have one name"),
        (["algorithm={name: ppo_lagrangian}"], ConfigError, "need each other"),
        (["constraint={costs: [{cost_model: '${start}/a'}]}"], ConfigError, "need each other"),
        (
            ["algorithm={name: ppo_lagrangian}", "constraint={costs: [{cost_model: '${start}/a', normalise: true}]}"],
            ConfigError,
            "moves its zero",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(start, tmp_path, overrides, error, said):
    with pytest.raises(error, match=said):
        tuned(start, tmp_path, *overrides)
