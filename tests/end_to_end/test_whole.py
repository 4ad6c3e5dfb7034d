"""The whole way on the tiny recipe, every check on: what each stage leaves behind, and what a second run does."""

import json

import pytest

from assent.models.folders import load_causal
from assent.pipeline.run import read_run
from assent.stages import chat
from assent.stages.generation import BROKEN, about_broken, decoder
from assent.track.terminal import short
from tests.end_to_end.tiny import TINY, run_tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Nothing skipped, D11 with its processes included."""
    folder = tmp_path_factory.mktemp("whole")
    artefacts, console = run_tiny(folder, text=TINY.replace("skip_checks: [D11]", "skip_checks: []"))
    return folder, artefacts, console.said


def test_every_stage_is_there_with_its_lineage(finished):
    folder, artefacts, _ = finished
    assert list(artefacts) == ["base", "sft", "comparisons", "reward", "ppo", "verdict", "report"]
    assert set(artefacts["ppo"].parents) == {"sft", "reward"}
    assert artefacts["ppo"].parents["reward"] == artefacts["reward"].id
    assert list(read_run(folder)) == list(artefacts)


def test_first_batch_checks_passed_in_every_stage_that_trains(finished):
    _, artefacts, _ = finished
    wanted = {"base": {"D7", "D8", "D11"}, "sft": {"D7", "D8", "D11"}, "reward": {"D2", "D6", "D7", "D8", "D11"},
              "ppo": {"D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D11"}}  # fmt: skip
    for stage, names in wanted.items():
        checks = json.loads((artefacts[stage].folder / "first_batch.json").read_text())["checks"]
        outcomes = {c["name"]: c["outcome"] for c in checks}
        assert set(outcomes) == names
        assert set(outcomes.values()) <= {"passed", "earlier"}, outcomes


def test_ppo_reports_the_familiar_names(finished):
    _, artefacts, _ = finished
    lines = (artefacts["ppo"].folder / "metrics.jsonl").read_text().splitlines()
    metrics = json.loads(lines[-1])
    familiar = [
        "objective/kl",
        "objective/entropy",
        "objective/non_score_reward",
        "objective/rlhf_reward",
        "objective/scores",
        "policy/approxkl_avg",
        "policy/clipfrac_avg",
        "loss/policy_avg",
        "loss/value_avg",
        "val/clipfrac_avg",
        "policy/entropy_avg",
        "val/ratio",
        "val/ratio_var",
        "val/num_eos_tokens",
        "lr",
        "episode",
        "epoch",
        "response/length",
        "response/ended",
        "value/explained_variance",
        "reward/normaliser_mean",
        "reward/normaliser_std",
    ]
    assert not [name for name in familiar if metrics.get(name) is None]
    assert metrics["episode"] == 20 * 12 and metrics["epoch"] == pytest.approx(20 * 12 / 40)
    first = json.loads(lines[0])
    assert abs(first["objective/kl"]) < 1e-4, "the reference is where the policy starts"


def test_every_epoch_of_sft_is_kept_and_the_choice_written_down(finished):
    _, artefacts, _ = finished
    folder = artefacts["sft"].folder
    choice = json.loads((folder / "choice.json").read_text())
    assert len(choice["epochs"]) == 3 and choice["by"] == "validation/loss"
    assert choice["epochs"][choice["chosen"] - 1] == min(choice["epochs"])
    chosen = (folder / f"epoch_{choice['chosen']}" / "model.safetensors").read_bytes()
    assert (folder / "model" / "model.safetensors").read_bytes() == chosen
    assert all((folder / f"epoch_{e}" / "config.json").exists() for e in (1, 2, 3))


def test_the_report_is_one_page_with_verdict_samples_and_card(finished):
    _, artefacts, said = finished
    page = (artefacts["report"].folder / "report.html").read_text()
    for wanted in ("win rate", "assent chat", "held-out", "<svg", artefacts["ppo"].id[:8]):
        assert wanted in page, wanted
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    talking = [name for name in artefacts if f"--stage {name}\n" in page or f"--stage {name}<" in page]
    assert talking == ["base", "sft", "ppo"], "a reward model says nothing"
    assert "The reward model’s card: reward</h2>" in page
    assert any("win rate" in line for line in said) and any("before" in line and "after" in line for line in said)


def test_the_verdict_says_which_responses_it_is_about_and_what_the_judge_said(finished):
    _, artefacts, said = finished
    results = json.loads((artefacts["verdict"].folder / "results.json").read_text())
    for how in ("sampled", "greedy"):
        assert f"{how.capitalize()}: {results['verdicts'][how]['text']}" in said
    means = [results["models"][f"{who} sampled"]["judge"] for who in ("baseline", "policy")]
    for how in ("sampled", "greedy"):
        lost = results["lost"][how]
        assert artefacts["verdict"].metrics[f"kinds_lost_{how}"] == len(lost)
        named = results["verdicts"][how]["text"].partition(" It loses on ")[2]
        assert named.count(" prompts)") == len(lost) and all(f"{kind} (" in named for kind in lost)
    line = next(line for line in said if line.startswith("Mean score by gold"))
    assert f"sampled {short(means[0])} → {short(means[1])}, greedy" in line
    page = (artefacts["report"].folder / "report.html").read_text()
    assert "gold, sampled" in page and f"{means[0]:.2f} before" in page and "scores by\ngold." in page


def test_a_byte_that_is_no_character_is_explained(finished):
    """A model of bytes that was hardly trained draws them now and then."""
    folder = load_causal(finished[1]["sft"].folder / "model")
    ids = folder.tokenizer("somebody else")["input_ids"]
    lone = next(i for i in range(len(folder.tokenizer)) if folder.tokenizer.decode([i]) == BROKEN)
    decode = decoder(folder)
    assert decode([*ids, lone]) == "somebody else" + BROKEN
    assert about_broken([decode(ids), decode([*ids, lone])]) == about_broken([BROKEN])
    assert "no character" in about_broken([BROKEN])[0] and about_broken([decode(ids), ""]) == ()
    whole = folder.tokenizer("ü")["input_ids"]
    assert decode(whole) == "ü" and decode(whole[:1]) == BROKEN, "cut off within a character"


def test_a_second_run_makes_nothing(finished):
    folder, artefacts, _ = finished
    again, console = run_tiny(folder, text=TINY.replace("skip_checks: [D11]", "skip_checks: []"))
    assert {n: a.id for n, a in again.items()} == {n: a.id for n, a in artefacts.items()}
    assert sum("done before" in line for line in console.said) == len(artefacts)


def test_a_changed_setting_makes_its_stage_and_what_follows_anew(finished):
    folder, artefacts, _ = finished
    text = TINY.replace("skip_checks: [D11]", "skip_checks: []")
    changed, console = run_tiny(folder, "stages.verdict.tasks.count=12", text=text)
    made = {n for n, a in changed.items() if a.id != artefacts[n].id}
    assert made == {"verdict", "report"}
    assert artefacts["verdict"].folder.exists(), "the earlier one stays"
    assert any("count" in line and "made anew" in line for line in console.said)


def test_chat_answers_with_any_stage(finished, capsys):
    folder, _, _ = finished
    for stage in (None, "base", "sft"):
        chat(folder, stage, "Question: How do I mend a cup?\nAnswer:")
        assert "\n" in capsys.readouterr().out


def test_scores_of_the_reward_model_are_normalised_on_the_responses_that_were_judged(finished):
    from assent.data.splits import hold_out
    from assent.models.folders import load_scalar
    from assent.models.forward import in_blocks
    from assent.records import comparison_from_json
    from assent.stages.parts import HELD_OUT_SEED, encoder
    from assent.stages.reward_training import Split

    _, artefacts, _ = finished
    loaded = load_scalar(artefacts["reward"].folder / "model")
    lines = (artefacts["comparisons"].folder / "comparisons.jsonl").read_text().splitlines()
    training, _ = hold_out([comparison_from_json(json.loads(line)) for line in lines], 0.2, HELD_OUT_SEED)
    block = Split(encoder(loaded), training, []).block(training)
    (scores,) = in_blocks(lambda s: (loaded.scalar.last_scores(s),), block)
    assert abs(scores.mean().item()) < 1e-4 and scores.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)
