"""`assent verify` itself: every algorithm that claims an optimum arrives there through the real loop."""

import importlib

import pytest

from assent.algorithms.grpo import GRPO
from assent.stages.verify.online import arrives_online, sequence_optimum

CLAIMS = importlib.import_module("assent.stages.verify").CLAIMS  # `assent.stages` has a function of this name


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.__name__)
def test_it_arrives(claim):
    verdict = claim()
    assert verdict.arrived, verdict


def test_grpo_does_not_arrive_at_the_optimum_of_the_sequence():
    """What the page on algorithms says: its KL in the loss is another leash, by more than the tolerance."""
    grpo = GRPO(epochs=2, minibatches=2, scale_by_std=False)
    verdict = arrives_online(grpo, "none", sequence_optimum, steps=160)
    assert verdict.distance > 2 * verdict.tolerance
