"""`assent run` under torchrun: two processes make one run, whose figures are those of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assent.pipeline.run import read_run
from tests.end_to_end.tiny import TINY, run_tiny

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("stages.base.data.count=60", "stages.sft.data.count=60", "stages.sft.epochs=2",
         "stages.comparisons.tasks.count=24", "stages.reward.epochs=1", "stages.reward.skip_checks=[D8, D11]",
         "stages.ppo.steps=2", "stages.ppo.tasks.count=24", "device=cpu")  # fmt: skip
STAGES = ("base", "sft", "comparisons", "reward", "ppo")


def together(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "assent", "run", "tiny.yaml", "--until", "ppo", "--folder", "made", *SHORT, *arguments]
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(900)
def test_two_processes_make_the_run_of_one(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    done = together(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("models run on") == 1  # the first process speaks, the other does not
    made = read_run(tmp_path / "made")
    assert tuple(made) == STAGES and not list((tmp_path / "made" / ".work").iterdir())
    alone, _ = run_tiny(tmp_path / "alone", *SHORT, until="ppo")
    for name in STAGES:
        assert made[name].id == alone[name].id
        assert dict(made[name].metrics) == pytest.approx(dict(alone[name].metrics), rel=2e-3, abs=2e-3, nan_ok=True)
    again = together(tmp_path)
    assert again.returncode == 0 and "ppo: done before" in again.stdout
