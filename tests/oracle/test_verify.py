"""`assent verify` itself: every algorithm that claims an optimum arrives there through the real loop."""

import importlib

import pytest

verify = importlib.import_module("assent.stages.verify")  # `assent.stages` has a function of this name


@pytest.mark.parametrize("claim", verify.CLAIMS, ids=lambda c: c.__name__.strip("_"))
def test_it_arrives(claim):
    verdict = claim()
    assert verdict.arrived, verdict


def test_grpo_does_not_arrive_at_the_optimum_of_the_sequence():
    """What the page on algorithms says: its KL in the loss is another leash, by more than the tolerance."""
    optimum = verify._sequence_optimum
    verdict = verify._online(verify.GRPO(epochs=2, minibatches=2, scale_by_std=False), "none", optimum, steps=160)
    assert verdict.distance > 2 * verdict.tolerance
