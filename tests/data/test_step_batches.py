"""Labelled solutions to targets and batches."""

import json

import pytest
import torch

from assent.data.steps import OutcomeTargets, StepBatches, StepExample, StepTargets, step_batch
from assent.errors import DataError
from assent.records import LabelledSolution, Rating, solution_from_json, to_json

G, N, B = Rating.GOOD, Rating.NEUTRAL, Rating.BAD


def solution(labels, correct=None, ended=True):
    return LabelledSolution("s", "p\n", tuple(f"{i}\n" for i in range(len(labels))), labels, correct, ended=ended)


@pytest.mark.parametrize(
    ("targets", "labels", "wanted"),
    [
        (StepTargets(), (G, N, G), [1.0, 1.0, 1.0]),
        (StepTargets(neutral="bad"), (G, N, G), [1.0, 0.0, 1.0]),
        (StepTargets(), (G, B, G, B), [1.0, 0.0, None, None]),
        (StepTargets(after_error="bad"), (G, B, G, None), [1.0, 0.0, 0.0, 0.0]),
        (StepTargets(after_error="keep"), (G, B, G, None), [1.0, 0.0, 1.0, None]),
        (StepTargets(), (0.75, 0.0, 0.5), [0.75, 0.0, None]),
        (StepTargets(), (None, G), [None, 1.0]),
        (StepTargets(neutral="bad"), (N, G), [0.0, 1.0]),
    ],
)
def test_what_becomes_of_labels(targets, labels, wanted):
    """A neutral step is no error, however it counts."""
    assert targets.of(solution(labels)) == wanted


def test_the_outcome_is_one_label_on_the_last_step_or_none():
    assert OutcomeTargets().of(solution((G, B, G), True)) == [None, None, 1.0]
    assert OutcomeTargets().of(solution((G, G), False)) == [None, 0.0]
    assert OutcomeTargets().of(solution((G, G))) == [None, None]


def test_a_solution_goes_through_json_unchanged():
    whole = LabelledSolution("7", "p", ("a\n", "b\n", "c"), (N, 0.25, None), True, "ann", "algebra", False)
    assert solution_from_json(json.loads(json.dumps(to_json(whole)))) == whole
    assert whole.response == "a\nb\nc" and whole.first_error is None
    assert solution((G, 0.0, B)).first_error == 1


@pytest.mark.parametrize("steps, labels", [((), ()), (("a", ""), (G, G)), (("a",), ()), (("a",), (1.5,))])
def test_solutions_that_cannot_be_are_refused(steps, labels):
    with pytest.raises(ValueError, match="'s'"):
        LabelledSolution("s", "p", steps, labels)


def test_labels_stand_on_the_ends_of_their_steps_and_nowhere_else():
    batch = step_batch(
        [
            StepExample([1, 2], [3, 4, 5, 6], (1, 3), (1.0, None)),
            StepExample([1], [7, 8], (0, 1), (0.5, 0.0)),
        ]
    )
    assert batch.labelled_BT.tolist() == [[False, True, False, False], [True, True, False, False]]
    assert batch.labels_BT.tolist() == [[0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]]
    assert batch.denominator == 3.0 and batch.costs.tolist() == [6, 3]
    second = batch.select(torch.tensor([1]))
    assert second.labelled_BT.tolist() == [[True, True]] and second.denominator == 2.0


def test_of_two_steps_in_one_token_the_later_counts():
    batch = step_batch([StepExample([1], [3, 4], (0, 0, 1), (1.0, 0.0, None))])
    assert batch.labelled_BT.tolist() == [[True, False]] and batch.labels_BT[0, 0] == 0.0


@pytest.mark.parametrize("ends, targets", [((0, 2), (1.0, 1.0)), ((1, 0), (1.0, 1.0)), ((0,), (1.0, 1.0))])
def test_ends_outside_the_response_are_refused(ends, targets):
    with pytest.raises(DataError, match="end within the response"):
        StepExample([1], [3, 4], ends, targets)


def test_solutions_without_a_label_are_kept_out_and_counted():
    known, unknown = StepExample([1], [3, 4], (0, 1), (1.0, 0.0)), StepExample([1], [3], (0,), (None,))
    source = StepBatches([known, unknown, known], batch_size=2, epochs=1, seed=0)
    assert source.unlabelled == 1 and sum(len(b) for _, b in source) == 2
    assert "mean target of 0.500; 1 solutions without" in source.report
    with pytest.raises(DataError, match="nothing to train on"):
        StepBatches([unknown], batch_size=2, epochs=1, seed=0)


def test_a_state_of_other_labels_is_refused():
    def source(target):
        return StepBatches([StepExample([1], [3, 4], (0, 1), (target, 0.0))], batch_size=1, epochs=2, seed=0)

    from assent.errors import ContractError

    with pytest.raises(ContractError, match="other batches"):
        source(0.5).load_state_dict(source(0.25).state_dict())
