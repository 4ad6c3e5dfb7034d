"""D5 of direct alignment, on a healthy set-up and on the defects it is for."""

import pytest
import torch

from assent.algorithms.dpo import DPO
from assent.doctor.policy import pairs_start_at_reference
from assent.errors import CheckFailed
from assent.evals.toy_world import TableForward, Tables
from assent.types import ReferencedPairBatch, Sequences, in_twos

ROWS = Sequences.of([[0], [0], [1], [1]], [[1, 2], [2], [0], [1, 1]])


def check(known: torch.Tensor, *, same_start: bool = True, policy: Tables | None = None):
    policy = policy or Tables(2, 3, seed=1)
    batch = ReferencedPairBatch(ROWS, *in_twos(len(ROWS)), known)

    def gradients(part, algorithm, budget):
        algorithm.loss(part, TableForward(policy))
        return {}

    return pairs_start_at_reference(gradients, batch, DPO(), same_start=same_start, dtype=torch.float64)


def sums(tables: Tables) -> torch.Tensor:
    with torch.no_grad():
        return torch.where(ROWS.mask_BT, TableForward(tables).logprobs(ROWS), 0.0).sum(1)


def test_d5_passes_where_the_reference_is_the_start():
    found = check(sums(Tables(2, 3, seed=1)))
    assert found.figure <= 1e-12 and "ln 2" in found.detail


def test_d5_refuses_a_reference_that_is_not_the_start():
    with pytest.raises(CheckFailed, match=r"D5 failed(.|\n)*ln 2"):
        check(sums(Tables(2, 3, seed=2)))


def test_d5_refuses_means_and_pairs_out_of_order():
    known = sums(Tables(2, 3, seed=1))
    with pytest.raises(CheckFailed, match="means per token"):
        check(known / ROWS.mask_BT.sum(1))
    with pytest.raises(CheckFailed, match="order"):
        check(known[[2, 3, 0, 1]])


def test_d5_reports_where_the_reference_is_another_model():
    found = check(sums(Tables(2, 3, seed=2)), same_start=False)
    assert found.tolerance is None and "another model" in found.detail
