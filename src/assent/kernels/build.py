"""A C file, compiled at first use for this processor and kept in the cache folder under the digest of its source, its
compiler and the processor."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
SECONDS = 60

FAILURES = (OSError, RuntimeError, subprocess.SubprocessError)
"""What `load` may raise."""


def load(source: Path) -> ctypes.CDLL:
    """The compiled file.

    Raises:
        OSError, RuntimeError, subprocess.SubprocessError: `ASSENT_COMPILE=0`, no compiler, or one that fails.
    """
    if os.environ.get("ASSENT_COMPILE", "1") == "0":
        raise OSError("ASSENT_COMPILE is 0")
    return ctypes.CDLL(str(_library(source)))


def _library(source: Path) -> Path:
    """Compile, unless the cache has it. Written under another name first, so that no one loads half a library."""
    compiler = shlex.split(os.environ.get("CC", "")) or [c for c in ("cc", "gcc", "clang") if shutil.which(c)][:1]
    if not compiler:
        raise OSError("there is no C compiler")
    said = subprocess.run([*compiler, "--version"], capture_output=True, timeout=SECONDS, check=True).stdout
    threads = _openmp()
    asked = " ".join([*compiler[1:], *FLAGS])
    parts = (source.read_bytes(), said, asked.encode(), str(threads).encode(), _processor())
    path = _folder() / f"{source.stem}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unlinked, made = Path(folder) / f"{source.stem}.o", Path(folder) / f"{source.stem}.so"
        openmp = ["-fopenmp"] if threads else []
        linked = [str(threads), f"-Wl,-rpath,{threads.parent}"] if threads else []
        _run([*compiler, *FLAGS, *openmp, "-c", str(source), "-o", str(unlinked)])
        _run([*compiler, "-shared", str(unlinked), "-o", str(made), *linked])
        os.replace(made, path)
    return path


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def _openmp() -> Path | None:
    """The library of threads that torch brings: a second one beside it would fight it for the cores."""
    return next(iter(sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))), None)


def processor() -> dict[str, str]:
    """What Linux tells of the first core; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _processor() -> bytes:
    """What `-march=native` stands for here: a folder may be shared by machines that differ."""
    told = processor()
    return f"{platform.machine()} {platform.processor()} {told.get('flags') or told.get('Features')}".encode()


def _folder() -> Path:
    kept = os.environ.get("ASSENT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assent"
    return Path(kept).expanduser() / "compiled"
