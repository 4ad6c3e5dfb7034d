"""A step's memory is there again for the next: no page is mapped twice."""

import os
import subprocess
import sys

import pytest

STEPS, TENSORS, PAGES = 10, 8, 2**22 // 4096  # ten steps of eight tensors of 4 MiB

FAULTS = f"""
import resource, sys, torch
from assent.models.allocator import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()

def step():
    tensors = [torch.ones(2**20) for _ in range({TENSORS})]  # 4 MiB each
    return sum(float(t[0]) for t in tensors)

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({STEPS}):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Page faults of the steps, of which each takes 1,024 for a tensor that is mapped anew."""
    still = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}  # glibc's own start; it would move with what is freed
    return int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True, env=os.environ | still))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_pages_are_mapped_once():
    given_back = faults("given back")
    if given_back < STEPS * TENSORS * PAGES // 2:
        pytest.skip(f"{given_back} page faults where memory is given back: this kernel does not count them all")
    assert faults("kept") < given_back / 10
