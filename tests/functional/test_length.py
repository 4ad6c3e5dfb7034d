"""DAPO's soft penalty: its three branches as the paper writes them, and its refusals."""

import pytest
import torch

from assent.functional.length import soft_overlong


def by_definition(length: int, longest: int, cache: int) -> float:
    if length <= longest - cache:
        return 0.0
    return ((longest - cache) - length) / cache if length <= longest else -1.0


@pytest.mark.parametrize(("longest", "cache"), [(20480, 4096), (32, 8), (2, 1)])
def test_against_the_three_branches(longest, cache):
    lengths = sorted({0, 1, longest - cache, longest - cache + 1, longest - cache // 2, longest, longest + 1})
    got = soft_overlong(torch.tensor(lengths), longest=longest, cache=cache)
    assert got.tolist() == pytest.approx([by_definition(n, longest, cache) for n in lengths], abs=1e-6)


@pytest.mark.parametrize(("longest", "cache"), [(8, 8), (8, 0), (8, 9)])
def test_impossible_budgets_are_refused(longest, cache):
    with pytest.raises(ValueError, match="fix:"):
        soft_overlong(torch.tensor([3]), longest=longest, cache=cache)
