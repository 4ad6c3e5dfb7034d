"""Two rounds on a tiny model: what is accepted is what the next round starts from, and a rejected policy is kept."""

import json

import pytest

from assent.errors import ContractError
from assent.models.folders import load_causal
from tests.end_to_end.tiny import TINY, run_tiny

ROUNDS = (
    TINY.split("  comparisons:\n")[0]
    + """
  round:
    do: rounds
    count: 2
    start: {policy: sft}
    stages:
      comparisons:
        do: compare
        policy: previous.policy
        tasks: {format: domain_tasks, count: 60}
        samples: 2
        annotators: {panel: simulated}
        generation: {max_new_tokens: 12}
      reward:
        do: reward_model
        model: sft
        data: [{format: stage, stage: every.comparisons}]
        batch_size: 8
        held_out: 0.2
        optimization: *fast
        skip_checks: [D8, D11]
      ppo:
        do: rl
        policy: previous.policy
        reference: sft
        rewards: [{reward_model: this.reward}]
        tasks: {format: domain_tasks, count: 20}
        steps: 2
        prompts_per_step: 8
        generation: {max_new_tokens: 12}
        optimization: {optimizer: {name: adamw, lr: 0.001}}
        skip_checks: [D11]
      verdict:
        do: evaluate
        policy: this.ppo
        baseline: previous.policy
        tasks: {format: domain_tasks, count: 12, split: held_out}
        judge: {gold: domain}
        generation: {max_new_tokens: 12}
      policy:
        do: accept
        candidate: this.ppo
        incumbent: previous.policy
        verdict: this.verdict
        above: {win_sampled: 0}
  final:
    do: evaluate
    policy: round_last.policy
    baseline: sft
    tasks: {format: domain_tasks, count: 12, split: held_out}
    judge: {gold: domain}
    generation: {max_new_tokens: 12}
  report:
    do: report
    of: [base, sft, round_every.reward, round_every.verdict, round_every.policy, final]
"""
)
REJECT_FIRST = "stages.round_1.policy.above={win_sampled: 1.1}"


@pytest.fixture(scope="module")
def accepted(tmp_path_factory):
    return run_tiny(tmp_path_factory.mktemp("accepted"), text=ROUNDS)


def weights(artefact) -> bytes:
    return (artefact.folder / "model" / "model.safetensors").read_bytes()


def decision(artefact) -> dict:
    return json.loads((artefact.folder / "decision.json").read_text())


def test_the_second_round_starts_from_what_the_first_accepted(accepted):
    made, console = accepted
    assert decision(made["round_1.policy"])["accepted"] and decision(made["round_2.policy"])["accepted"]
    for i in (1, 2):
        assert weights(made[f"round_{i}.policy"]) == weights(made[f"round_{i}.ppo"]) != weights(made["sft"])
    assert set(made["round_2.ppo"].parents) == {"round_1.policy", "sft", "round_2.reward"}
    assert made["round_2.comparisons"].parents == {"round_1.policy": made["round_1.policy"].id}
    assert set(made["round_2.reward"].parents) == {"sft", "round_1.comparisons", "round_2.comparisons"}
    assert made["round_2.policy"].metrics["accepted"] == 1.0
    assert any("round_2.ppo accepted: against round_1.policy, win_sampled" in line for line in console.said)
    assert made["final"].parents.keys() == {"round_2.policy", "sft"}
    load_causal(made["round_2.policy"].folder / "model")


def test_both_rounds_labels_train_the_second_reward_model(accepted):
    made, _ = accepted
    one, two = (made[f"round_{i}.reward"].metrics for i in (1, 2))
    assert one["training_prompts"] < two["training_prompts"] <= 120
    rows = {}
    for i in (1, 2):
        path = made[f"round_{i}.comparisons"].folder / "comparisons.jsonl"
        rows[i] = {json.loads(line)["prompt"] for line in path.read_text().splitlines()}
    assert rows[1] != rows[2], "every round asks about prompts of its own"


def test_a_rejected_policy_is_kept_and_the_next_round_starts_from_the_accepted_one(accepted, tmp_path):
    made, _ = run_tiny(tmp_path, REJECT_FIRST, text=ROUNDS, until="round_2.ppo")
    said = decision(made["round_1.policy"])
    assert not said["accepted"] and said["chosen"] == "sft" and "sft stays" in said["text"]
    assert weights(made["round_1.policy"]) == weights(made["sft"]) != weights(made["round_1.ppo"])
    assert made["round_1.policy"].metrics["accepted"] == 0.0
    assert set(made["round_1.policy"].parents) == {"round_1.ppo", "sft", "round_1.verdict"}
    start = json.loads((made["round_2.ppo"].folder / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(start["objective/kl"]) < 1e-4, "the second round starts where the reference is again"
    moved = json.loads((accepted[0]["round_2.ppo"].folder / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(moved["objective/kl"]) > 1e-3, "and not there when the first was accepted"


def test_a_decision_needs_a_figure_and_the_candidates_own_verdict(tmp_path):
    with pytest.raises(ContractError, match="did you mean 'win_sampled'"):
        run_tiny(tmp_path, "stages.round_1.policy.above={win_smapled: 0.5}", text=ROUNDS, until="round_1.policy")
    with pytest.raises(ContractError, match="not on the candidate"):
        run_tiny(tmp_path, "stages.round_1.policy.candidate=sft", text=ROUNDS, until="round_1.policy")


def test_a_share_takes_whole_prompts_and_always_the_same(accepted):
    from types import SimpleNamespace

    from assent.data.splits import hold_out, record_key
    from assent.stages.parts import HELD_OUT_SEED
    from assent.stages.sources import StageComparisons

    context = SimpleNamespace(inputs=accepted[0], say=lambda _: None)

    def prompts(share):
        read = StageComparisons(format="stage", stage="round_1.comparisons", share=share).records_for(context)
        return [record_key(c) for c in read]

    whole, half, quarter = (prompts(share) for share in (1.0, 0.5, 0.25))
    assert set(quarter) < set(half) < set(whole)
    assert all(whole.count(key) == half.count(key) for key in half), "of a prompt, all its comparisons"
    kept = StageComparisons(format="stage", stage="round_1.comparisons", share=0.5).records_for(context)
    assert all(hold_out(kept, 0.3, HELD_OUT_SEED)), "a share still has prompts on both sides"
