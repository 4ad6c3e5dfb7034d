"""What a recipe may ask for and does not in the quickstart, each really run on one tiny trained start."""

import json
import math
from pathlib import Path

import pytest
import torch

from assent.errors import ConfigError, ContractError, DataError
from assent.models.folders import load_causal
from assent.pipeline.recipe import parse_recipe
from assent.stages import TABLE
from tests.end_to_end.own import GOOD, QUESTIONS, make_data, make_policy, write_lines
from tests.end_to_end.tiny import TINY, run_tiny

FAST = "{optimizer: {name: adamw, lr: 0.01}, schedule: {decay: constant}}"
PPO = """
parameters: {start: null, tasks: null}
stages:
  ppo: &ppo
    do: rl
    policy: "${start}"
    rewards: [{function: "judges_of_mine:friendly"}]
    critic: {start: policy}
    tasks: {format: tasks, path: "${tasks}"}
    steps: 2
    prompts_per_step: 6
    generation: {max_new_tokens: 8}
    algorithm: {epochs: 1, minibatches: 2}
    optimization: {optimizer: {name: adamw, lr: 0.001}}
    skip_checks: [D11]
"""
MINE = '''
def friendly(rollout):
    """1 where it is glad; nothing to say of an empty response."""
    return float("gladly" in rollout.text) if rollout.text.strip() else None


def curt(rollout):
    """Of questions about the new and the red it has no opinion."""
    return None if rollout.prompt.source.endswith(("new?", "red?")) else -float(len(rollout.text))


def silent(rollout):
    return None


def moody(rollout):
    if rollout.prompt.source.endswith("new?"):
        raise ArithmeticError("not that one again")
    return 1.0
'''


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A folder with data, a policy that has learned a little, and a reward model."""
    folder = tmp_path_factory.mktemp("start")
    make_data(folder, dialogues=False)
    make_policy(folder / "raw", "llama")
    (folder / "mine.txt").write_text(" ".join(QUESTIONS) + "\n")
    text = f"""
parameters: {{start: null, data: null}}
stages:
  sft: {{do: sft, model: "${{start}}", data: {{format: demonstrations, path: "${{data}}/messages.jsonl"}}, epochs: 3,
    batch_size: 8, optimization: {FAST}, skip_checks: [D11]}}
  reward: {{do: reward_model, model: sft, data: [{{format: pairs, path: "${{data}}/pairs.jsonl"}}], held_out: 0.3,
    batch_size: 8, epochs: 2, optimization: {FAST}, skip_checks: [D11]}}
