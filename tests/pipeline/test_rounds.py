"""Rounds: what a block is written out to, what is refused, and that a run of it is like any other."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import toy
from toy import TABLE, Heard

from assent.errors import ConfigError
from assent.pipeline.recipe import parse_recipe
from assent.pipeline.run import plan, run

ROUNDS = """
name: three
parameters: {times: 3}
stages:
  sft: {do: count, steps: 2}
  round:
    do: rounds
    count: "${times}"
    start: {policy: sft}
    stages:
      asked: {do: count, steps: 2, start: previous.policy}
      pooled: {do: join, parts: [sft, every.asked, earlier.pooled]}
      policy: {do: count, steps: 2, start: this.pooled}
  last: {do: join, parts: [round_last.policy, round_every.pooled]}
"""


def refused(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(text, TABLE, overrides)
    return str(caught.value)


def test_a_block_becomes_the_stages_of_every_round() -> None:
    recipe = parse_recipe(ROUNDS, TABLE)
    names = [f"round_{i}.{stage}" for i in (1, 2, 3) for stage in ("asked", "pooled", "policy")]
    assert list(recipe.stages) == ["sft", *names, "last"]
    assert recipe.parents["round_1.asked"] == ("sft",)
    assert recipe.parents["round_2.asked"] == ("round_1.policy",)
    assert recipe.parents["round_1.pooled"] == ("sft", "round_1.asked")
    assert recipe.parents["round_3.pooled"] == (
        "sft", "round_1.asked", "round_2.asked", "round_3.asked", "round_1.pooled", "round_2.pooled")  # fmt: skip
    assert recipe.parents["round_3.policy"] == ("round_3.pooled",)
    assert recipe.parents["last"] == ("round_3.policy", "round_1.pooled", "round_2.pooled", "round_3.pooled")


def test_rounds_differ_in_their_seeds_and_a_longer_run_keeps_the_first_ones(tmp_path: Path) -> None:
    one, three = parse_recipe(ROUNDS, TABLE, ["times=1"]), parse_recipe(ROUNDS, TABLE)
    assert len({three.seed_of(f"round_{i}.asked") for i in (1, 2, 3)}) == 3
    a, b = plan(one, tmp_path), plan(three, tmp_path)
    assert [n for n in a if a[n].identity.id != b[n].identity.id] == ["last"]


def test_the_resolved_recipe_has_the_rounds_written_out_and_reads_back() -> None:
    recipe = parse_recipe(ROUNDS, TABLE)
    again = parse_recipe(recipe.to_yaml(), TABLE)
    assert again.stages == recipe.stages and again.parents == recipe.parents
    assert parse_recipe(recipe.to_yaml(), TABLE, ["stages.round_2.asked.steps=9"]).stages["round_2.asked"].steps == 9


def test_settings_of_every_round_and_of_one() -> None:
    all_of_them = parse_recipe(ROUNDS, TABLE, ["stages.round.stages.asked.steps=5"])
    assert [all_of_them.stages[f"round_{i}.asked"].steps for i in (1, 2, 3)] == [5, 5, 5]
    one = parse_recipe(ROUNDS, TABLE, ["stages.round_2.asked.steps=7"])
    assert [one.stages[f"round_{i}.asked"].steps for i in (1, 2, 3)] == [2, 7, 2]
    assert "did you mean 'round_2.asked'" in refused(ROUNDS, "stages.round_2.askd.steps=7")
    assert "there is no stage 'round_4.asked'" in refused(ROUNDS, "stages.round_4.asked.steps=7")


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("start: {policy: sft}", "start: {}", ["round.stages.asked.start (line 11)", "no previous.policy", "`start:"]),
        ("start: {policy: sft}", "start: {policy: sft, asked: sft}", ["changes nothing", "previous.asked"]),
        ("start: this.pooled", "start: this.poold", ["no stage 'poold'", "did you mean 'pooled'"]),
        ("start: this.pooled", "start: every.pooled", ["may stand for several", "put it into a list"]),
        ("start: this.pooled", "start: pooled", ["there is no stage 'pooled'", "round_3.pooled"]),
        ("start: this.pooled", "start: this.policy", ["does not come before"]),
        ("parts: [round_last.policy,", "parts: [this.policy, ", ["this.policy"]),
        ('count: "${times}"', "count: 0", ["round.count"]),
        ("do: rounds\n", "do: rounds\n    tmies: 3\n", ["round.tmies", "unknown key"]),
        ("steps: 2, start: this", "stpes: 2, start: this", ["stages.round_1.policy.stpes (line 13)", "'steps'"]),
        ("parts: [sft, every.asked, earlier.pooled]", "parts: [sft], judges: {a: {model: every.asked}}", ["list"]),
        ("  last:", "  round_1.asked: {do: count}\n  last:", ["would be called 'round_1.asked'"]),
    ],
)  # fmt: skip
def test_slips_are_refused_where_they_stand(old: str, new: str, parts: list[str]) -> None:
    assert old in ROUNDS
    said = refused(ROUNDS.replace(old, new))
    assert all(part in said for part in parts), said


def test_what_is_wrong_in_every_round_is_said_once() -> None:
    said = refused(ROUNDS.replace("steps: 2, start: this", "stpes: 2, start: this"))
    assert said.count("stpes") == 1


def test_mappings_in_lists_are_repeated_whole() -> None:
    text = ROUNDS.replace("sft, every.asked, earlier.pooled", "[sft]").replace("[[sft]]", "[sft]")
    text += "  more: {do: join, parts: [round_every.asked, round_every.policy]}\n"
    recipe = parse_recipe(text, TABLE)
    assert recipe.parents["more"] == tuple(f"round_{i}.{s}" for s in ("asked", "policy") for i in (1, 2, 3))


def test_two_words_in_one_item_are_refused() -> None:
    item = "{a: every.asked, b: earlier.asked}"
    assert "stand in one item" in refused(ROUNDS.replace("parts: [sft, every.asked", f"parts: [{item}"))


def test_a_run_of_rounds_skips_what_is_done_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    recipe = parse_recipe(ROUNDS, TABLE)
    whole = run(recipe, TABLE, tmp_path / "whole", console=Heard())
    again = Heard()
    run(recipe, TABLE, tmp_path / "whole", console=again)
    assert again.titles == [] and len(again.lines) == len(recipe.stages)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(toy.__file__).parent)!r})\n"
        "import os, signal, toy\nfrom pathlib import Path\n"
        "from assent.pipeline.recipe import parse_recipe\nfrom assent.pipeline.run import run\n"
        "heard = toy.Heard()\nrecipe = parse_recipe(sys.argv[1], toy.TABLE)\n"
        "sys.addaudithook(lambda e, a: e == 'os.rename' and 'round_2.pooled' in str(a[1]) "
        "and os.kill(os.getpid(), signal.SIGKILL))\n"
        "run(recipe, toy.TABLE, Path(sys.argv[2]), console=heard)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, ROUNDS, str(tmp_path / "killed")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "killed").is_dir() and not list((tmp_path / "killed").glob("round_2.pooled-*"))
    heard = Heard()
    made = run(recipe, TABLE, tmp_path / "killed", console=heard)
    assert heard.titles[0].startswith("round_2.pooled") and len(heard.titles) == 6
    assert {n: a.files for n, a in made.items()} == {n: a.files for n, a in whole.items()}
    assert list(run(recipe, TABLE, tmp_path / "part", until="round_1.policy", console=Heard()))[-1] == "round_1.policy"
