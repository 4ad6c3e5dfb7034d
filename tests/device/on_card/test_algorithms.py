"""Every algorithm, through the learner: a batch that is kept on the CPU trains tables that live on the card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from assent.dist.processes import Alone
from assent.evals.toy_world import TableForward
from assent.protocols import Forward, WholeStep
from assent.train.learner import LocalLearner
from assent.train.schedule import Schedule
from assent.types import Loss, moved
from tests.contracts.test_algorithms import CASES, tables
from tests.device.card import card, plugged_in


@dataclass(frozen=True)
class Completed:
    """The loss of an algorithm alone, for batches that know of the whole step."""

    algorithm: Any

    def loss(self, batch: Any, forward: Forward) -> Loss:
        return self.algorithm.loss(batch, forward)


def stepped(name: str, device: torch.device, folder: Path) -> tuple[dict[str, float], list[list[float]]]:
    """Metrics of one step of plain descent, and the weights after it."""
    algorithm, make = CASES[name]
    batch = make(0)
    if isinstance(algorithm, WholeStep):  # made complete already, as the learner makes it
        algorithm = Completed(algorithm)
    model, reference = tables().to(device), tables().to(device)
    learner = LocalLearner(
        TableForward(model, reference),
        {"policy": model},
        [torch.optim.SGD(model.parameters(), lr=0.1)],
        schedule=Schedule(),
        total_steps=1,
        token_budget=8,
        seed=0,
        quarantine=folder,
        processes=Alone(),
    )
    metrics = learner.step(batch, algorithm)
    weights = [p.detach().flatten().tolist() for p in model.parameters()]
    return {name: mean.value for name, mean in metrics.items()}, weights


@pytest.mark.parametrize("name", CASES)
def test_a_step_on_the_card_is_a_step_on_the_cpu(name, tmp_path):
    expected = stepped(name, torch.device("cpu"), tmp_path)
    with plugged_in() as mode:
        found = stepped(name, card(), tmp_path)
        assert mode.moves["in"] > 0
    assert found[0] == pytest.approx(expected[0], rel=1e-12, nan_ok=True)
    for now, then in zip(found[1], expected[1], strict=True):
        assert now == pytest.approx(then, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_on_the_card_can_be_cut_there(name):
    _, make = CASES[name]
    batch = make(1)
    rows = torch.arange(0, len(batch), 2)
    with plugged_in():
        there = moved(batch, card())
        cut = moved(there.select(rows.to(card())), torch.device("cpu"))
        assert there.denominator == batch.denominator and there.costs.tolist() == batch.costs.tolist()
    expected = batch.select(rows)
    assert cut.denominator == expected.denominator
    assert torch.equal(cut.sequences.token_ids_BL, expected.sequences.token_ids_BL)
