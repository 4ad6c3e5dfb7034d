"""The warning about likelihood displacement: when, once, and never again after a kill."""

import pytest

from assent.stages.align_data import unbalanced
from assent.stages.displacement import DisplacementWatch
from assent.types import Mean


class Log:
    def __init__(self):
        self.rows = []

    def log(self, step, metrics):
        self.rows.append((step, dict(metrics)))

    def progress(self, done, total): ...
    def state_dict(self):
        return {"rows": len(self.rows)}

    def load_state_dict(self, state): ...


def watch():
    said: list[str] = []
    return DisplacementWatch(Log(), said.append), said


def shifts(liked: float, other: float, names=("chosen", "rejected")):
    return {f"logprobs/{n}_shift": Mean(2 * x, 2.0) for n, x in zip(names, (liked, other), strict=True)}


@pytest.mark.parametrize("names", [("chosen", "rejected"), ("desirable", "undesirable")])
def test_both_must_fall_below_the_range_of_the_catalogue(names):
    tracker, said = watch()
    for step, (liked, other) in enumerate([(0.0, -30.0), (-4.9, -30.0), (-6.0, -4.9), (-6.0, -7.5), (-9.0, -9.0)]):
        tracker.log(step, shifts(liked, other, names))
    assert [step for step, _ in tracker.tracker.rows] == [0, 1, 2, 3, 4], "everything is recorded all the same"
    (line,) = said
    assert "at step 3" in line and "e^-6.0" in line and "e^-7.5" in line and "raise beta" in line.lower()


def test_it_is_not_said_again_after_a_kill():
    tracker, said = watch()
    tracker.log(0, shifts(-6.0, -6.0))
    resumed, again = watch()
    resumed.load_state_dict(tracker.state_dict())
    resumed.log(1, shifts(-8.0, -8.0))
    assert len(said) == 1 and not again


def test_losses_without_a_reference_have_no_shift():
    tracker, said = watch()
    tracker.log(0, {"logprobs/chosen": Mean(-90.0, 1.0)})
    assert not said and tracker.tracker.rows


@pytest.mark.parametrize(("good", "bad", "weights"), [(100, 100, (1, 1)), (400, 300, (1, 1)), (300, 100, (1, 2.5))])
def test_balance_is_silent(good, bad, weights):
    assert unbalanced(good, bad, *weights) is None


def test_imbalance_is_cured_by_what_is_said():
    assert "set undesirable_weight to between 2.25 and 3" in unbalanced(300, 100, 1.0, 1.0)
    assert "set desirable_weight to between 2 and 2.67" in unbalanced(100, 200, 1.0, 1.0)
    assert unbalanced(300, 100, 1.0, 2.25) is None and unbalanced(300, 100, 1.0, 3.0) is None
    assert unbalanced(100, 200, 2.0, 1.0) is None and unbalanced(100, 200, 2.66, 1.0) is None
    assert "inf times" in unbalanced(100, 200, 1.0, 0.0)
