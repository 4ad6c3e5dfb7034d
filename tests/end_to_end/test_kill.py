"""SIGKILL at ten random moments of a stage, then the same command: the run ends as if nothing had been, bit for bit."""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.end_to_end.tiny import run_tiny, start_tiny

KILLS = 10
EXACT = ("metrics.jsonl", "samples.jsonl", "comparisons.jsonl", "card.json", "choice.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The whole way up to PPO, never interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_tiny(folder, until="ppo")
    return folder


def fingerprints(artefact: Path) -> dict[str, str]:
    """Digest of every file whose bytes must not depend on interruptions: weights, metrics, samples, cards."""
    kept = [p for p in artefact.rglob("*") if p.name.endswith(".safetensors") or p.name in EXACT]
    assert kept, f"nothing to compare in {artefact}"
    return {str(p.relative_to(artefact)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(kept)}


def steps_written(folder: Path, stage: str) -> int:
    files = list(folder.glob(f".work/{stage}-*/out/metrics.jsonl"))
    return len(files[0].read_bytes().splitlines()) if files else 0


@pytest.mark.timeout(280)
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_killed_ten_times_and_resumed_is_bit_identical(finished: Path, tmp_path: Path, stage: str):
    (whole,) = finished.glob(f"{stage}-*")
    folder = tmp_path / "killed"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(f"{stage}-*", "ppo-*"))
    total = len((whole / "metrics.jsonl").read_bytes().splitlines())
    rng = random.Random(os.getpid() if os.environ.get("ASSENT_RANDOM_KILLS") else 7)
    # Not the last steps: the stage would end before the kill arrives, and nothing would be tested.
    moments = sorted(rng.sample(range(total - 4), KILLS))
    for moment in moments:
        process = start_tiny(folder, stage)
        while process.is_alive() and steps_written(folder, stage) < moment:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.02)
        assert process.is_alive(), f"the stage ended before it could be killed at step {moment} of {total}"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not list(folder.glob(f"{stage}-*")), "a killed stage left something that looks finished"
    artefacts, console = run_tiny(folder, only=stage)
    assert any("continued" in line for line in console.said)
    assert fingerprints(artefacts[stage].folder) == fingerprints(whole)
    figures = {n: json.loads((a / "manifest.json").read_text())["metrics"] for n, a in
               (("killed", artefacts[stage].folder), ("whole", whole))}  # fmt: skip
    assert figures["killed"] == figures["whole"]
