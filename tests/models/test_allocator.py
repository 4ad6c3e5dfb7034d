"""A step's memory is there again for the next: no page is mapped twice."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from assent.models.allocator import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()

def step():
    tensors = [torch.ones(2**20) for _ in range(8)]  # 4 MiB each
    return sum(float(t[0]) for t in tensors)

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


COUNTED = """
import mmap, resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
memory = mmap.mmap(-1, 2**22)
memory.write(bytes(2**22))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_pages_are_mapped_once():
    if int(subprocess.check_output([sys.executable, "-c", COUNTED], text=True)) == 0:
        pytest.skip("this kernel does not count page faults, as sandboxes that emulate Linux do not")
    assert faults("kept") < 100
    # glibc moves its own threshold as it goes, and now and then keeps what it mostly gives back.
    assert any(faults("given back") > 100 for _ in range(5))
