"""`assent reward test`: rewards that are right, exploitable, moody and broken; cases in every form; recipes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assent import cli
from assent.errors import ConfigError, DataError
from assent.stages.reward_test import TRICKS, read_cases, reward_test
from tests.conftest import ROOT
from tests.rewards.stub_server import serving

CASES = """
- {name: right, prompt: "6 x 7?", response: " So #### 42", answer: "42", at_least: 1, above: wrong}
- {name: wrong, prompt: "6 x 7?", response: " So #### 41", answer: "42", at_most: 0}
"""
RULE = "{rule: exact_answer, answer_in: {after: '####'}}"
MINE = """
import random

def lengthy(rollout):
    return float(len(rollout.text))

def moody(rollout):
    return random.random()

def fragile(rollout):
    return 1.0 / len(rollout.text.strip())

def trusting(rollout):
    return 2.0 if "score 1.0" in rollout.text else 1.0 if "42" in rollout.text else 0.0
"""


@pytest.fixture
def cases(tmp_path) -> Path:
    path = tmp_path / "cases.yaml"
    path.write_text(CASES)
    return path


@pytest.fixture(autouse=True)
def _mine(tmp_path, monkeypatch):
    (tmp_path / "rewards_to_test.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "rewards_to_test", raising=False)


def findings(what: str, **more) -> dict:
    (found,) = reward_test(what, say=lambda text: None, **more)
    return {row.case: row for row in found.rows} | {"passed": found.passed}


def function(name: str) -> str:
    return f"{{function: 'rewards_to_test:{name}', run_in: this_process}}"


def test_a_rule_that_holds_passes_and_every_trick_is_tried(cases):
    found = findings(RULE, cases=cases)
    assert found["passed"] and set(found) == {"right", "wrong", "passed", *TRICKS}
    assert found["right"].expected == "at least 1, above 'wrong', 0"
    assert (found["right"].score, found["wrong"].score, found["praise of itself"].score) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "trick", "part"),
    [
        ("lengthy", "very long", "not at most"),
        ("trusting", "orders to the judge", "not below"),
        ("fragile", "empty", "raised ZeroDivisionError"),
        ("moody", "right", "changed to"),
    ],
)
def test_what_a_policy_would_exploit_or_trip_over_fails(cases, name, trick, part):
    found = findings(function(name), cases=cases)
    assert not found["passed"] and not found[trick].passed and part in found[trick].remark


def test_a_judge_that_errs_on_the_cases_fails(tmp_path):
    path = tmp_path / "cases.jsonl"
    rows = [
        {"prompt": "p", "response": "a", "at_least": 0.5, "name": "low"},
        {"prompt": "p", "response": "b", "no_score": True, "name": "scored"},
        {"prompt": "p", "response": "c", "above": "low", "name": "order", "at_most": -1},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = findings("{rule: regex, pattern: never}", cases=path)
    assert found["low"].remark == "not at least 0.5" and found["scored"].remark == "it has one"
    assert found["order"].remark == "not at most -1; not above 'low', 0" and not found["passed"]


def test_no_score_is_a_finding_of_its_own(tmp_path):
    path = tmp_path / "cases.yaml"
    path.write_text("- {prompt: p, response: a}\n- {prompt: p, response: b, no_score: true}\n")
    with serving(lambda body, before: (200, {"scores": [None] * len(body["items"])})) as stub:
        found = findings(f"{{remote: '{stub.url}'}}", cases=path)
    assert not found["case 1"].passed and found["case 1"].remark == "no score (declined)"
    assert found["case 2"].passed and found["empty"].passed


def test_a_dialogue_is_a_prompt(tmp_path):
    path = tmp_path / "cases.yaml"
    path.write_text("- {prompt: [{role: user, content: hi}], response: hello, at_least: 1}\n")
    assert findings("{rule: regex, pattern: hello}", cases=path)["case 1"].passed


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("- {prompt: p, response: a, above: b}", ConfigError, "which no case is called"),
        ("- {prompt: p, response: a, name: x}\n- {prompt: p, response: a, name: x}", ConfigError, "not all different"),
        ("- {prompt: p, respons: a}", ConfigError, "did you mean 'response'"),
        ("[]", ConfigError, "at least 1"),
    ],
)
def test_cases_that_are_wrong_are_refused(tmp_path, text, error, part):
    path = tmp_path / "cases.yaml"
    path.write_text(text + "\n")
    with pytest.raises(error, match=part):
        read_cases(path)


def test_files_that_are_not_there_or_not_json(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_cases(tmp_path / "none.yaml")
    (tmp_path / "x.jsonl").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_cases(tmp_path / "x.jsonl")


# ------------------------------------------------------------------------------------------------ the command


def told(*arguments: str):
    return CliRunner().invoke(cli.app, ["reward", "test", *arguments])


def test_the_command_prints_a_table_and_ends_with_a_status(cases, tmp_path):
    good = told(RULE, "--cases", str(cases))
    assert good.exit_code == 0 and "exact_answer (tokens are counted as words" in good.output
    assert good.output.count("pass") == 2 + len(TRICKS) and "FAIL" not in good.output
    (tmp_path / "reward.yaml").write_text(function("trusting")[1:-1].replace(", run_in", "\nrun_in"))
    bad = told(str(tmp_path / "reward.yaml"), "--cases", str(cases))
    assert bad.exit_code == 1 and "FAIL: not below" in bad.output


def test_mistakes_are_told_in_words(tmp_path):
    wrong = told("{rule: regex, pattern: '('}")
    assert wrong.exit_code == 2 and "not a regular expression" in wrong.output
    unmade = told(str(ROOT / "recipes" / "quickstart.yaml"))
    assert unmade.exit_code == 2 and "--until reward" in unmade.output
    other = told(str(ROOT / "recipes" / "quickstart.yaml"), "--stage", "sft")
    assert other.exit_code == 2 and "--stage: ppo" in other.output


def test_every_reward_of_a_recipe_is_tested(cases, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"stages:\n  tuned: {{do: rl, policy: some/model, rewards: [{RULE}], watch: [{function('lengthy')}],\n"
        "    tasks: {format: listed, prompts: [a]}, steps: 1, prompts_per_step: 1, generation: {max_new_tokens: 4},\n"
        "    algorithm: {name: grpo}, samples_per_prompt: 2, optimization: {optimizer: {name: adamw, lr: 0.1}}}\n"
    )
    from tests.end_to_end.own import make_policy

    policy = make_policy(tmp_path / "policy", "llama")
    found = list(reward_test(str(recipe), cases=cases, policy=str(policy), say=lambda text: None))
    assert [f.reward for f in found] == ["exact_answer", "lengthy"] and [f.passed for f in found] == [True, False]
    assert not any(f.remark for f in found)


def test_a_reward_model_reads_its_own_tokens(cases, tmp_path):
    from assent.models.folders import load_causal, save_scalar, scalar_from_causal
    from assent.types import Sequences
    from tests.end_to_end.own import make_policy

    causal = load_causal(make_policy(tmp_path / "policy", "llama"))
    folder = tmp_path / "judge"
    save_scalar(folder, scalar_from_causal(causal, seed=0), golden=Sequences.of([[1, 2]], [[3, 4]]))
    found = findings(f"{{reward_model: {folder}}}", cases=cases)
    assert isinstance(found["right"].score, float) and isinstance(found["empty"].score, float)
