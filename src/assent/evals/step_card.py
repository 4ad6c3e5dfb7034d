"""The card of a process reward model: how far its steps can be trusted, from held-out solutions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assent.errors import DataError
from assent.evals.calibration import Calibration, calibration
from assent.evals.intervals import (
    Estimate,
    Floats,
    bootstrap_weights,
    cluster_numbers,
    percentile_interval,
    share_estimate,
)
from assent.evals.plain import from_json, to_json
from assent.evals.report_card import Slice

DRAWS = 1000
"""Bootstrap resamples of the figures that are no plain shares; Efron & Tibshirani (1993, ch. 13) ask for 1000."""


@dataclass(frozen=True, slots=True)
class JudgedSolution:
    """A held-out solution: what the model says of each step, and what is known.

    Args:
        prompt_id: solutions of one prompt share it.
        logits: one per step.
        targets: one per step, in [0, 1]; None where nobody knows.
        first_error: index of the first wrong step; None where there is none.
        whole: every step up to the first error, or to the end, has a label; so the first error is known.
        kind: slice of the card.
    """

    prompt_id: str
    logits: tuple[float, ...]
    targets: tuple[float | None, ...]
    first_error: int | None
    whole: bool
    kind: str = ""


@dataclass(frozen=True, slots=True)
class FirstError:
    """Whether the first step that the model finds wrong is the first that is.

    Args:
        located: share of the solutions with an error in which it is that very step.
        clean: share of the solutions without one in which the model finds none.
        f1: harmonic mean of the two (ProcessBench, arXiv 2412.06559).
        weakest: share of the solutions with an error whose first wrong step has the least probability of all: what is
            left when no threshold is needed.
        guess: what `weakest` would be of a model that knows nothing: the mean of 1 / steps.
    """

    located: Estimate
    clean: Estimate
    f1: Estimate
    weakest: Estimate
    guess: float | None


@dataclass(frozen=True, slots=True)
class StepCard:
    """What held-out solutions say of a process reward model. A step is found right where its logit is above 0.

    Args:
        accuracy: over labelled steps; a soft label counts as right from one half up.
        commoner: accuracy of giving every step the commoner label.
        balanced: mean of the accuracies on right and on wrong steps; one half is guessing.
        auc: chance that a right step has a higher logit than a wrong one; one half is guessing.
        first_error: see there.
        by_kind: accuracy by slice.
        calibration: of the probabilities; None without a label.
    """

    accuracy: Estimate
    commoner: float | None
    balanced: Estimate
    auc: Estimate
    first_error: FirstError
    by_kind: tuple[Slice, ...]
    calibration: Calibration | None

    def to_json(self) -> dict[str, Any]:
        return to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "StepCard":
        return from_json(cls, data)


def step_card(solutions: Sequence[JudgedSolution]) -> StepCard:
    """Judge a process reward model by held-out solutions.

    Shares have Wilson's interval at the effective number of prompts (`share_estimate`), the other figures the bootstrap
    over prompts.

    Raises:
        DataError: no step has a label.
    """
    steps = [
        (s.prompt_id, s.kind, z, t >= 0.5)
        for s in solutions
        for z, t in zip(s.logits, s.targets, strict=True)
        if t is not None
    ]
    if not steps:
        raise DataError(
            "a card needs held-out steps with labels",
            got=f"{len(solutions)} solutions, no label",
            why="accuracy of nothing is undefined",
            fix="hold out more solutions",
        )
    ids = [i for i, _, _, _ in steps]
    logits = np.array([z for _, _, z, _ in steps])
    good = np.array([g for _, _, _, g in steps])
    right = ((logits > 0) == good).astype(float)
    kinds = sorted({k for _, k, _, _ in steps} - {""})
    rows = {k: [i for i, step in enumerate(steps) if step[1] == k] for k in kinds}
    return StepCard(
        share_estimate(right, ids),
        float(max(good.mean(), 1 - good.mean())),
        _resampled(lambda w: _balanced(right, good, w), ids),
        _resampled(lambda w: _area(logits, good, w), ids),
        _first_error(solutions),
        tuple(Slice(k, share_estimate(right[rows[k]], [ids[i] for i in rows[k]])) for k in kinds),
        calibration(np.where(good, logits, -logits), ids),
    )


def _first_error(solutions: Sequence[JudgedSolution]) -> FirstError:
    whole = [s for s in solutions if s.whole]
    wrong = [s for s in whole if s.first_error is not None]
    clean = [s for s in whole if s.first_error is None]
    found = np.array([_found(s) == s.first_error for s in whole], dtype=np.float64)
    has = np.array([s.first_error is not None for s in whole])
    least = [float(int(np.argmin(s.logits)) == s.first_error) for s in wrong]

    def f1(weights: Floats) -> float:
        a, b = (_mean(found, weights * side) for side in (has, ~has))
        return 2 * a * b / (a + b) if a + b > 0 else (0.0 if a + b == 0 else float("nan"))

    return FirstError(
        share_estimate(found[has], [s.prompt_id for s in wrong]),
        share_estimate(found[~has], [s.prompt_id for s in clean]),
        _resampled(f1, [s.prompt_id for s in whole]),
        share_estimate(least, [s.prompt_id for s in wrong]),
        float(np.mean([1 / len(s.logits) for s in wrong])) if wrong else None,
    )


def _found(solution: JudgedSolution) -> int | None:
    """The first step that the model finds wrong."""
    return next((i for i, z in enumerate(solution.logits) if z <= 0), None)


def _resampled(figure: Callable[[Floats], float], ids: Sequence[str]) -> Estimate:
    """A figure of weighted items and its percentile interval, whole prompts drawn with replacement; nothing where it is
    undefined, and draws in which it is are left out."""
    value = figure(np.ones(len(ids))) if ids else float("nan")
    if not np.isfinite(value):
        return Estimate(None, None, 0, len(ids))
    number = cluster_numbers(ids)
    prompts = int(number.max()) + 1
    draws = np.array([figure(w[number]) for w in bootstrap_weights(prompts, resamples=DRAWS)])
    return Estimate(value, percentile_interval(draws[np.isfinite(draws)]), prompts, len(ids))


def _mean(x: Floats, weights: Floats) -> float:
    total = float(weights.sum())
    return float(x @ weights) / total if total > 0 else float("nan")


def _balanced(right: Floats, good: Any, weights: Floats) -> float:
    return 0.5 * (_mean(right, weights * good) + _mean(right, weights * ~good))


def _area(logits: Floats, good: Any, weights: Floats) -> float:
    """Mann and Whitney's statistic of weighted items; equal logits count half."""
    _, place = np.unique(logits, return_inverse=True)
    up = np.bincount(place, weights=weights * good)
    down = np.bincount(place, weights=weights * ~good)
    below = down.cumsum() - down
    total = float(up.sum() * down.sum())
    return float(up @ (below + 0.5 * down)) / total if total > 0 else float("nan")
