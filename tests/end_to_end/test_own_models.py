"""From folders and files of one's own through every stage, families and templates as users have them."""

import json

import pytest
import torch

from assent.models.folders import load_causal
from assent.models.tokenizer import stop_ids
from assent.records import Demonstration, Message
from assent.stages import chat
from assent.stages.parts import example_of
from tests.end_to_end.own import GOOD, QUESTIONS, SPEECH, make_data, make_policy
from tests.end_to_end.tiny import run_tiny

FAST = "{optimizer: {name: adamw, lr: 0.01}, schedule: {decay: constant}}"
RECIPE = """
name: own
seed: 1
parameters: {{policy: null, data: null}}
stages:
  sft:
    do: sft
    model: "${{policy}}"
    data: {demonstrations}
    epochs: 6
    batch_size: 8
    optimization: &fast {fast}
    skip_checks: [D11]
  reward:
    do: reward_model
    model: sft
    data: [{{format: pairs, path: "${{data}}/pairs.jsonl"}}]
    held_out: 0.3
    batch_size: 8
    epochs: 3
    optimization: *fast
    skip_checks: [D11]
  ppo:
    do: rl
    policy: sft
    rewards: [{{reward_model: reward}}]
    tasks: {{format: tasks, path: "${{data}}/tasks.jsonl"}}
    steps: 2
    prompts_per_step: 8
    generation: {{max_new_tokens: 12}}
    algorithm: {{epochs: 1, minibatches: 2}}
    optimization: {{optimizer: {{name: adamw, lr: 0.0001}}}}
    skip_checks: [D11]
  verdict:
    do: evaluate
    policy: ppo
    baseline: sft
    tasks: {{format: tasks, path: "${{data}}/tasks.jsonl"}}
    judge: {{reward_model: reward}}
    trained_on_judge: true
    generation: {{max_new_tokens: 12}}
"""
DEMONSTRATIONS = {
    True: '{format: messages, path: "${data}/messages.jsonl"}',
    False: '{format: demonstrations, path: "${data}/messages.jsonl"}',
}


def recipe(*, dialogues: bool) -> str:
    return RECIPE.format(demonstrations=DEMONSTRATIONS[dialogues], fast=FAST)


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen2", "qwen3"])
def trained(request, tmp_path_factory):
    """Family, the folder of the run, its artefacts, and what was said; GPT-2 has no template and takes plain text."""
    folder = tmp_path_factory.mktemp(request.param)
    policy = make_policy(folder / "policy", request.param)
    dialogues = SPEECH[request.param][1] is not None
    make_data(folder, dialogues=dialogues)
    text = recipe(dialogues=dialogues)
    artefacts, console = run_tiny(folder / "run", f"policy={policy}", f"data={folder}", text=text)
    return request.param, folder / "run", artefacts, console


def test_every_stage_is_finished(trained):
    _, _, artefacts, _ = trained
    assert list(artefacts) == ["sft", "reward", "ppo", "verdict"]


def test_chat_says_what_was_demonstrated_and_stops(trained, capsys):
    """Only a model that was trained on the very frame in which it is asked, and to close it, answers so."""
    _, run, _, _ = trained
    chat(run, "sft", QUESTIONS[3])
    assert capsys.readouterr().out.strip() == GOOD


def test_responses_end_with_the_template_s_end_of_turn(trained):
    family, _, artefacts, _ = trained
    causal = load_causal(artefacts["sft"].folder / "model")
    _, template, end_of_turn = SPEECH[family]
    prompt = (Message("user", "Is it?"),) if template else "Is it?"
    ids = example_of(causal, Demonstration(prompt, GOOD)).response_ids
    expected = end_of_turn or causal.tokenizer.eos_token
    assert causal.tokenizer.convert_ids_to_tokens(ids[-1]) == expected
    assert list(ids).count(ids[-1]) == 1
    assert stop_ids(causal.tokenizer)[0] == ids[-1]
    served = json.loads((artefacts["sft"].folder / "model" / "generation_config.json").read_text())["eos_token_id"]
    assert ids[-1] in (served if isinstance(served, list) else [served]), "other servers would not stop there"


def test_responses_of_the_policy_come_to_their_end(trained):
    _, _, artefacts, _ = trained
    assert artefacts["verdict"].metrics["baseline_greedy_ended"] == 1.0


def test_the_reward_model_learns_the_pairs(trained):
    _, _, artefacts, _ = trained
    assert artefacts["reward"].metrics["accuracy"] == 1.0


def test_folders_of_old_transformers_open_too(tmp_path):
    """GPT-2's class once saved its causal mask as weights, in a pickle; many a model of the hub is still like that."""
    folder = make_policy(tmp_path / "gpt2", "gpt2")
    fresh = load_causal(folder)
    weights = dict(fresh.model.state_dict())
    for layer in range(2):
        weights[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 96, 96, dtype=torch.uint8)
        weights[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    opened = load_causal(folder).model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in opened.items())


def test_any_stage_may_stand_alone(trained, tmp_path):
    """The reward model of one run is the reward of another, by its folder; the policy starts from a folder."""
    family, run, artefacts, _ = trained
    text = recipe(dialogues=SPEECH[family][1] is not None)
    alone = text[: text.index("  sft:")] + text[text.index("  ppo:") : text.index("  verdict:")]
    alone = alone.replace("policy: sft", 'policy: "${policy}"').replace(
        "reward_model: reward", "reward_model: " + str(artefacts["reward"].folder / "model")
    )
    made, _ = run_tiny(tmp_path, f"policy={artefacts['sft'].folder / 'model'}", f"data={run.parent}", text=alone)
    same = [
        json.loads(line)["objective/scores"] for line in (made["ppo"].folder / "metrics.jsonl").read_text().splitlines()
    ]
    there = [
        json.loads(line)["objective/scores"]
        for line in (artefacts["ppo"].folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert same == there, "the same models by path and by name must train alike"
