"""D11: what was saved comes back the same, in a process that shares no memory with this one."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from assent.doctor.report import NOISE, Finding, refusal
from assent.errors import CheckFailed

EXPECTED, FOUND, ERRORS = "expected.pt", "found.pt", "errors.txt"
"""Files of the probe's folder: what this process computed, what the other one did, and what it complained of."""

RUN = "import gc, importlib, sys; gc.disable(); importlib.import_module(sys.argv[1]).main(*sys.argv[2:])"
"""What the other process does. It lives for seconds, and a fifth of its imports would be looking for garbage."""

LONGEST_SECONDS = 600.0
"""For the other process; imports take a few seconds, loading depends on the model."""


@dataclass(frozen=True)
class Probe:
    """A running process that loads what was saved.

    Args:
        process: writes `found.pt` into the folder.
        folder: of the probe.
        dtype: of the weights; sets the tolerance.
        started: by the clock of `time.time`, as files are stamped.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    dtype: torch.dtype
    started: float

    @classmethod
    def start(
        cls, module: str, folder: Path, expected: Mapping[str, Tensor], *, dtype: torch.dtype, threads: int = 1
    ) -> "Probe":
        """Start `module.main(folder, dtype)` in a process beside this one.

        Args:
            module: its `main` reads the saved models in `folder` and writes `found.pt`, names as in `expected`.
            folder: holds what was saved.
            expected: what this process computes, by name.
            dtype: of the weights.
            threads: of the other process, which must not slow the training down.
        """
        torch.save(dict(expected), folder / EXPECTED)
        source = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
        alone = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        environment = {**alone, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        with (folder / ERRORS).open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", RUN, module, str(folder), str(dtype).removeprefix("torch.")],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        return cls(process, folder, dtype, time.time())

    @property
    def seconds(self) -> float:
        """How long the process took, or has taken so far; not how long the training beside it did."""
        found = self.folder / FOUND
        return max(0.0, (found.stat().st_mtime if found.exists() else time.time()) - self.started)

    def finish(self) -> Finding:
        """Wait for the process and compare.

        Raises:
            CheckFailed: it could not load what was saved, took too long, or computed something else.
        """
        try:
            status = self.process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise _not_loaded(f"the new process was still loading after {LONGEST_SECONDS:.0f} s") from None
        if status != 0:
            lines = (self.folder / ERRORS).read_text("utf-8", errors="replace").strip().splitlines()
            raise _not_loaded(f"the new process ended with status {status}: " + "\n    ".join(lines[-6:]))
        expected = torch.load(self.folder / EXPECTED, weights_only=True)
        found = torch.load(self.folder / FOUND, weights_only=True)
        return compare(expected, found, dtype=self.dtype)


def compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, dtype: torch.dtype) -> Finding:
    """Names, shapes and numbers of both processes.

    Raises:
        CheckFailed: they differ by more than rounding, relative to numbers above 1.
    """
    tolerance, worst = NOISE[dtype], 0.0
    for name, want in expected.items():
        have = found.get(name)
        if have is None or have.shape != want.shape:
            raise _not_loaded(f"the loaded folder gives no {name} of the saved shape")
        scale = max(1.0, want.abs().max().item())
        gap = (have.double() - want.double()).abs().max().item() / scale
        if not gap <= tolerance:
            raise refusal(
                "D11",
                got=f"{name} differ by up to {gap * scale:.3g} after saving and loading "
                f"(allowed: {tolerance * scale:.1g})",
                why="whoever uses the saved model would use another one than was trained and judged",
                causes=_CAUSES,
            )
        worst = max(worst, gap)
    return Finding(worst, tolerance, f"{', '.join(expected)} as before, in a process of its own")


def _not_loaded(got: str) -> CheckFailed:
    return refusal(
        "D11", got=got, why="a model that cannot be loaded as it was trained is lost when the run ends", causes=_CAUSES
    )


_CAUSES: Sequence[str] = (
    "a head is not part of the saved folder, and is drawn anew on loading",
    "tied or merged weights (adapters, shared embeddings) are saved under names that the loader does not know",
    "the config of the saved folder describes another model than its weights",
    "the disk is full or the folder was changed while it was written",
)
