"""Labelled solutions to what a process reward model is trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from assent.config import Frozen
from assent.data.order import Order, Walk, digest_of
from assent.errors import DataError
from assent.protocols import State
from assent.records import LabelledSolution, Rating
from assent.types import Sequences, StepBatch

Target = float | None
"""What a step is trained towards, 0 to 1; None where it is not trained on."""


class StepTargets(Frozen):
    """Every labelled step is trained on: process supervision.

    Args:
        neutral: how a neutral step counts; `good` did best in Lightman et al. (2305.20050), by less than one point.
        after_error: what becomes of labels after the first error. `drop` leaves them out, as in PRM800K, whose
            labelling stops there. `bad` makes them all 0: the model then says whether a right answer can still be
            reached, as one that learns from rollouts does. `keep` takes what was said.
    """

    name: Literal["steps"] = "steps"
    neutral: Literal["good", "bad"] = "good"
    after_error: Literal["drop", "bad", "keep"] = "drop"

    def of(self, solution: LabelledSolution) -> list[Target]:
        """One per step."""
        values = {Rating.GOOD: 1.0, Rating.NEUTRAL: float(self.neutral == "good"), Rating.BAD: 0.0}
        targets = [values[x] if isinstance(x, Rating) else x for x in solution.labels]
        first = solution.first_error
        if first is None or self.after_error == "keep":
            return targets
        later: Target = None if self.after_error == "drop" else 0.0
        return [t if i <= first else later for i, t in enumerate(targets)]


class OutcomeTargets(Frozen):
    """Only the end of a solution is trained on, by whether its answer is right: outcome supervision."""

    name: Literal["outcome"] = "outcome"

    def of(self, solution: LabelledSolution) -> list[Target]:
        """One per step, None but for the last; nothing at all where nobody knows the outcome."""
        last = None if solution.correct is None else float(solution.correct)
        return [None] * (len(solution.steps) - 1) + [last]


@dataclass(frozen=True, slots=True)
class StepExample:
    """A solution as token ids.

    Args:
        ends: index in the response of the last token of each step, ascending; two steps may end in one token.
        targets: one per step.
    """

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    ends: Sequence[int]
    targets: Sequence[Target]

    def __post_init__(self) -> None:
        inside = all(0 <= end < len(self.response_ids) for end in self.ends)
        if len(self.ends) != len(self.targets) or not inside or list(self.ends) != sorted(self.ends):
            raise DataError(
                "every step needs an end within the response, in order, and a target or None",
                got=f"ends {list(self.ends)}, {len(self.targets)} targets, {len(self.response_ids)} response tokens",
                why="a label on another token would be learned for another step",
                fix="take the ends from `Delimited.ends` or `ends_by_text`",
            )

    @property
    def labelled(self) -> int:
        """Steps that are trained on."""
        return sum(t is not None for t in self.targets)


def step_batch(examples: Sequence[StepExample]) -> StepBatch:
    """These solutions as one batch; of two labelled steps that end in one token, the later one counts."""
    sequences = Sequences.of([e.prompt_ids for e in examples], [e.response_ids for e in examples])
    labelled_BT = torch.zeros_like(sequences.mask_BT)
    labels_BT = torch.zeros(sequences.mask_BT.shape)
    for row, example in enumerate(examples):
        for end, target in zip(example.ends, example.targets, strict=True):
            if target is not None:
                labelled_BT[row, end] = True
                labels_BT[row, end] = target
    return StepBatch(sequences, labelled_BT, labels_BT)


class StepBatches:
    """Labelled solutions for process reward models; implements `BatchSource`. One solution is one unit.

    Solutions without a labelled step train nothing: they are kept out and counted in `unlabelled`.

    Args:
        examples: at least one with a labelled step.
        batch_size: solutions per optimiser step, over all ranks.
        epochs, seed, shard: as in `TokenBatches`.

    Raises:
        DataError: no solution has a labelled step, or some batch has fewer solutions than there are ranks.
    """

    def __init__(
        self,
        examples: Sequence[StepExample],
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self._examples = [e for e in examples if e.labelled]
        self.unlabelled = len(examples) - len(self._examples)
        digest = digest_of(part for e in self._examples for part in _parts(e))
        self._walk = Walk(Order(len(self._examples), batch_size, epochs, seed, *shard), digest, self._collate)

    def __len__(self) -> int:
        return len(self._walk.order)

    def __iter__(self) -> Iterator[tuple[int, StepBatch]]:
        return iter(self._walk)

    def state_dict(self) -> State:
        return self._walk.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._walk.load_state_dict(state)

    @property
    def report(self) -> str:
        """What one epoch trains on, in one line."""
        steps = sum(len(e.ends) for e in self._examples)
        labelled = sum(e.labelled for e in self._examples)
        good = sum(t for e in self._examples for t in e.targets if t is not None)
        return (
            f"{len(self._examples):,} solutions of {steps:,} steps, {labelled:,} of them trained on, with a mean "
            f"target of {good / labelled:.3f}; {self.unlabelled:,} solutions without a labelled step kept out"
        )

    def _collate(self, epoch: int, rows: Tensor) -> StepBatch:
        return step_batch([self._examples[i] for i in rows.tolist()])


def _parts(example: StepExample) -> Iterator[Sequence[int] | Tensor]:
    yield example.prompt_ids
    yield example.response_ids
    yield example.ends
    # Targets are hashed as whole numbers of a millionth, None as one more than all of them.
    yield [1_000_001 if t is None else round(t * 1e6) for t in example.targets]