"""
    run_tiny(folder / "run", f"start={folder / 'raw'}", f"data={folder}", text=text)
    for stage, name in (("sft", "policy"), ("reward", "reward")):
        (made,) = (folder / "run").glob(f"{stage}-*")
        (folder / name).symlink_to(made / "model")
    return folder


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """A file of the user's own in the folder where the command is given."""
    (tmp_path / "judges_of_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "judges_of_mine", raising=False)


def ppo(start: Path, folder: Path, *overrides: str, tasks: Path | None = None):
    """Run it, with stages.ppo settings overridden."""
    settings = [f"stages.ppo.{o}" for o in overrides]
    artefacts, console = run_tiny(
        folder, f"start={start / 'policy'}", f"tasks={tasks or start / 'tasks.jsonl'}", *settings, text=PPO
    )
    lines = (artefacts["ppo"].folder / "metrics.jsonl").read_text().splitlines()
    return artefacts["ppo"], [json.loads(line) for line in lines], console


# ------------------------------------------------------------------------------------------------ critics


@pytest.mark.parametrize("critic", ["trunk", "policy", "reward_model"])
def test_every_start_of_the_critic_learns_values(start, tmp_path, critic):
    rewards = f"rewards=[{{reward_model: {start / 'reward'}}}]"
    made, lines, _ = ppo(start, tmp_path, f"critic={{start: {critic}}}", rewards)
    assert len(lines) == 2
    assert all(math.isfinite(v) for line in lines for k, v in line.items() if k.startswith(("loss", "objective")))
    assert (made.folder / "critic").is_dir() == (critic != "trunk")
    before, after = (load_causal(f).model.state_dict() for f in (start / "policy", made.folder / "model"))
    assert any(not torch.equal(before[n], after[n]) for n in before)


def test_a_critic_with_another_tokenizer_is_refused(start, tmp_path):
    other = other_reward(start, tmp_path)
    with pytest.raises(ContractError, match="critic does not share the policy's tokenizer"):
        ppo(start, tmp_path / "run", "critic={start: reward_model}", f"rewards=[{{reward_model: {other}}}]")


def test_a_reward_model_with_another_tokenizer_reads_the_text(start, tmp_path):
    other = other_reward(start, tmp_path)
    made, _, _ = ppo(start, tmp_path / "run", "critic={start: policy}", f"rewards=[{{reward_model: {other}}}]")
    from assent.models.folders import load_scalar
    from assent.models.tokenizer import encode_prompt, encode_response
    from assent.types import Sequences

    loaded = load_scalar(other)
    for line in (made.folder / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        sides = (
            encode_prompt(loaded.tokenizer, sample["prompt"]),
            encode_response(loaded.tokenizer, sample["response"], end=sample["ended"]),
        )
        with torch.no_grad():
            expected = loaded.scalar.last_scores(Sequences.of([sides[0]], [sides[1]])).item()
        assert sample["scores"][other.parent.name] == pytest.approx(expected, abs=1e-4)


def other_reward(start: Path, folder: Path) -> Path:
    """A reward model whose tokenizer has fewer tokens; Qwen2's family besides."""
    make_policy(folder / "other", "qwen2", vocabulary=300)
    text = f"""
parameters: {{start: null, data: null}}
stages:
  reward: {{do: reward_model, model: "${{start}}", data: [{{format: pairs, path: "${{data}}/pairs.jsonl"}}],
    held_out: 0.3, batch_size: 8, optimization: {FAST}, skip_checks: [D11]}}
"""
    made, _ = run_tiny(folder / "rm", f"start={folder / 'other'}", f"data={start}", text=text)
    return made["reward"].folder / "model"


# ------------------------------------------------------------------------------------------------ settings of PPO


@pytest.mark.parametrize(
    "mix",
    ["documents: {format: text, path: 'DATA/mine.txt'}, length: 16",
     "demonstrations: {format: demonstrations, path: 'DATA/messages.jsonl'}"],
)  # fmt: skip
def test_ptx_pulls_the_policy_to_the_text(start, tmp_path, mix):
    mixed = "mix={" + mix.replace("DATA", str(start)) + ", coefficient: 20.0, batch_size: 4}"
    _, lines, _ = ppo(start, tmp_path, mixed, "steps=6", "optimization.schedule.decay=constant")
    losses = [line["ptx/loss"] for line in lines]
    assert len(losses) == 6 and losses[-1] < losses[0]


def test_a_spent_kl_budget_rolls_the_policy_back(start, tmp_path):
    wild = ("optimization.optimizer.lr=0.003", "optimization.schedule={decay: constant}", "kl.coefficient=0.0")
    _, free, _ = ppo(start, tmp_path / "free", *wild, "steps=8")
    seen = [line["objective/kl"] for line in free]
    record = next(k for k in range(2, 8) if seen[k] > max(seen[:k]))
    limit = (max(seen[:record]) + seen[record]) / 2
    made, lines, _ = ppo(start, tmp_path / "held", *wild, "steps=8", f"budget.limit={limit}")
    assert [line["objective/kl"] for line in lines] == seen[: record + 1] and made.metrics["rolled_back"] == 1.0
    # What is saved is the policy that was last seen within the budget: one update less than the one beyond it.
    shorter, _, _ = ppo(start, tmp_path / "shorter", *wild, f"steps={record - 1}")
    kept, same = (load_causal(a.folder / "model").model.state_dict() for a in (made, shorter))
    assert shorter.metrics["rolled_back"] == 0.0 and all(torch.equal(kept[n], same[n]) for n in same)


def test_a_function_of_one_s_own_is_the_reward(start, tmp_path):
    made, lines, _ = ppo(start, tmp_path, "prompts_per_step=24")
    for line in (made.folder / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        assert sample["scores"] == {"friendly": float("gladly" in sample["response"])}
    assert {"score/friendly", "response/unscored"} <= set(lines[0])


def test_a_function_that_scores_nothing_is_refused(start, tmp_path):
    with pytest.raises(ContractError, match="no rollout of this step was scored"):
        ppo(start, tmp_path, "rewards=[{function: 'judges_of_mine:silent'}]")


def test_a_function_that_raises_drops_its_samples_counts_them_and_is_shown_once(start, tmp_path):
    asked = sum(q.endswith("new?") for q in QUESTIONS)
    assert 0 < asked < len(QUESTIONS) == 24
    function = "rewards=[{function: 'judges_of_mine:moody', run_in: {count: 1, seconds: 60, retries: 0}}]"
    _, lines, console = ppo(start, tmp_path, function, "prompts_per_step=24")
    assert [line["unscored/raised"] for line in lines] == [asked] * 2
    assert [line["response/unscored"] for line in lines] == [asked] * 2
    shown = [s for s in console.said if "not that one again" in s]
    assert len(shown) == 1 and "Traceback" in shown[0]


def test_a_trusted_function_runs_in_this_process_and_its_error_ends_the_run(start, tmp_path):
    with pytest.raises(ArithmeticError, match="not that one again"):
        ppo(
            start, tmp_path, "rewards=[{function: 'judges_of_mine:moody', run_in: this_process}]", "prompts_per_step=24"
        )


def test_two_scorers_of_one_name_are_refused(start, tmp_path):
    with pytest.raises(ConfigError, match="two scorers have one name"):
        ppo(start, tmp_path, "watch=[{function: 'judges_of_mine:friendly'}]")


@pytest.mark.parametrize(
    "setting",
    [
        "stages.verdict.judge.weight=2",
        "stages.verdict.proxy.normalise=true",
        "stages.ppo.watch=[{gold: domain, clip: 1}]",
    ],
)
def test_a_setting_for_training_on_a_score_that_only_judges_is_refused(setting):
    with pytest.raises(ConfigError, match="would be ignored"):
        parse_recipe(TINY, TABLE, [setting])


def test_prompts_that_the_judge_does_not_score_are_left_out_of_the_verdict_and_counted(start, tmp_path):
    text = f"""
stages:
  verdict: {{do: evaluate, policy: {start / "policy"}, baseline: {start / "raw"}, best_of: 2,
    tasks: {{format: tasks, path: {start / "tasks.jsonl"}}}, judge: {{function: "judges_of_mine:curt"}},
    generation: {{max_new_tokens: 8}}}}
"""
    made, console = run_tiny(tmp_path, text=text)
    results = json.loads((made["verdict"].folder / "results.json").read_text())
    kept = results["win_rates"]["sampled"]["prompts"]
    assert 0 < kept < len(QUESTIONS)
    assert f"left out {len(QUESTIONS) - kept} of {len(QUESTIONS)} prompts with an unscored answer" in console.said


@pytest.mark.parametrize("name", ["judges_of_mine:freindly", "judges_of_yours:friendly"])
def test_a_misspelt_function_is_refused(start, tmp_path, name):
    with pytest.raises(ConfigError, match="names nothing"):
        ppo(start, tmp_path, f"rewards=[{{function: '{name}'}}]")


def test_prompts_that_leave_no_room_are_left_out_and_counted(start, tmp_path):
    tasks = [{"prompt": q} for q in QUESTIONS] + [{"prompt": "the kettle " * 60}]
    path = write_lines(tmp_path / "long.jsonl", tasks)
    _, _, console = ppo(start, tmp_path / "run", tasks=path)
    assert any("left out 1 of 25 prompts longer than 88 tokens" in line for line in console.said)


# ------------------------------------------------------------------------------------------------ SFT

SFT = f"""
parameters: {{start: null, data: null}}
stages:
  sft: {{do: sft, model: "${{start}}", data: {{format: demonstrations, path: "${{data}}"}}, epochs: 3,
    batch_size: 12, optimization: {FAST}, skip_checks: [D11]}}
"""


def sft(start: Path, folder: Path, *overrides: str, data: Path | None = None):
    return run_tiny(folder, f"start={start / 'raw'}", f"data={data or start / 'messages.jsonl'}", *overrides, text=SFT)


def test_a_judge_chooses_among_all_epochs(start, tmp_path):
    judge = (f"stages.sft.judge={{reward_model: {start / 'reward'}}}", "stages.sft.generation={max_new_tokens: 12}")
    made, _ = sft(start, tmp_path, *judge)
    folder = made["sft"].folder
    choice = json.loads((folder / "choice.json").read_text())
    assert choice["by"] == "validation/score" and len(choice["epochs"]) == 3
    assert choice["chosen"] == 1 + max(range(3), key=lambda i: choice["epochs"][i])
    weights = [load_causal(folder / n).model.state_dict() for n in ("model", *(f"epoch_{i}" for i in (1, 2, 3)))]
    same = [all(torch.equal(weights[0][n], w[n]) for n in w) for w in weights[1:]]
    assert same == [i + 1 == choice["chosen"] for i in range(3)]


@pytest.mark.parametrize("half", ["judge={reward_model: REWARD}", "generation={max_new_tokens: 4}"])
def test_a_judge_without_samples_or_samples_without_a_judge_are_refused(start, tmp_path, half):
    with pytest.raises(ConfigError, match="a judge needs `generation`"):
        sft(start, tmp_path, "stages.sft." + half.replace("REWARD", str(start / "reward")))


def test_over_long_demonstrations_are_refused_or_dropped_and_counted(start, tmp_path):
    with pytest.raises(DataError, match="over-long"):
        sft(start, tmp_path, "stages.sft.lengths={response_tokens: 2}")
    rows = [{"prompt": q, "response": " " + GOOD} for q in QUESTIONS] + [{"prompt": "Is it?", "response": " so" * 200}]
    long = write_lines(tmp_path / "long.jsonl", rows)
    with pytest.raises(ContractError, match="longer than the model can read"):
        sft(start, tmp_path / "a", data=long)
    drop = "stages.sft.lengths={response_tokens: 40, over_long: drop}"
    _, console = sft(start, tmp_path / "b", drop, data=long)
    assert any("dropped 1 of 25" in line for line in console.said)


def test_other_data_in_a_file_makes_the_stage_anew(start, tmp_path):
    data = write_lines(tmp_path / "mine.jsonl", [{"prompt": q, "response": " " + GOOD} for q in QUESTIONS])
    first, _ = sft(start, tmp_path / "run", data=data)
    again, console = sft(start, tmp_path / "run", data=data)
    assert again["sft"].id == first["sft"].id and any("done before" in line for line in console.said)
    write_lines(data, [{"prompt": q, "response": " Yes."} for q in QUESTIONS])
    other, console = sft(start, tmp_path / "run", data=data)
    assert other["sft"].id != first["sft"].id
    assert any("made anew" in line and "mine.jsonl" in line for line in console.said)


def test_a_data_file_that_is_not_there_is_refused_before_anything_runs(start, tmp_path):
    with pytest.raises(ConfigError, match="paths that do not exist"):
        sft(start, tmp_path / "run", data=tmp_path / "nothing.jsonl")
    assert not list((tmp_path / "run").glob("**/metrics.jsonl"))
