"""Runs: what is finished is kept, what is unfinished continues, and a kill at any moment changes nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy
from toy import RECIPE, TABLE, Heard

from assent.errors import ArtefactError, ConfigError
from assent.pipeline.recipe import Recipe, parse_recipe
from assent.pipeline.run import plan, read_run, run

FAST = RECIPE.replace("0.01", "0")
TOY = Path(toy.__file__)


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(FAST, TABLE, overrides)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of every finished artefact, and the account of the run."""
    finished = [p for p in folder.rglob("*") if p.is_file() and ".work" not in p.parts]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in finished if p.name != ".lock"}


def test_a_run_makes_every_artefact_once(tmp_path: Path) -> None:
    first, second = Heard(), Heard()
    made = run(recipe(), TABLE, tmp_path, console=first)
    before = contents(tmp_path)
    again = run(recipe(), TABLE, tmp_path, console=second)
    assert first.titles == ["first (1/3)", "second (2/3)", "last (3/3)"]
    assert second.titles == []
    assert all("done before" in line for line in second.lines)
    assert {n: a.id for n, a in made.items()} == {n: a.id for n, a in again.items()}
    assert contents(tmp_path) == before
    assert made["last"].parents == {"first": made["first"].id, "second": made["second"].id}
    values = [json.loads((made[n].folder / "value.json").read_text()) for n in ("first", "second", "last")]
    assert values[2] == values[0] + values[1]
    assert not list((tmp_path / ".work").iterdir())


def test_ids_are_the_same_anywhere(tmp_path: Path) -> None:
    a = run(recipe(), TABLE, tmp_path / "a", console=Heard())
    b = run(recipe(), TABLE, tmp_path / "b", console=Heard())
    assert [x.id for x in a.values()] == [x.id for x in b.values()]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_changed_setting_remakes_what_depends_on_it_and_keeps_the_old(tmp_path: Path) -> None:
    old = run(recipe(), TABLE, tmp_path, console=Heard())
    heard = Heard()
    new = run(recipe("stages.second.steps=7"), TABLE, tmp_path, console=heard)
    assert heard.titles == ["second (2/3)", "last (3/3)"]
    assert any("config steps: 6 against 7" in line for line in heard.lines)
    assert any("last: made anew" in line and "parent second" in line for line in heard.lines)
    assert old["second"].folder.exists()
    assert new["second"].folder != old["second"].folder
    assert {n: a.id for n, a in read_run(tmp_path).items()} == {n: a.id for n, a in new.items()}
    back = Heard()
    run(recipe(), TABLE, tmp_path, console=back)
    assert back.titles == []


def test_subsets(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="needs 'first'"):
        run(recipe(), TABLE, tmp_path, only=["second"], console=Heard())
    assert list(run(recipe(), TABLE, tmp_path, until="second", console=Heard())) == ["first", "second"]
    heard = Heard()
    run(recipe(), TABLE, tmp_path, only=["last"], console=heard)
    assert heard.titles == ["last (3/3)"]
    for wrong in ({"only": ["lsat"]}, {"until": "lsat"}):
        with pytest.raises(ConfigError, match="did you mean 'last'"):
            run(recipe(), TABLE, tmp_path, console=Heard(), **wrong)


def test_a_damaged_input_stops_what_is_built_on_it(tmp_path: Path) -> None:
    made = run(recipe(), TABLE, tmp_path, until="first", console=Heard())
    path = made["first"].folder / "3.txt"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ArtefactError, match=r"3\.txt has other contents"):
        run(recipe(), TABLE, tmp_path, console=Heard())


def test_external_contents_are_part_of_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "value.json").write_text("5")
    text = "stages: {a: {do: count, start: ./data, steps: 2}, b: {do: count, start: hub/name, steps: 0}}"
    one = run(parse_recipe(text, TABLE), TABLE, tmp_path / "r", only=["a"], console=Heard())
    (tmp_path / "data" / "value.json").write_text("6")
    heard = Heard()
    two = run(parse_recipe(text, TABLE), TABLE, tmp_path / "r", only=["a"], console=heard)
    assert one["a"].id != two["a"].id
    assert "contents of ./data" in heard.lines[0]


def test_missing_paths_are_named_before_anything_runs(tmp_path: Path) -> None:
    text = "stages: {a: {do: count}, b: {do: count, start: ./none}, c: {do: count, start: x/y.jsonl}}"
    heard = Heard()
    with pytest.raises(ConfigError, match=r"b: \./none, c: x/y\.jsonl"):
        run(parse_recipe(text, TABLE), TABLE, tmp_path, console=heard)
    assert heard.titles == []


def test_marked_and_unmarked_paths_are_part_of_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = "stages: {a: {do: count, steps: 1}, b: {do: join, parts: [a], %s}}"
    for field, name, counts in [
        ("data", "bare", True),
        ("data", "d/e.bin", True),
        ("label", "d/e.bin", True),
        ("label", "x.jsonl", True),
        ("label", "bare", False),
        ("data", "a", True),
    ]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        ids = []
        for content in ("1", "2"):
            path.write_text(content)
            ids.append(plan(parse_recipe(base % f"{field}: {name}", TABLE), tmp_path)["b"].identity.id)
        assert (ids[0] != ids[1]) == counts, (field, name)
    for text in ("..", "/", "x/" * 400, "~nobody/x"):
        identity = plan(parse_recipe(base % f"label: '{text}'", TABLE), tmp_path)["b"].identity
        assert not identity.externals, text
    missing = parse_recipe(base % "data: none.jsonl", TABLE)
    with pytest.raises(ConfigError, match=r"b: none\.jsonl"):
        plan(missing, tmp_path)
    assert missing.parents["b"] == ("a",)
    assert parse_recipe(base % "data: a", TABLE).externals["b"] == ("a",), "a data path is never a stage"


