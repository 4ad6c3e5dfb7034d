"""`benchmarks/gpu.py` runs where there is no GPU: on a model of nothing, and to say that there is none."""

import importlib.util
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


def _module(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
    gpu = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", gpu)  # where its dataclasses look for themselves
    spec.loader.exec_module(gpu)
    return gpu


def test_a_side_that_fails_takes_no_other_row_with_it(monkeypatch, capsys):
    gpu = _module(monkeypatch)

    def fails(work, placement):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "rollouts_theirs", fails)
    monkeypatch.setattr(gpu, "training_theirs", fails)
    rows = gpu.measured(gpu.TINY, gpu.Placement())
    assert [(r.work, r.side) for r in rows] == [("rollouts", "Assent"), ("training", "Assent")]
    assert capsys.readouterr().err.count("out of memory") == 2


def test_the_tokenizer_given_to_the_other_side_has_what_it_asks_for(monkeypatch):
    """TRL looks for an end and a padding token; the model of nothing has no folder to find a tokenizer in."""
    gpu = _module(monkeypatch)
    words = gpu.words()
    assert words.eos_token_id == 0 and words.pad_token_id == 0
