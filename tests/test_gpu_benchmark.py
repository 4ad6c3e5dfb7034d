"""`benchmarks/gpu.py` runs where there is no GPU: on a model of nothing, and to say that there is none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_tiny_model_on_the_cpu_goes_through_all_of_it(tmp_path):
    done = run(tmp_path, "--tiny", "--device", "cpu", "--out", "gpu.md")
    assert done.returncode == 0, done.stderr[-2000:]
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for row in ("| rollouts | Assent |", "| rollouts | transformers |", "| training | Assent |"):
        assert row in text
    assert "times transformers" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there, and would be measured")
def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2 and "there is no GPU here" in done.stderr
    assert not list(tmp_path.iterdir())
