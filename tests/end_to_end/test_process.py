"""Process supervision end to end, small: solutions sampled, labels of both kinds, training, dense rewards, resuming."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from assent.data.domain import arithmetic
from assent.models.folders import load_causal, save_scalar, scalar_from_causal
from assent.records import Rating, solution_from_json
from assent.stages.generation import sample_responses
from assent.stages.lines import Lines, lines_of
from assent.stages.parts import Generation
from assent.stages.scorers.process import ProcessRewardRef
from assent.stages.sources import AnyTasks
from assent.types import Sequences
from tests.end_to_end import checkers
from tests.end_to_end.tiny import run_tiny

FAST = """
      optimizer: {name: muon, lr: 0.02, rest: {lr: 0.01}}
      checkpoint_seconds: 0
"""
SUMS = f"""
name: sums
seed: 3
stages:
  base:
    do: pretrain
    data: {{format: arithmetic_documents, count: 200}}
    shape:
      family: llama
      kwargs: {{hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 2,
               num_key_value_heads: 2, max_position_embeddings: 192, tie_word_embeddings: true}}
    vocabulary: 280
    length: 128
    batch_size: 8
    optimization: {FAST}
    skip_checks: [D11]
  sft:
    do: sft
    model: base
    data: {{format: arithmetic_demonstrations, count: 64}}
    epochs: 1
    batch_size: 8
    optimization: {FAST}
    skip_checks: [D11]
  labels:
    do: label_steps
    policy: sft
    tasks: {{format: arithmetic_tasks, count: 24}}
    samples: 2
    labels: {{by: simulated}}
    generation: {{max_new_tokens: 40}}
    prompts_per_step: 8
    checkpoint_seconds: 0
  process:
    do: process_reward
    model: sft
    data: [{{format: stage, stage: labels}}]
    held_out: 0.3
    batch_size: 8
    optimization: {FAST}
    skip_checks: [D11]
  ppo:
    do: rl
    policy: sft
    rewards: [{{process_reward: process}}, {{arithmetic: answer, weight: 0.5}}]
    watch: [{{arithmetic: steps}}]
    critic: {{start: policy}}
    tasks: {{format: arithmetic_tasks, count: 16}}
    steps: 2
    prompts_per_step: 8
    generation: {{max_new_tokens: 40}}
    algorithm: {{epochs: 1}}
    optimization: {FAST}
    skip_checks: [D11]
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sums")
    made, console = run_tiny(folder, text=SUMS)
    return folder, made, console


def solutions_of(folder: Path):
    return [solution_from_json(json.loads(line)) for line in lines_of(folder / "solutions.jsonl")]


