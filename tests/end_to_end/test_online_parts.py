"""The parts of the online loop through the stage, on a tiny policy: what each changes, and what it must not change."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from assent.errors import ConfigError
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
    rewards: [{function: "judge_of_parts:even", run_in: this_process}]
    tasks: {format: tasks, path: "${tasks}"}
    steps: 4
    prompts_per_step: 6
    samples_per_prompt: 3
    generation: {max_new_tokens: 6}
    algorithm: {name: rloo}
    kl: {coefficient: 0.1}
    optimization: {optimizer: {name: adamw, lr: 0.001}}
    skip_checks: [D11]
"""
JUDGE = '''
ASKED = []


def even(rollout):
    """Tells responses apart by their first token, but not those to every other prompt."""
    ASKED.append((rollout.prompt.id, rollout.token_ids))
    return float(rollout.token_ids[0] % 2) if sum(rollout.prompt.token_ids) % 2 else 0.0
'''


@pytest.fixture
def start(tmp_path, monkeypatch) -> Path:
    make_data(tmp_path, dialogues=False)
    make_policy(tmp_path / "policy", "llama")
    (tmp_path / "judge_of_parts.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "judge_of_parts", raising=False)
    return tmp_path


def tuned(start: Path, name: str, *overrides: str):
    """The artefact and its lines of metrics, with settings of the stage overridden."""
    artefacts, _ = run_tiny(
        start / name, f"start={start / 'policy'}", f"tasks={start / 'tasks.jsonl'}",
        *(f"stages.tuned.{o}" for o in overrides), text=RECIPE,
    )  # fmt: skip
    folder = artefacts["tuned"].folder
    return folder, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------ sampling


def test_dynamic_sampling_leaves_no_group_without_signal_and_asks_nobody_twice(start):
    import judge_of_parts

    _, plain = tuned(start, "plain")
    judge_of_parts.ASKED.clear()
    _, lines = tuned(start, "dynamic", "dynamic_sampling={tries: 20}")
    assert max(line["group/no_signal"] for line in plain) > 0.2
    assert all(line["group/no_signal"] == 0 == line["sampling/filled"] for line in lines)
    assert all(line["episode"] == 18 * (i + 1) for i, line in enumerate(lines))
    sampled = sum(line["sampling/asked"] for line in lines)
    assert sampled > 18 * 4 and lines[-1]["epoch"] == pytest.approx(sampled / (24 * 3))
    first_batch = 18
    assert len(judge_of_parts.ASKED) == sampled + first_batch


def test_a_lag_of_one_samples_with_the_weights_before(start):
    corrects = "algorithm={name: rloo, importance_cap: 2.0}"
    _, now = tuned(start, "now", corrects)
    _, before = tuned(start, "before", corrects, "lag=1")
    assert [line["sampler/lag"] for line in now] == [0, 0, 0, 0]
    assert [line["sampler/lag"] for line in before] == [0, 1, 1, 1]
    assert now[0] == before[0], "the first step has no weights before its own"
    assert all(line["sampler/gap_max"] < 1e-4 for line in now)
    assert all(line["sampler/gap_max"] > 1e-3 for line in before[1:]), "the policy has moved since"
    assert all(abs(line["importance/mean"] - 1) < 1e-4 for line in now)
    assert all(line["importance/mean"] != pytest.approx(1, abs=1e-5) for line in before[1:])


def test_overlong_filtering_trains_on_what_ended(start):
    many = ("prompts_per_step=2", "samples_per_prompt=9", "generation={max_new_tokens: 60}", "steps=2")
    folder, lines = tuned(start, "filtered", "overlong_filter=true", *many)
    assert sum(line["response/overlong_filtered"] for line in lines) > 0
    for before, line in zip([{"episode": 0}, *lines], lines, strict=False):
        assert line["episode"] - before["episode"] == 18 - line["response/overlong_filtered"]
        assert line["response/ended"] == pytest.approx(1 - line["response/overlong_filtered"] / 18)
    kept = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert kept and all(sample["ended"] for sample in kept)


def test_the_soft_overlong_penalty_is_a_setting_of_shaping(start):
    _, lines = tuned(start, "soft", "shaping={overlong: {longest: 6, cache: 4, weight: 0.5}}")
    assert all(0 < line["reward/overlong_penalty"] <= 0.5 for line in lines)


def test_seconds_are_told_by_phase(start):
    folder, lines = tuned(start, "timed", "steps=2")
    times = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    assert len(times) == len(lines) == 2
    for row in times:
        assert set(row["phases"]) >= {"rollout", "score", "update", "sync"}
        assert 0 < sum(row["phases"].values()) <= row["seconds"] + 1.0  # the first sync is before the first step


# ------------------------------------------------------------------------------------------------ kill

EVERYTHING = (
    "steps=12", "dynamic_sampling={tries: 3}", "lag=1", "algorithm={name: rloo, importance_cap: 2.0}",
    "reference_update={name: ema, rate: 0.2}",
    "average={decay: 0.9}", "exact_kl=true", "shaping={overlong: {longest: 6, cache: 4, weight: 0.1}}",
    "kl={coefficient: 0.1, target: 0.01, horizon: 100}",
    "optimization={optimizer: {name: adamw, lr: 0.001}, checkpoint_seconds: 0}",
)  # fmt: skip


@pytest.mark.timeout(280)
def test_killed_and_resumed_with_every_part_is_bit_identical(start):
    folder, lines = tuned(start, "whole", *EVERYTHING)
    rng, killed = random.Random(3), start / "killed"
    for moment in sorted(rng.sample(range(len(lines) - 3), 5)):
        process = multiprocessing.get_context("fork").Process(target=tuned, args=(start, "killed", *EVERYTHING))
        process.start()
        while process.is_alive() and written(killed) < moment:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        assert process.is_alive(), f"the stage ended before it could be killed at step {moment}"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not list(killed.glob("tuned-*")), "a killed stage left something that looks finished"
    again, resumed = tuned(start, "killed", *EVERYTHING)
    assert resumed == lines
    for name in ("samples.jsonl", "model/model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def written(folder: Path) -> int:
    files = list(folder.glob(".work/tuned-*/out/metrics.jsonl"))
    return len(files[0].read_bytes().splitlines()) if files else 0


# ------------------------------------------------------------------------------------------------ following


def test_a_reference_that_is_reset_after_every_step_is_always_the_policy(start):
    _, lines = tuned(start, "reset", "reference_update={name: reset, every: 1}", "exact_kl=true")
    assert all(abs(line["objective/kl"]) < 1e-4 and line["kl/exact"] < 1e-4 for line in lines)
    assert [line["kl/reference_age"] for line in lines] == [0, 0, 0, 0]
    _, still = tuned(start, "still", "exact_kl=true")
    assert all(line["kl/exact"] > 1e-5 for line in still[1:]) and still[0]["kl/exact"] == pytest.approx(0, abs=1e-6)
    # The reward of the two differs by the KL, so the policies part; as far as one step they are the same.
    assert lines[1]["kl/first"] == pytest.approx(still[1]["objective/kl"], abs=1e-6)
    assert lines[1]["kl/first"] != pytest.approx(lines[1]["objective/kl"], abs=1e-6)


def test_a_reset_shows_in_the_age_and_an_average_follows_at_its_rate(start):
    _, lines = tuned(start, "reset", "reference_update={name: reset, every: 2, watch_first: false}")
    assert [line["kl/reference_age"] for line in lines] == [0, 1, 0, 1] and "kl/first" not in lines[0]
    assert abs(lines[2]["objective/kl"]) < 1e-4 < abs(lines[1]["objective/kl"])
    folder, soft = tuned(start, "soft", "reference_update={name: ema, rate: 0.5}")
    assert all(line["kl/reference_age"] == 0 for line in soft)
    assert (folder / "model").is_dir() and soft[3]["kl/first"] != soft[3]["objective/kl"]


def test_the_average_of_the_policy_is_what_is_saved(start):
    from assent.models.folders import load_causal

    plain, lines = tuned(start, "plain")
    averaged, same = tuned(start, "averaged", "average={decay: 0.25}")
    assert lines == same, "training does not see the average"
    one, kept, first = (load_causal(f).model.state_dict() for f in
                        (plain / "model", averaged / "model", start / "policy"))  # fmt: skip
    for name in one:
        # 0.25^4 of the start is left; what the steps between added is small beside the last one's share.
        assert (kept[name] - one[name]).abs().max() <= (first[name] - one[name]).abs().max()
    assert any(not torch.equal(kept[n], one[n]) and not torch.equal(kept[n], first[n]) for n in one)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["average={decay: 0.9}"], "average and budget.limit exclude each other"),
        (["reference_update={name: reset}"], "every"),
        (["reference_update={name: ema, rate: 2.0}"], r"at a rate in \(0, 1\]"),
        (["dynamic_sampling={tries: 3}"], "samples_per_prompt must be at least 2; got 1"),
        (["dynamic_sampling={trys: 3}", "samples_per_prompt=2"], "did you mean 'tries'"),
        (["lag=1"], "lag trains on tokens that older weights drew, and ppo takes them for the policy's own"),
        (["lag=-1"], "greater than or equal to 0"),
        (["shaping={overlong: {longest: 3, cache: 4}}"], "longest must be an integer of at least 5"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides, says):
    with pytest.raises(ConfigError, match=says):
        parse_recipe(TINY, TABLE, [f"stages.ppo.{o}" for o in overrides])


# ------------------------------------------------------------------------------------------------ what is sampled from


def test_restricted_sampling_is_scored_as_it_was_sampled_and_stop_strings_end_a_text(start):
    """The same few tokens before and after, with a lag too; scorers and samples see the text before the string."""
    import judge_of_parts

    seen = []
    judge_of_parts.even = lambda rollout: seen.append(rollout) or float(len(rollout.text))
    generation = "generation={max_new_tokens: 12, top_k: 20, top_p: 0.9, stop_strings: ['e', ' a']}"
    folder, lines = tuned(start, "few", generation, "skip_checks=[]")
    assert all(line["sampler/gap_max"] < 1e-4 for line in lines)
    sampled = [json.loads(line)["response"] for line in (folder / "samples.jsonl").read_text().splitlines()]
    texts = [r.text for r in seen] + sampled
    assert sampled and not any("e" in text or " a" in text for text in texts)
    assert any(r.ended for r in seen) and all(1 <= n <= 20 for r in seen for n in r.kept.counts)
    assert sum(line["response/ended"] for line in lines) > 0
    _, late = tuned(start, "late", generation, "lag=1", "algorithm={name: rloo, importance_cap: 2.0}", "exact_kl=true")
    assert all(1e-6 < line["sampler/gap_max"] < 5 for line in late[1:]), "another policy, among the same tokens"


def test_what_a_stop_string_ended_is_read_by_the_reward_model_as_a_text_that_ended(start):
    from assent.models.folders import load_causal, save_scalar, scalar_from_causal
    from assent.models.tokenizer import encode_prompt, encode_response, text_of
    from assent.stages.scorers.reward_model import folder_scorer
    from assent.types import Prompt, Rollout, Sequences

    policy = load_causal(str(start / "policy"))
    prompt = encode_prompt(policy.tokenizer, "Is the kettle new?")
    ids = encode_response(policy.tokenizer, "Yes, gladly")
    save_scalar(start / "judge", scalar_from_causal(policy, seed=0), golden=Sequences.of([prompt], [ids]))
    judge = folder_scorer("judge", str(start / "judge"), policy)
    asked = Prompt("a", "Is the kettle new?", tuple(prompt))
    more = tuple(policy.tokenizer.encode("Yes, gladly. Human:", add_special_tokens=False))
    said = [
        Rollout(asked, tuple(ids), (0.0,) * len(ids), True, "Yes, gladly", 0),
        Rollout(asked, more, (0.0,) * len(more), True, "Yes, gladly", 0),
        Rollout(asked, more, (0.0,) * len(more), False, text_of(policy.tokenizer)(more), 0),
    ]
    (whole,), (stopped,), (cut,) = judge.score(said)
    assert stopped.value == pytest.approx(whole.value, abs=1e-6) and stopped.index == len(more) - 1
    assert cut.value != pytest.approx(whole.value, abs=1e-4)
