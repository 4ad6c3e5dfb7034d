"""`assent verify` itself: every algorithm that claims an optimum arrives there through the real loop."""

import importlib

import pytest

from assent.algorithms.grpo import GRPO
from assent.algorithms.reinforce_pp_baseline import ReinforcePPBaseline
from assent.stages.verify.online import arrives_online, sequence_optimum, whitened_optimum
from assent.stages.verify.worlds import world

CLAIMS = importlib.import_module("assent.stages.verify").CLAIMS  # `assent.stages` has a function of this name


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.__name__)
def test_it_arrives(claim):
    verdict = claim()
    assert verdict.arrived, verdict


def test_a_weak_leash_in_deviations_gives_way():
    """What the page says of REINFORCE++ with baseline: at 0.5 the only place to rest is the best response alone."""
    _, reference, rewards = world()
    best = whitened_optimum(reference.distribution().detach(), rewards, kl_coef=2.0)
    assert best.max() < 0.9
    gone = ReinforcePPBaseline(epochs=2, minibatches=2)
    verdict = arrives_online(gone, "none", lambda _, r: (r == r.amax((1, 2), keepdim=True)).double(), steps=320)
    assert verdict.distance < 0.02


def test_grpo_does_not_arrive_at_the_optimum_of_the_sequence():
    """What the page on algorithms says: its KL in the loss is another leash, by more than the tolerance."""
    grpo = GRPO(epochs=2, minibatches=2, scale_by_std=False)
    verdict = arrives_online(grpo, "none", sequence_optimum, steps=160)
    assert verdict.distance > 2 * verdict.tolerance
