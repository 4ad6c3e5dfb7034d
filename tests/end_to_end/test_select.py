"""Best of n: what is kept of each prompt, the curves beside an enumeration, a kill at any moment, SFT on the pool."""

import itertools
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from pydantic import TypeAdapter

from assent.errors import ConfigError, ContractError
from assent.evals.overoptimisation import BestOfN
from assent.evals.plain import from_json
from assent.pipeline.recipe import parse_recipe
from assent.records import Message
from assent.stages import TABLE
from assent.stages.select import Above, AnyRule, Best, Chooser, Group, best_of_n_curves, closing_figures
from assent.types import Prompt, Rollout, ScoreEvent
from tests.end_to_end.tiny import TINY, run_tiny

SELECT = (
    TINY.split("  ppo:\n")[0].replace("checkpoint_seconds: 0\n  reward:", "checkpoint_seconds: 0\n  reward:")
    + """
  best:
    do: select
    policy: sft
    tasks: {format: domain_tasks, count: 90}
    samples: 4
    scorer: {reward_model: reward}
    watch: [{gold: domain}]
    generation: {max_new_tokens: 40}
    prompts_per_step: 6
    checkpoint_seconds: 0
  good:
    do: select
    policy: sft
    tasks: {format: domain_tasks, count: 24}
    samples: 4
    scorer: {gold: domain}
    keep: {rule: above, least: -3.5, most: 2}
    generation: {max_new_tokens: 40}
  distilled:
    do: sft
    model: base
    data: {format: selected, stages: [best, good]}
    epochs: 1
    batch_size: 12
    optimization: *fast
    skip_checks: [D11]
  report: {do: report, of: [base, sft, best, good, distilled]}
"""
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("select")
    return folder, *run_tiny(folder, text=SELECT)


def rows(artefact, name):
    return [json.loads(line) for line in (artefact.folder / name).read_text().splitlines()]


def rollout(prompt, text, *, ended=True):
    return Rollout(prompt, (1,) * len(text), (-1.0,) * len(text), ended, text, 0)


def chosen(rule, texts, scores, ended=None):
    prompt = Prompt("p", "Question", (1, 2))
    ended = ended or [True] * len(texts)
    rollouts = [rollout(prompt, t, ended=e) for t, e in zip(texts, ended, strict=True)]
    events = [() if s is None else (ScoreEvent(0, s / 2), ScoreEvent(len(t) - 1, s / 2))
              for s, t in zip(scores, texts, strict=True)]  # fmt: skip
    (row,) = Chooser(rule, ["s"], len(texts))(rollouts, [events])
    assert row["scores"]["s"] == scores
    return row["kept"]


def test_what_is_kept_of_a_prompt():
    assert chosen(Best(), ["a", "bb", "c", "d"], [1.0, 4.0, 2.0, 3.0]) == [1]
    assert chosen(Best(), ["a", "bb", "c"], [1.0, 4.0, 2.0], [True, False, True]) == [2], "cut off"
    assert chosen(Best(), ["a", "bb", "c"], [1.0, None, 0.0]) == [0], "no score"
    assert chosen(Best(), ["a", "b"], [None, 3.0], [True, False]) == []
    assert chosen(Above(rule="above", least=2.0), ["a", "b", "c", "d"], [1.0, 2.0, 4.0, 3.0]) == [2, 3, 1]
    assert chosen(Above(rule="above", least=2.0, most=2), ["a", "b", "c", "d"], [1.0, 2.0, 4.0, 3.0]) == [2, 3]
    assert chosen(Above(rule="above", least=0.0), ["a", "b", "a"], [1.0, 2.0, 1.0]) == [1, 0], "one of equal texts"
    assert chosen(Above(rule="above", least=9.0), ["a", "b"], [1.0, 2.0]) == []


def test_the_choice_is_made_prompt_by_prompt():
    """A prompt that the scorer likes does not crowd another out, as the highest scores over all prompts would."""
    easy, hard = (Prompt(i, i, (1,)) for i in ("easy", "hard"))
    rollouts = [rollout(easy, "a"), rollout(easy, "b"), rollout(hard, "c"), rollout(hard, "d")]
    events = [[(ScoreEvent(0, s),) for s in (9.0, 8.0, 1.0, 2.0)]]
    assert [g["kept"] for g in Chooser(Best(), ["s"], 2)(rollouts, events)] == [[0], [1]]


def group(scores, gold, **more):
    k = len(scores)
    known = {"responses": [str(i) for i in range(k)], "ended": [True] * k, "lengths": [1] * k, "kept": [0]} | more
    return Group(id="p", prompt="q", kind="", scores={"rm": scores, "gold": gold}, **known)


def test_the_curves_are_the_mean_over_every_draw_of_n():
    """Against the definition: draw n of the K at random, take the one that the chooser likes best."""
    rng = np.random.default_rng(0)
    made = [group(list(rng.normal(size=6)), list(rng.normal(size=6))) for _ in range(3)]
    curves = best_of_n_curves(made)
    for label in ("rm", "gold"):
        points = [from_json(BestOfN, p) for p in curves[label]]
        assert [p.n for p in points] == [1, 2, 4, 6]
        for p in points:
            draws = [max(draw, key=lambda i, g=g: g.scores["rm"][i]) for g in made for draw in
                     itertools.combinations(range(6), p.n)]  # fmt: skip
            owners = [g for g in made for _ in itertools.combinations(range(6), p.n)]
            expected = np.mean([g.scores[label][i] for g, i in zip(owners, draws, strict=True)])
            assert p.gold.value == pytest.approx(expected, abs=1e-6)
            assert p.kl == pytest.approx(np.log(p.n) - (p.n - 1) / p.n)


def test_a_prompt_without_every_score_is_left_out_of_the_curves():
    made = [group([1.0, 2.0], [5.0, 7.0]), group([1.0, None], [0.0, 0.0])]
    assert [p["gold"]["value"] for p in best_of_n_curves(made)["gold"]] == [6.0, 7.0]
    assert best_of_n_curves(made[1:]) == {"rm": [], "gold": []}


def test_what_is_lost_is_counted():
    made = [
        group([1.0, 2.0, 3.0], [0.0, 0.0, 1.0], kept=[2], responses=["a", "a", "b"], lengths=[4, 4, 7]),
        group([5.0, 5.0, 5.0], [0.0, 0.0, 0.0], kept=[0], ended=[True, False, False]),
        group([None, 1.0, 1.0], [0.0, 0.0, 0.0], kept=[]),
    ]
    figures = closing_figures(made)
    expected = {"prompts": 3, "demonstrations": 2, "prompts_without": 1, "prompts_all_equal": 1, "repeats": 1,
                "unended": 2, "unscored": 1, "samples": 9, "length_kept": 4.0, "rm_kept": 4.0, "rm_mean": 23 / 8,
                "gold_kept": 0.5}  # fmt: skip
    assert {k: figures[k] for k in expected} == pytest.approx(expected)
    with pytest.raises(ContractError, match="nothing was kept"):
        closing_figures(made[2:])


def test_rules_are_read_strictly():
    rule = TypeAdapter(AnyRule)
    assert rule.validate_python({}) == Best()
    with pytest.raises(ValueError, match="least"):
        rule.validate_python({"rule": "above"})
    with pytest.raises(ConfigError, match="keep"):
        parse_recipe(SELECT.replace("rule: above", "rule: top"), TABLE)
    with pytest.raises(ConfigError, match="would be ignored"):
        parse_recipe(SELECT.replace("scorer: {gold: domain}", "scorer: {gold: domain, weight: -1}"), TABLE)


def test_the_best_by_the_reward_model_is_written_with_its_scores(finished):
    _, made, _ = finished
    groups, kept = rows(made["best"], "groups.jsonl"), rows(made["best"], "demonstrations.jsonl")
    assert len(groups) == 90 and made["best"].metrics["demonstrations"] == len(kept)
    by_id = {row["id"]: row for row in kept}
    for g in groups:
        may = [s for s, e in zip(g["scores"]["reward"], g["ended"], strict=True) if e]
        assert (g["id"] in by_id) == bool(may)
        if may:
            assert by_id[g["id"]]["score"] == max(may)
            assert by_id[g["id"]]["n"] == 4 and by_id[g["id"]]["high"] == max(g["scores"]["reward"])
    metrics = made["best"].metrics
    assert metrics["reward_kept"] > metrics["reward_mean"]
    logged = rows(made["best"], "metrics.jsonl")
    assert [row["step"] for row in logged] == list(range(15))
    for name in ("reward", "gold"):
        assert np.mean([row[f"score/{name}"] for row in logged]) == pytest.approx(metrics[f"{name}_mean"], abs=1e-5)
    curve = json.loads((made["best"].folder / "best_of_n.json").read_text())
    assert set(curve) == {"reward", "gold"} and [p["n"] for p in curve["gold"]] == [1, 2, 4]


def test_fine_tuning_takes_the_pool(finished):
    _, made, console = finished
    pool = sum(made[s].metrics["demonstrations"] for s in ("best", "good"))
    training = made["distilled"].metrics["demonstrations"]
    assert 0.8 * pool <= training < pool, "the rest validates"
    assert set(made["distilled"].parents) == {"base", "best", "good"}
    assert any("demonstrations kept by good" in line for line in console.said)
    assert max(len(g["kept"]) for g in rows(made["good"], "groups.jsonl")) == 2
    page = (made["report"].folder / "report.html").read_text()
    assert "best of n by reward: gold" in page


def test_dialogues_come_back_as_dialogues(tmp_path):
    from types import SimpleNamespace

    from assent.stages.sources import SelectedDemonstrations

    prompt = (Message("user", "Hello"),)
    rollouts = [rollout(Prompt("p", prompt, (1,)), t) for t in "ab"]
    (made,) = Chooser(Best(), ["s"], 2)(rollouts, [[(ScoreEvent(0, 1.0),), (ScoreEvent(0, 2.0),)]])
    (tmp_path / "demonstrations.jsonl").write_text(json.dumps({"prompt": made["prompt"], "response": "b"}) + "\n")
    context = SimpleNamespace(inputs={"best": SimpleNamespace(folder=tmp_path)}, say=lambda _: None)
    (read,) = SelectedDemonstrations(format="selected", stages=("best",)).records_for(context)
    assert read.prompt == prompt and read.response == "b"


def test_killed_again_and_again_and_resumed_it_keeps_the_same(finished, tmp_path):
    import shutil

    folder, made, _ = finished
    shutil.copytree(folder, tmp_path / "killed", ignore=shutil.ignore_patterns("best-*", "good-*", "distilled-*"))
    folder = tmp_path / "killed"
    for moment in (1, 3, 5, 8, 12):
        process = multiprocessing.get_context("fork").Process(
            target=run_tiny, args=(folder,), kwargs={"only": "best", "text": SELECT}
        )
        process.start()
        while process.is_alive() and steps_done(folder) < moment:
            time.sleep(0.002)
        assert process.is_alive(), f"the stage ended before it could be killed at step {moment}"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not list(folder.glob("best-*"))
    again, console = run_tiny(folder, only="best", text=SELECT)
    assert any("continued" in line for line in console.said)
    for name in ("groups.jsonl", "demonstrations.jsonl", "best_of_n.json", "metrics.jsonl"):
        assert (again["best"].folder / name).read_bytes() == (made["best"].folder / name).read_bytes()


def steps_done(folder) -> int:
    files = list(folder.glob(".work/best-*/out/groups.jsonl"))
    return len(files[0].read_bytes().splitlines()) // 6 if files else 0
