"""Constitutional AI end to end on a tiny model: critique, revision, AI comparisons by every kind of feedback model."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from assent.data import domain
from assent.errors import ConfigError, DataError
from assent.pipeline.recipe import parse_recipe
from assent.records import comparison_from_json
from assent.stages import TABLE
from tests.end_to_end.tiny import TINY, run_tiny
from tests.rewards.stub_server import chat, serving

HEAD = TINY[: TINY.index("  comparisons:")]
SL = """
  revisions:
    do: critique
    policy: sft
    tasks: {format: domain_tasks, count: 40, kinds: [refusal]}
    critic: {simulated: domain}
    revisions: 3
    generation: {max_new_tokens: 16}
    checkpoint_seconds: 0
  sl:
    do: sft
    model: base
    data:
      format: pooled
      of: [{format: selected, stages: [revisions]}, {format: domain_demonstrations, count: 40, kinds: [howto, route]}]
    epochs: 1
    batch_size: 12
    optimization: *fast
    skip_checks: [D11]
"""
AI = """
  ai:
    do: compare
    policy: sft
    tasks: {format: domain_tasks, count: 24, kinds: [refusal]}
    samples: 3
    annotators: {judge: {simulated: domain}}
    generation: {max_new_tokens: 12}
    checkpoint_seconds: 0
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A run with a base and an SFT model."""
    folder = tmp_path_factory.mktemp("start")
    run_tiny(folder, text=HEAD)
    return folder


@pytest.fixture(autouse=True)
def _answers_of_this_test_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path / "kept"))


def rows(artefact, name="demonstrations.jsonl") -> list[dict]:
    return [json.loads(line) for line in (artefact.folder / name).read_text().splitlines()]


def comparisons(artefact):
    return [comparison_from_json(row) for row in rows(artefact, "comparisons.jsonl")]


def test_every_revision_is_a_demonstration_and_the_pretrained_model_learns_from_them(start):
    made, console = run_tiny(start, text=HEAD + SL)
    told = made["revisions"].metrics
    lines = rows(made["revisions"])
    assert told["responses"] == 40 and len(lines) == 3 * (40 - told["cut_off"]) == told["demonstrations"] > 0
    assert Counter(line["round"] for line in lines) == {n: len(lines) // 3 for n in (1, 2, 3)}
    for line in lines:
        harm = domain.judge_harm(line["prompt"], line["before"])
        assert line["critique"] and line["principle"].endswith((".", "?"))
        if line["critique"].startswith("Nothing"):
            assert line["response"] == line["before"]
        else:
            assert domain.judge_harm(line["prompt"], line["response"]).harm <= harm.harm
    chains = {(line["id"], line["round"]): line for line in lines}
    assert all(chains[i, n]["response"] == chains[i, n + 1]["before"] for i, n in chains if n < 3)
    assert any("demonstrations kept by revisions" in text for text in console.said)
    assert set(made["sl"].parents) == {"base", "revisions"}


def test_a_kill_in_the_middle_changes_nothing(start, tmp_path, monkeypatch):
    from assent.stages import critique

    monkeypatch.setattr(critique, "PROMPTS_PER_STEP", 10)
    whole = rows(run_tiny(start, "stages.revisions.seed=5", text=HEAD + SL, only="revisions")[0]["revisions"])
    calls = []

    class Killed(Exception):
        pass

    real = critique.Revises.__call__

    def dying(self, rollouts, scores):
        calls.append(len(rollouts))
        if len(calls) == 3:
            raise Killed
        return real(self, rollouts, scores)

    monkeypatch.setattr(critique.Revises, "__call__", dying)
    again = ("stages.revisions.seed=5", "stages.revisions.checkpoint_seconds=0.0001")
    with pytest.raises(Killed):
        run_tiny(start, *again, text=HEAD + SL, only="revisions")
    resumed, _ = run_tiny(start, *again, text=HEAD + SL, only="revisions")
    assert rows(resumed["revisions"]) == whole and len(calls) > 4
    assert resumed["revisions"].metrics["responses"] == 40


def test_ai_comparisons_are_soft_labels_and_those_of_people_beside_them_train_one_model(start):
    mixed = """
  people:
    do: compare
    policy: sft
    tasks: {format: domain_tasks, count: 24, kinds: [howto, route]}
    samples: 3
    annotators: {panel: simulated}
    generation: {max_new_tokens: 12}
  reward:
    do: reward_model
    model: sft
    data: [{format: stage, stage: ai}, {format: stage, stage: people}]
    epochs: 1
    batch_size: 8
    held_out: 0.2
    optimization: *fast
    skip_checks: [D11]
