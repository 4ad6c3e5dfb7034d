"""The attention of a decode step in C, compiled at first use for this processor; torch operations where that fails.

Between the matrix products of a small model on a CPU, a decode step is bound by the calls around them: eight torch
operations a layer, all of which read to the longest slot. `attend.c` is one call that reads each slot to its own end.
The library is kept in the cache folder under the digest of its source, its compiler and the processor. It is held
against torch operations when it is loaded, and the engine that uses it is held against the model's own forward.
`ASSENT_COMPILE=0` in the environment keeps to torch.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("attend.c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
SECONDS = 60
GAP = 1e-5
"""Largest difference from torch that is put down to rounding, for values near 1."""


@dataclass(frozen=True)
class Attend:
    """The compiled function."""

    function: Any

    def __call__(
        self, q: Tensor, keys: Tensor, values: Tensor, layer: tuple[Tensor, Tensor], positions_B: Tensor, scale: float
    ) -> Tensor:
        """Write the new keys and values at their positions, and attend to all up to there; `[B, heads, head_dim]`.

        Args:
            q: float32 [B, heads, head_dim].
            keys, values: float32 [B, kv_heads, head_dim], of the new tokens.
            layer: cached keys [slots, kv_heads, head_dim, length] and values [slots, kv_heads, length, head_dim].
            positions_B: int64, where the new tokens stand.
        """
        q, keys, values = (x if x[0].is_contiguous() else x.contiguous() for x in (q, keys, values))
        rows, heads, dim = q.shape
        kept_keys, kept_values = layer
        kv_heads, length, threads = kept_keys.shape[1], kept_keys.shape[3], torch.get_num_threads()
        out, scratch = q.new_empty((rows, heads, dim)), q.new_empty(threads * length)  # whatever torch's default type
        tensors = (q, keys, values, kept_keys, kept_values, positions_B, out, scratch)
        strides = (q.stride(0), keys.stride(0), values.stride(0))
        self.function(*(x.data_ptr() for x in tensors), *strides, rows, heads, kv_heads, dim, length, scale, threads)
        return out


@cache
def attend() -> Attend | None:
    """The compiled function, checked; None where there is no compiler, or it fails, or its figures differ."""
    if os.environ.get("ASSENT_COMPILE", "1") == "0":
        return None
    try:
        function = Attend(_load(_library()))
        gap = _gap(function)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.info("decoding keeps to torch operations, since attend.c could not be compiled: %s", error)
        return None
    if not gap < GAP:
        logger.warning("decoding keeps to torch operations: attend.c as compiled here differs from them by %.2g", gap)
        return None
    return function


def _library() -> Path:
    """Compile, unless the cache has it. Written under another name first, so that no one loads half a library."""
    compiler = os.environ.get("CC") or next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if compiler is None:
        raise OSError("there is no C compiler")
    said = subprocess.run([compiler, "--version"], capture_output=True, timeout=SECONDS, check=True).stdout
    threads = _openmp()
    parts = (SOURCE.read_bytes(), said, " ".join(FLAGS).encode(), str(threads).encode(), _processor())
    path = _folder() / f"attend-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unlinked, made = Path(folder) / "attend.o", Path(folder) / "attend.so"
        openmp = ["-fopenmp"] if threads else []
        linked = [str(threads), f"-Wl,-rpath,{threads.parent}"] if threads else []
        _run([compiler, *FLAGS, *openmp, "-c", str(SOURCE), "-o", str(unlinked)])
        _run([compiler, "-shared", str(unlinked), "-o", str(made), *linked])
        os.replace(made, path)
    return path


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def _load(path: Path) -> Any:
    function = ctypes.CDLL(str(path)).attend
    function.restype = None
    function.argtypes = [ctypes.c_void_p] * 8 + [ctypes.c_int64] * 8 + [ctypes.c_float, ctypes.c_int32]
    return function


def _openmp() -> Path | None:
    """The library of threads that torch brings: a second one beside it would fight it for the cores."""
    return next(iter(sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))), None)


def _processor() -> bytes:
    """What `-march=native` stands for here: a folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {platform.processor()} {told}".encode()


def _folder() -> Path:
    kept = os.environ.get("ASSENT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assent"
    return Path(kept).expanduser() / "compiled"


def _gap(function: Attend) -> float:
    """Largest difference from torch operations, in what is attended and in what is written."""
    generator = torch.Generator().manual_seed(0)
    rows, heads, kv_heads, dim, length = 5, 6, 2, 20, 37
    q, k, v = (torch.randn(rows, n, dim, generator=generator) for n in (heads, kv_heads, kv_heads))
    keys, values = (torch.randn(rows + 1, kv_heads, *s, generator=generator) for s in ((dim, length), (length, dim)))
    positions = torch.tensor([0, 7, 8, 30, length - 1])
    expected_keys, expected_values, each = keys.clone(), values.clone(), torch.arange(rows)
    expected_keys[each, :, :, positions], expected_values[each, :, positions] = k, v
    out = function(q, k, v, (keys, values), positions, dim**-0.5)
    scores = torch.einsum("rgxd,rgdt->rgxt", q.view(rows, kv_heads, -1, dim), expected_keys[:rows]) * dim**-0.5
    beyond = torch.arange(length) > positions[:, None]
    weights = scores.masked_fill(beyond[:, None, None], float("-inf")).softmax(-1)
    expected = torch.einsum("rgxt,rgtd->rgxd", weights, expected_values[:rows]).reshape(rows, heads, dim)
    return max(
        float((a - b).abs().max()) for a, b in ((out, expected), (keys, expected_keys), (values, expected_values))
    )
