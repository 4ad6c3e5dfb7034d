"""Prompt, rollout, score, keep: best-of-n, rejection sampling, samples for comparison and for evaluation."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from assent.protocols import Scorer
from assent.types import Rollout

Kept = TypeVar("Kept")


def select(
    rollouts: Sequence[Rollout],
    scorers: Sequence[Scorer],
    keep: Callable[[Sequence[Rollout], Sequence[Sequence[float]]], Kept],
) -> Kept:
    """Score the samples of each prompt and keep what `keep` says of them.

    Args:
        rollouts: the samples.
        scorers: each gives one row of totals, nan where it gave no score.
        keep: takes the samples and the rows of scores.
    """
    rows = [[sum(e.value for e in events) if events else float("nan") for events in s.score(rollouts)] for s in scorers]
    return keep(rollouts, rows)
