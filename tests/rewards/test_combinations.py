"""The gate and the ensemble: by hand, against their definitions, and what they refuse."""

import math

import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from typer.testing import CliRunner

from assent.cli import app as command_line
from assent.functional import combine
from assent.rewards.combined import CombinedScorer
from assent.rewards.ensemble import Ensemble
from assent.rewards.function import FunctionScorer
from assent.rewards.gate import Llama2Gate
from assent.stages.scorers import EnsembleRef, GateRef, RewardSpec, named_apart
from assent.train.weighing import leaves
from assent.types import Prompt, Rollout


def rollout(kind: str, text: str = "x") -> Rollout:
    return Rollout(Prompt(f"{kind} {text}", "x", (1,), kind), (1, 2), (-0.5,) * 2, True, text, 0)


def test_the_gate_by_hand():
    """Safety logits -3 and +1, helpfulness 2: below 0.15, safe, and asked for safety."""
    logits = torch.tensor([[-3.0, 1.0, 1.0, -1.7], [2.0, 2.0, 2.0, 2.0]])
    gate = Llama2Gate(frozenset({"refusal"}))
    got, metrics = gate(logits, [rollout("summary"), rollout("summary"), rollout("refusal"), rollout("summary")])
    assert 1 / (1 + math.exp(3.0)) < 0.15 < 1 / (1 + math.exp(1.7))
    assert got.tolist() == pytest.approx([-3.0, 2.0, 1.0, 2.0])
    assert metrics["gate/safety_prompts"].value == 0.25
    assert metrics["gate/below_threshold"].value == 0.25
    assert metrics["gate/gated"].value == 0.5


def test_a_saturated_probability_stays_finite():
    got, _ = Llama2Gate(frozenset())(torch.tensor([[60.0, 60.0], [-200.0, 200.0]]), [rollout("a"), rollout("b")])
    assert got.isfinite().all() and got[1] == pytest.approx(13.8155, abs=1e-3) and got[0] == pytest.approx(-13.8155)


def test_an_ensemble_scores_by_its_rule_and_tells_how_far_its_members_are_apart():
    members = [FunctionScorer(f"m.{i}", lambda r, i=i: float(len(r.text) * i)) for i in range(3)]
    rollouts = [rollout("k", "ab"), rollout("k", "abcd")]
    for rule, want in ((combine.worst_case, [0.0, 0.0]), (combine.ensemble_mean, [2.0, 4.0])):
        scorer = CombinedScorer("m", members, Ensemble("m", rule))
        said = scorer.itemised(rollouts)
        assert [e[0].value for e in said.events] == want and [e[0].index for e in said.events] == [1, 1]
        assert scorer.score(rollouts) == list(said.events)
        assert said.metrics["disagreement/m"].value == pytest.approx((4.0 + 16.0) / 2)
        assert [p.name for p in said.parts] == ["m.0", "m.1", "m.2"]
    assert [j.name for j in leaves(scorer)] == ["m.0", "m.1", "m.2"] and list(leaves(members[0])) == [members[0]]


def test_a_score_does_not_depend_on_the_neighbours():
    members = [FunctionScorer(f"m{i}", lambda r, i=i: float(len(r.text) - i)) for i in range(2)]
    scorer = CombinedScorer("gate", members, Llama2Gate(frozenset({"refusal"})))
    rollouts = [rollout("refusal", "a"), rollout("summary", "abc"), rollout("refusal", "")]
    assert scorer.score(rollouts) == [scorer.score([r])[0] for r in rollouts]


SPEC = TypeAdapter(RewardSpec)
GATE = {"gate": "llama2", "safety": {"reward_model": "harmless"}, "helpfulness": {"reward_model": "helpful"}}


def test_recipes_can_name_them():
    gate = SPEC.validate_python(GATE)
    assert isinstance(gate, GateRef) and gate.threshold == 0.15 and [p.label for p in gate.parts] == [
        "harmless", "helpful",
    ]  # fmt: skip
    ensemble = SPEC.validate_python({"ensemble": ["a", "b"], "combine": "uncertainty_weighted", "coefficient": 0.5})
    assert isinstance(ensemble, EnsembleRef) and ensemble.label == "ensemble"
    assert SPEC.validate_python({"ensemble": "many"}).label == "many"
    scores = torch.tensor([[1.0], [3.0]])
    assert ensemble._rule()(scores).item() == pytest.approx(2.0 - 0.5 * 2.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({**GATE, "safety": {"reward_model": "s", "weight": 2.0}}, "as a probability"),
        ({**GATE, "normalise": True}, "whiten"),
        ({**GATE, "threshold": 1.5}, "less than 1"),
        ({"ensemble": "e", "combine": "worst_case", "coefficient": 0.1}, "no coefficient"),
        ({"ensemble": ["a"]}, "at least 2"),
    ],
)
def test_settings_that_would_change_nothing_or_mean_nothing_are_refused(words, said):
    with pytest.raises(ValidationError, match=said):
        SPEC.validate_python(words)


def test_a_scorer_within_a_gate_and_beside_it_would_have_one_name():
    with pytest.raises(ValueError, match="two scorers have one name, got 'helpful'"):
        named_apart([SPEC.validate_python(GATE), SPEC.validate_python({"reward_model": "helpful"})])


ASKED = """
stages:
  tuned:
    policy: models/p
    tasks: {format: listed, prompts: [a]}
    generation: {max_new_tokens: 4}
"""
SGD = "optimization: {optimizer: {name: adamw, lr: 0.001}}, steps: 1, prompts_per_step: 1"
COST = "constraint: {costs: [{cost_model: models/a}], multiplier: {threshold: 0}}"


@pytest.mark.parametrize(
    "settings",
    [
        f"{{do: rl, {SGD}, rewards: [{{reward_model: runs/x/model}}, {{reward_model: elsewhere/x}}]}}",
        f"{{do: rl, {SGD}, rewards: [{{gold: domain}}], watch: [{{gold: domain}}]}}",
        f"{{do: rl, {SGD}, algorithm: {{name: ppo_lagrangian}}, rewards: [{{reward_model: models/a}}], {COST}}}",
        "{do: select, scorer: {gold: domain}, watch: [{gold: domain}]}",
        "{do: critique, critic: {simulated: domain}, watch: [{gold: domain}, {gold: domain}]}",
    ],
)
def test_a_dry_run_refuses_two_scorers_of_one_name(settings, tmp_path):
    """Before a model is loaded or a stage before it is run; the same recipe with one of them is explained."""
    tree = yaml.safe_load(ASKED)
    tree["stages"]["tuned"] |= yaml.safe_load(settings)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tree))
    refused = CliRunner().invoke(command_line, ["explain", str(recipe)])
    assert refused.exit_code == 2 and "two scorers have one name" in refused.stderr
    assert "stages.tuned" in refused.stderr and "rename" in refused.stderr and not refused.stdout
    tree["stages"]["tuned"].pop("watch", None)
    tree["stages"]["tuned"] |= {"rewards": [{"gold": "domain"}]} if "rewards" in settings else {}
    recipe.write_text(yaml.safe_dump(tree))
    explained = CliRunner().invoke(command_line, ["explain", str(recipe)])
    assert explained.exit_code == 0, explained.stderr
