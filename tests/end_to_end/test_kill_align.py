"""SIGKILL at random moments of direct alignment, then the same command: the run ends as if nothing had been.

BCO carries a running mean from step to step, KTO measures one at each: both must come back to the last bit.
"""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.end_to_end.own import BAD, GOOD, QUESTIONS, make_data, make_policy, write_lines
from tests.end_to_end.test_kill import fingerprints, steps_written
from tests.end_to_end.tiny import run_tiny

KILLS = 6
RECIPE = """
parameters: {start: null, data: null, loss: null}
stages:
  aligned:
    do: align
    policy: "${start}"
    data:
      - {format: pairs, path: "${data}/pairs.jsonl"}
      - {format: unpaired, path: "${data}/thumbs.jsonl"}
    epochs: 6
    batch_size: 6
    held_out: 0.3
    algorithm: {name: "${loss}", beta: 0.3}
    optimization: {optimizer: {name: adamw, lr: 0.002}, checkpoint_seconds: 0}
    skip_checks: [D11]
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    make_data(folder, dialogues=False)
    rows = [{"prompt": q, "completion": [BAD, GOOD][i % 2], "label": i % 2 == 1} for i, q in enumerate(QUESTIONS)]
    write_lines(folder / "thumbs.jsonl", rows)
    make_policy(folder / "raw", "llama")
    return folder


def run(start: Path, folder: Path, loss: str):
    return run_tiny(folder, f"start={start / 'raw'}", f"data={start}", f"loss={loss}", text=RECIPE)


def kill_at(start: Path, folder: Path, loss: str, moment: int, rng: random.Random) -> None:
    process = multiprocessing.get_context("fork").Process(target=run, args=(start, folder, loss))
    process.start()
    while process.is_alive() and steps_written(folder, "aligned") < moment:
        time.sleep(0.002)
    time.sleep(rng.random() * 0.02)
    assert process.is_alive(), f"the stage ended before it could be killed at step {moment}"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list(folder.glob("aligned-*")), "a killed stage left something that looks finished"


@pytest.mark.timeout(280)
@pytest.mark.parametrize("loss", ["bco", "kto"])
def test_killed_and_resumed_is_bit_identical(start: Path, tmp_path: Path, loss: str):
    whole = run(start, tmp_path / "whole", loss)[0]["aligned"]
    total = len((whole.folder / "metrics.jsonl").read_bytes().splitlines())
    rng = random.Random(os.getpid() if os.environ.get("ASSENT_RANDOM_KILLS") else 7)
    for moment in sorted(rng.sample(range(total - 4), KILLS)):
        kill_at(start, tmp_path / "killed", loss, moment, rng)
    made, console = run(start, tmp_path / "killed", loss)
    assert any("continued" in line for line in console.said) and any("read back" in line for line in console.said)
    assert fingerprints(made["aligned"].folder) == fingerprints(whole.folder)
    assert made["aligned"].metrics == whole.metrics