"""
    made, _ = run_tiny(start, text=HEAD + AI + mixed)
    said = comparisons(made["ai"])
    graded = [p.probability for c in said for p in c.preferences]
    assert graded and all(0.5 <= p < 1 for p in graded) and len({round(p, 6) for p in graded}) > 3
    assert {c.annotator for c in said} == {"simulated critic"} and {c.kind for c in said} == {"refusal"}
    told = made["ai"].metrics
    assert told["pairs"] == len(graded) and 0.3 < told["judge_first"] < 0.8 and 0 <= told["judge_consistent"] <= 1
    assert {c.annotator for c in comparisons(made["people"])} <= {"ada", "ben", "cleo", "dan", "eve"}
    assert math.isfinite(made["reward"].metrics["accuracy"])


def test_labels_are_clamped_where_that_is_asked_for(start):
    made, _ = run_tiny(start, "stages.ai.annotators.clamp=[0.4, 0.6]", text=HEAD + AI, only="ai")
    graded = [p.probability for c in comparisons(made["ai"]) for p in c.preferences]
    assert max(graded) == pytest.approx(0.6) and min(graded) >= 0.5


def test_a_policy_folder_gives_feedback_by_its_log_probabilities(start, tmp_path):
    short = tmp_path / "choose.jinja"
    short.write_text("{{ prompt }} A:{{ first }} B:{{ second }} {{ principle }}")
    mine = tmp_path / "mine.yaml"
    mine.write_text("- {name: a, critique: W, revision: B, choose: Which one}\n")
    judge = f"{{judge: {{policy: sft, templates: {{choose: '{short}'}}}}, principles: '{mine}'}}"
    made, _ = run_tiny(start, f"stages.ai.annotators={judge}", text=HEAD + AI, only="ai")
    said = comparisons(made["ai"])
    assert {c.annotator for c in said} == {f"sft {short}"}
    assert len({p.probability for c in said for p in c.preferences}) > 5


def test_a_policy_folder_criticises_and_revises(start, tmp_path):
    for name in ("critique", "revision"):
        (tmp_path / f"{name}.jinja").write_text("{{ prompt }}")
    templates = f"{{critique: '{tmp_path}/critique.jinja', revision: '{tmp_path}/revision.jinja'}}"
    critic = f"{{policy: sft, generation: {{max_new_tokens: 24}}, templates: {templates}}}"
    made, _ = run_tiny(start, f"stages.revisions.critic={critic}", text=HEAD + SL, only="revisions")
    told, lines = made["revisions"].metrics, rows(made["revisions"])
    assert lines and all(line["critique"] and line["response"].strip() for line in lines)
    assert len(lines) + told.get("unscored_unreadable", 0) == 3 * (40 - told["cut_off"])


def test_an_endpoint_gives_feedback_and_is_asked_in_both_orders(start, tmp_path):
    def reply(body, before):
        question = body["messages"][0]["content"]
        first = question.split("(A)\n> ")[1].split("\n")[0]
        p = 0.9 if "cannot" in first else 0.3
        return 200, chat("A", [{"A": math.log(p), "B": math.log(1 - p)}])

    with serving(reply) as stub:
        judge = f"{{judge: {{endpoint: {{endpoint: '{stub.url}/v1', model: critic-1}}}}}}"
        made, _ = run_tiny(start, f"stages.ai.annotators={judge}", text=HEAD + AI, only="ai")
        asked = [body["messages"][0]["content"] for body in stub.seen]
    told = made["ai"].metrics
    assert told["judge_calls"] + told["judge_remembered"] == 2 * told["pairs"]
    assert len(set(asked)) == len(asked) and told["judge_prompt_tokens"] == 11 * len(asked)
    assert {c.annotator for c in comparisons(made["ai"])} == {"critic-1 principle"}


def test_an_endpoint_criticises_revises_and_sometimes_fails(start):
    def reply(body, before):
        question = body["messages"][0]["content"]
        if "rude" in question and "The critique:" not in question:
            return 200, chat("", refusal="no")
        return 200, chat("It is too curt." if "The critique:" not in question else "I cannot help with that.")

    with serving(reply) as stub:
        critic = f"{{endpoint: {{endpoint: '{stub.url}/v1', model: critic-1}}}}"
        settings = (f"stages.revisions.critic={critic}", "stages.revisions.watch=[{gold: domain}]")
        made, console = run_tiny(start, *settings, text=HEAD + SL, only="revisions")
    told, lines = made["revisions"].metrics, rows(made["revisions"])
    assert {line["response"].strip() for line in lines} == {"I cannot help with that."}
    assert {line["critique"] for line in lines} == {"It is too curt."}
    assert told["unscored_refused"] > 0 and any("no revision (refused): no" in text for text in console.said)
    assert told["gold_revision_1"] > told["gold_first_response"]


def test_settings_that_mean_nothing_are_refused(tmp_path):
    for setting, part in (
        ("stages.ai.annotators.clamp=[0.6, 0.9]", "below 0.5 and one above"),
        ("stages.ai.annotators.judge={endpoint: {endpoint: nowhere, model: m}}", "no address"),
        ("stages.ai.tasks.kinds=[refusals]", "refusal"),
        ("stages.ai.annotators.principles=./nowhere.yaml", "nowhere"),
    ):
        with pytest.raises((ConfigError, DataError), match=part):
            run_tiny(tmp_path, setting, text=HEAD + AI, only="ai")


def test_a_principles_file_is_part_of_what_is_made(start, tmp_path):
    from assent.pipeline.run import plan

    mine = tmp_path / "mine.yaml"
    (tmp_path / "run").mkdir()
    ids = []
    for word in ("Which?", "Whether?"):
        mine.write_text(f"- {{name: a, critique: c, revision: r, choose: '{word}'}}\n")
        recipe = parse_recipe(HEAD + SL, TABLE, [f"stages.revisions.principles={mine}"])
        ids.append(plan(recipe, tmp_path / "run")["revisions"].identity.id)
    assert ids[0] != ids[1]
