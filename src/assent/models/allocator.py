"""Memory that a step has used is kept for the next one."""

import ctypes
import functools
import sys

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of glibc's `mallopt`."""

LARGEST_KEPT, KEPT = 2**25, 2**28
"""Tensors up to 32 MiB, glibc's own limit, come from memory that was used before; up to 256 MiB of it stays at hand."""


@functools.cache
def keep_memory() -> bool:
    """Let glibc keep freed memory, instead of giving it back and asking for zeroed pages again a moment later.

    A training step on a CPU frees and takes the same tens of megabytes every time; by default each of these pages is
    mapped and cleared anew. GPT-2 4x160, 16 rows, one core: 4,400 page faults a step, a tenth of its time, become none;
    the peak stays the same. Elsewhere, and where glibc refuses, nothing changes.

    Returns:
        Whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(name, value) == 1 for name, value in ((MMAP_THRESHOLD, LARGEST_KEPT), (TRIM_THRESHOLD, KEPT))
    )
