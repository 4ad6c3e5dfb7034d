"""The command line, over a stand-in table: what it prints, how it exits, and how fast it answers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

STAND_IN = '''
"""Takes the place of `assent.stages`: two stages, no torch."""
import time, types, sys
from assent.errors import ConfigError
from assent.pipeline.stage import Stage, StageSpec
from contextlib import contextmanager

class Spec(StageSpec):
    steps: int = 2
    slow: float = 0.0

def work(spec, context):
    for i in range(spec.steps):
        time.sleep(spec.slow)
        context.tracker.progress(i + 1, spec.steps)
    (context.out / "x").write_text(str(context.seed))
    return {"x": 1.0}

class Tracker:
    def progress(self, done, total): print("progress", done, total, flush=True)

class Console:
    def say(self, text): print(text, flush=True)
    @contextmanager
    def stage(self, title, out, board):
        print("stage", title, flush=True)
        yield Tracker()

def chat(run, stage, prompt, *, device): print("chat", run, stage, prompt, device)

def place_of(device, precision):
    if device != "cpu" and device != "auto":
        raise ConfigError(f"device: {device} is not there", got="no GPU", why="none", fix="cpu")
    return f"cpu in {precision}"

class Verdict:
    algorithm, optimum, start, distance, tolerance = "ppo", "ref * exp(r / beta)", 0.5, 0.01, 0.02
    def __init__(self, arrived): self.arrived = arrived

import os
sys.modules["assent.stages"] = stages = types.ModuleType("assent.stages")
stages.TABLE = {"work": Stage("work", Spec, work, lambda s: {"updates": s.steps, "tokens": s.steps * 1000})}
stages.console = lambda *, tensorboard: Console()
stages.chat, stages.place_of = chat, place_of
stages.verify = lambda: [Verdict(True), Verdict(os.environ.get("FAIL") is None)]
import assent
assent.stages = stages
from assent.cli import main
main()
'''

RECIPE = "name: toy\nparameters: {n: 2}\nstages:\n  a: {do: work, steps: '${n}'}\n  b: {do: work, steps: 3}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.yaml").write_text(RECIPE)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", "COLUMNS": "120", **more}


def assent(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "stand_in.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(**env), check=False)


def test_run_then_run_again_then_change_and_ask_why(folder: Path) -> None:
    first = assent(folder, "run", "toy.yaml")
    assert first.returncode == 0, first.stderr
    assert "stage a (1/2)" in first.stdout
    assert "assent chat runs/toy" in first.stdout
    again = assent(folder, "run", "toy.yaml")
    assert again.stdout.count("done before") == 2
    changed = assent(folder, "run", "toy.yaml", "n=5", "stages.b.slow=0", "--only", "a")
    assert "stage a (1/2)" in changed.stdout
    assert "stage b" not in changed.stdout
    one, other = sorted((folder / "runs" / "toy").glob("a-*"))
    reasons = assent(folder, "why", str(one), str(other))
    assert reasons.returncode == 0
    assert "config steps" in reasons.stdout
    assert "same artefact" in assent(folder, "why", str(one), str(one)).stdout


def test_folder_and_until(folder: Path) -> None:
    done = assent(folder, "run", "toy.yaml", "--folder", "elsewhere", "--until", "a")
    assert done.returncode == 0
    assert len(list((folder / "elsewhere").glob("a-*"))) == 1
    assert not list((folder / "elsewhere").glob("b-*"))


def test_explain_prints_the_resolved_recipe_and_the_derived_numbers(folder: Path) -> None:
    shown = assent(folder, "explain", "toy.yaml", "n=7").stdout
    assert "steps: 7" in shown
    assert "slow: 0.0" in shown
    assert "updates  7" in shown
    assert "tokens  7,000" in shown
    assert "device: auto" in shown and "precision: float32" in shown
    assert "models would run on" in shown


def test_explain_says_where_a_recipe_would_not_run(folder: Path) -> None:
    done = assent(folder, "explain", "toy.yaml", "device=cuda")
    assert done.returncode == 0
    assert "would not run on this machine: device: cuda is not there" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        (["run", "none.yaml"], 2, "cannot be read"),
        (["run", "toy.yaml", "stages.a.stesp=3"], 2, "did you mean 'steps'"),
        (["run", "toy.yaml", "--only", "aa"], 2, "did you mean 'a'"),
        (["run", "toy.yaml", "--only", "a", "--folder", "x", "--until", "zzz"], 2, "choose among a, b"),
        (["explain", "toy.yaml", "m=3"], 2, "choose among device, n, name"),
        (["run", "toy.yaml", "device=gpu"], 2, "device"),
        (["run", "toy.yaml", "device=cuda:99"], 2, "cuda:99"),
        (["run", "toy.yaml", "precision=fp8"], 2, "bfloat16"),
        (["why", ".", "."], 1, "is not an artefact"),
        (["rum"], 2, "rum"),
    ],
)
def test_errors_are_told_in_words_with_a_status(folder: Path, arguments: list[str], status: int, part: str) -> None:
    done = assent(folder, *arguments)
    assert done.returncode == status
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    if arguments[0] != "rum":
        for word in ("got:", "why:", "fix:"):
            assert word in done.stderr


def test_chat_and_verify_reach_the_stages(folder: Path) -> None:
    assert "chat runs/toy b hello" in assent(folder, "chat", "runs/toy", "--stage", "b", "--prompt", "hello").stdout
    good = assent(folder, "verify")
    assert good.returncode == 0
    assert "arrived" in good.stdout
    bad = assent(folder, "verify", FAIL="1")
    assert bad.returncode == 1
    assert "FAILED" in bad.stdout


def test_ctrl_c_says_that_the_same_command_continues(folder: Path) -> None:
    command = [sys.executable, "stand_in.py", "run", "toy.yaml", "stages.b.slow=30"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # A job in the background ignores the signal, and so would its child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stdout is not None
    while "stage b" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command continues" in said
    assert "Traceback" not in said


def test_help_is_light() -> None:
    """Measured as processor time, the best of three, since wall time is also the neighbours'."""
    seconds = []
    for _ in range(3):
        before = os.times()
        command = [sys.executable, "-X", "importtime", "-m", "assent", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        for heavy in ("torch", "transformers", "pydantic", "yaml", "rich.console", "assent.pipeline", "assent.config"):
            assert f" {heavy}\n" not in done.stderr, f"{heavy} is imported by --help"
    assert "explain" in done.stdout
    assert min(seconds) < 0.3


def test_a_module_of_ones_own_beside_the_recipe_is_found(folder: Path) -> None:
    (folder / "mine.py").write_text("class Judge: ...\n")
    code = "from assent import cli, config; cli.app = lambda: None; cli.main(); print(config.resolve('mine:Judge'))"
    safe = [sys.executable, "-P", "-c", code]
    done = subprocess.run(safe, cwd=folder, capture_output=True, text=True, env=environment(), check=False)
    assert "mine.Judge" in done.stdout, done.stderr