def test_the_whole_way(whole):
    _, made, console = whole
    solved = solutions_of(made["labels"].folder)
    assert len(solved) == made["labels"].metrics["solutions"] <= 48
    assert len({s.id for s in solved}) == len(solved)
    for s in solved:
        stopped = [i for i, x in enumerate(s.labels) if x is Rating.BAD]
        assert len(stopped) <= 1 and (not stopped or set(s.labels[stopped[0] + 1 :]) <= {None})
    card = json.loads((made["process"].folder / "card.json").read_text())
    assert card["accuracy"]["value"] == pytest.approx(made["process"].metrics["accuracy"])
    assert any("steps held out: accuracy" in line for line in console.said if isinstance(line, str))
    audit = (made["process"].folder / "token_audit.txt").read_text()
    assert " score " in audit, "the audit of the first batch shows which tokens carry a label"
    rows = [json.loads(line) for line in (made["ppo"].folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and {"score/process", "score/right_answer", "score/right_steps"} <= set(rows[0])


def test_a_setting_that_no_sum_has_is_refused_before_anything_runs():
    read = TypeAdapter(AnyTasks).validate_json
    asked = read('{"format": "arithmetic_tasks", "count": 4, "operations": [9, 10]}', strict=True)
    context = SimpleNamespace(seed=1)
    assert {t.kind for t in asked.records_for(context)} <= {"9 operations", "10 operations"}
    with pytest.raises(ValidationError, match="fewest, 4 or more, and the most; got"):
        read('{"format": "arithmetic_tasks", "count": 4, "operations": [10, 9]}', strict=True)


def test_a_line_ends_at_a_newline_and_nowhere_else(tmp_path):
    """A policy that knows little writes any byte, and some are line separators to `str.splitlines`."""
    texts = ["a\u2028b", "c\x85d\n", "e\u2029\x1cf\r\n", ""]
    lines = Lines(tmp_path / "lines.jsonl", lambda rollouts, scores: [{"text": t} for t in texts])
    lines([], [])
    assert [json.loads(line)["text"] for line in lines_of(lines.path)] == texts


def test_the_rewards_of_a_solution_are_its_last_probability(whole):
    """`differences` telescopes: what is logged as the score is the probability of the last step."""
    _, made, _ = whole
    for line in lines_of(made["ppo"].folder / "samples.jsonl"):
        assert 0 < json.loads(line)["scores"]["process"] < 1


def test_labels_made_by_completions_are_shares_of_right_answers(whole, tmp_path):
    """A checker that likes every completion, none, or those that end: the labels follow, step by step."""
    _, made, _ = whole
    policy = made["sft"].folder / "model"
    text = f"""
name: shares
stages:
  labels:
    do: label_steps
    policy: {policy}
    tasks: {{format: arithmetic_tasks, count: 6}}
    labels: {{by: completions, samples: 4, label: soft, checker: {{function: CHECKER}}}}
    generation: {{max_new_tokens: 40}}
    prompts_per_step: 3
"""
    for name, allowed in (("always", {1.0}), ("never", {0.0}), ("tidy", {0.0, 0.25, 0.5, 0.75, 1.0})):
        checker = f"{checkers.__name__}:{name}"
        made_here, _ = run_tiny(tmp_path / name, text=text.replace("CHECKER", checker))
        solved = solutions_of(made_here["labels"].folder)
        assert solved and {x for s in solved for x in s.labels} <= allowed
        for s in solved:
            assert s.labels[-1] == float(s.correct), "the last step is as good as the solution"
        hard, _ = run_tiny(
            tmp_path / f"{name} hard", "stages.labels.labels.label=hard", text=text.replace("CHECKER", checker)
        )
        for soft_one, hard_one in zip(solved, solutions_of(hard["labels"].folder), strict=True):
            assert soft_one.steps == hard_one.steps
            assert hard_one.labels == tuple(float(x > 0) for x in soft_one.labels)


def test_an_interrupted_stage_goes_on_bit_for_bit(whole, tmp_path, monkeypatch):
    """Stopped after its first step, `label_steps` writes the same lines as when it runs through."""
    from assent.stages import label_steps

    _, made, _ = whole
    labels = SUMS.split("\n  labels:\n")[1].split("\n  process:\n")[0]
    labels = labels.replace("policy: sft", f"policy: {made['sft'].folder / 'model'}")
    recipe = f"name: cut\nseed: 3\nstages:\n  labels:\n{labels}\n"
    calls = 0
    real = label_steps.texts_of

    def breaks(*arguments):
        nonlocal calls
        calls += 1
        if calls == 20:  # in the second step of sixteen solutions
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(label_steps, "texts_of", breaks)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path, text=recipe)
    assert list((tmp_path / ".work").glob("*/state/state.pt")), "there is something to go on from"
    resumed, _ = run_tiny(tmp_path, text=recipe)
    lines = (resumed["labels"].folder / "solutions.jsonl").read_text()
    assert lines == (made["labels"].folder / "solutions.jsonl").read_text()


def test_a_model_with_another_tokenizer_rewards_the_same_steps(whole, tmp_path):
    """A larger vocabulary learned from other text: other tokens, the same lines, rewards on the policy's tokens."""
    _, made, _ = whole
    text = """
name: other
seed: 5
stages:
  base: {do: pretrain, data: {format: domain_documents, count: 120}, vocabulary: 400, length: 128,
         shape: {family: gpt2, kwargs: {n_embd: 32, n_layer: 1, n_head: 2, n_positions: 192}},
         optimization: {optimizer: {name: adamw, lr: 0.01}},
         skip_checks: [D11]}
"""
    other, _ = run_tiny(tmp_path, text=text)
    scalar = scalar_from_causal(load_causal(other["base"].folder / "model"), seed=1)
    save_scalar(tmp_path / "prm", scalar, golden=Sequences.of([[3, 4]], [[5, 6]]))
    policy = load_causal(made["sft"].folder / "model")
    tasks = arithmetic.tasks(12, seed=1)
    rollouts = sample_responses(policy, tasks, Generation(max_new_tokens=40), seed=0)

    context = SimpleNamespace(inputs={}, say=print, device="cpu", precision="float32", environment={})
    scorer = ProcessRewardRef(process_reward=str(tmp_path / "prm"), form="raw").scorer(context, policy)
    checked = 0
    for rollout, events in zip(rollouts, scorer.score(rollouts), strict=True):
        assert tuple(e.index for e in events) == scorer.steps.ends(rollout.token_ids)
        if len(events) < 2 or not rollout.text.isascii():
            continue
        # By hand, for the first step: its text in the model's own tokens, read at the token that completes it.
        first = policy.tokenizer.decode(list(rollout.token_ids[: events[0].index + 1]), skip_special_tokens=True)
        ids = scalar.tokenizer(rollout.text)["input_ids"]
        place = next(n for n in range(1, len(ids) + 1) if scalar.tokenizer.decode(ids[:n]).startswith(first))
        alone = Sequences.of([scalar.tokenizer(rollout.prompt.source)["input_ids"]], [ids[:place]])
        with torch.no_grad():
            wanted = scalar.scalar.last_scores(alone).sigmoid().item()
        assert events[0].value == pytest.approx(wanted, abs=1e-4)
        checked += 1
    assert checked > 0