def test_contents_that_change_under_a_running_stage_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "value.json").write_text("5")

    def change(spec: toy.CountSpec, context: toy.StageContext) -> dict[str, float]:
        (data / "value.json").write_text("7")
        return {}

    table = {"count": toy.Stage("count", toy.CountSpec, change, lambda _: {})}
    text = f"stages: {{a: {{do: count, start: {data}}}}}"
    with pytest.raises(ArtefactError, match="was changed while it ran"):
        run(parse_recipe(text, table), table, tmp_path / "r", console=Heard())


def test_a_users_own_code_is_part_of_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_own_rewards.py").write_text("def kind(r): return 1\n")
    text = "stages: {a: {do: count, steps: 1}, b: {do: join, parts: [a], label: 'my_own_rewards:kind'}}"
    one = run(parse_recipe(text, TABLE), TABLE, tmp_path / "r", console=Heard())
    (tmp_path / "my_own_rewards.py").write_text("def kind(r): return 2\n")
    two = run(parse_recipe(text, TABLE), TABLE, tmp_path / "r", console=Heard())
    assert one["a"].id == two["a"].id
    assert one["b"].id != two["b"].id


def test_a_failing_stage_keeps_its_state_and_continues(tmp_path: Path) -> None:
    fails = [True]

    def fail_once(spec: toy.CountSpec, context: toy.StageContext) -> dict[str, float]:
        if fails.pop() if fails else False:
            (context.state / "note").write_text("kept")
            raise RuntimeError("no luck")
        assert (context.state / "note").read_text() == "kept"
        return {}

    table = {"count": toy.Stage("count", toy.CountSpec, fail_once, lambda _: {})}
    chosen = parse_recipe("stages: {a: {do: count}}", table)
    with pytest.raises(RuntimeError, match="no luck"):
        run(chosen, table, tmp_path, console=Heard())
    heard = Heard()
    made = run(chosen, table, tmp_path, console=heard)
    assert heard.lines == ["a: continued where it was interrupted"]
    assert not (made["a"].folder / "note").exists(), "state is no part of the artefact"


# ------------------------------------------------------------------------------------------------ kill -9


def test_killed_at_every_single_step_and_run_again_it_is_the_same(tmp_path: Path) -> None:
    """A fresh process dies by SIGKILL at the n-th file operation, for every n; a second one finishes.

    The operations are those that Python announces to audit hooks, so a kill falls between any two of them. Syncing is
    switched off: it guards against the loss of power, which no test here can bring about, and is slow.
    """
    script = """
import os, sys, hashlib, shutil
from pathlib import Path
import toy
from test_run import contents

from assent.pipeline.artefact import code_version, environment

code_version(), environment()  # read here, so that no kill is spent on reading sources
os.fsync = lambda handle: None
toy.RECIPE = "stages: {a: {do: count, steps: 1}, b: {do: join, parts: [a]}}"

def child(folder, n):
    pid = os.fork()
    if not pid:
        sys.stdout = open(os.devnull, "w")
        try:
            toy.main(folder, str(n))
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]

base = Path(sys.argv[1])
assert child(base / "whole", 0) == 0
whole = contents(base / "whole")
n, killed = 1, 0
while True:
    folder = base / "cut"
    status = child(folder, n)
    if status == 0:
        break
    killed += 1
    assert status == 9, status
    assert child(folder, 0) == 0, n
    assert contents(folder) == whole, n
    assert not list((folder / ".work").iterdir()), n
    shutil.rmtree(folder)
    n += 1
print(killed)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOY.parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_killed_from_outside_at_random_moments_it_continues(tmp_path: Path) -> None:
    """Real processes, real SIGKILL from another process, again and again on one folder until it is finished."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    slow = parse_recipe(RECIPE.replace("0.01", "0.03"), TABLE)
    expected = run(slow, TABLE, tmp_path / "whole", console=Heard())
    code = (
        "import toy; slow = toy.parse_recipe(toy.RECIPE.replace('0.01', '0.03'), toy.TABLE);"
        f"toy.run(slow, toy.TABLE, toy.Path({str(tmp_path / 'cut')!r}), console=toy.Heard())"
    )
    rng, kills = random.Random(0), 0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=TOY.parent)
        deadline = time.monotonic() + 20
        while not (tmp_path / "cut" / ".lock").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
    assert kills >= 1
    run(slow, TABLE, tmp_path / "cut", console=Heard())
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert read_run(tmp_path / "cut").keys() == expected.keys()


def test_two_runs_do_not_share_a_folder_and_a_dead_one_holds_no_lock(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = (
        "import toy, time; r = toy.parse_recipe(toy.RECIPE.replace('0.01', '60'), toy.TABLE);"
        f"toy.run(r, toy.TABLE, toy.Path({str(tmp_path)!r}), console=toy.Heard())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=TOY.parent)
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / ".work").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(ArtefactError, match=f"process {process.pid}"):
            run(recipe(), TABLE, tmp_path, console=Heard())
    finally:
        process.kill()
        process.wait()
    assert len(run(recipe(), TABLE, tmp_path, console=Heard())) == 3
