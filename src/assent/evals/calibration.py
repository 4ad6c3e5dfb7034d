"""Do the probabilities that score gaps stand for come true?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from assent.evals.intervals import Estimate, share_estimate
from assent.evals.judged import correct

BINS = 10
"""Equal-width bins of confidence between 1/2 and 1. Guo et al. 2017 (arXiv 1706.04599) use 10 to 20 between 0 and 1."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs about whose order the model claims to be this sure."""

    low: float
    high: float
    confidence: float
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """Reliability of sigma(|gap|) as the probability of agreeing with a vote. Ties of the annotators are left out.

    Args:
        bins: those that hold any pair.
        expected_error: mean over pairs of |accuracy - confidence| of their bin.
        noise_floor: what `expected_error` would be on average for a perfectly calibrated model with this many pairs.
        overconfidence: mean confidence minus accuracy; positive when the scores claim too much.
        log_loss: mean -log sigma(gap) in nats, a tie of scores included; log 2 = 0.693 for a coin.
    """

    bins: tuple[ReliabilityBin, ...]
    expected_error: float
    noise_floor: float
    overconfidence: float
    log_loss: float


def calibration(gaps: ArrayLike, prompt_ids: Sequence[str]) -> Calibration | None:
    """Reliability of score gaps of pairs that annotators ordered; None when there are none.

    Args:
        gaps: [n], score of the preferred response minus that of the other; Bradley-Terry units (log-odds).
        prompt_ids: [n], for the intervals of the bins.
    """
    gap = np.asarray(gaps, dtype=np.float64)
    if gap.size == 0:
        return None
    confidence = 0.5 * (1 + np.tanh(np.abs(gap) / 2))
    right = correct(gap)
    number = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    bins, error, floor = [], 0.0, 0.0
    for b in np.unique(number):
        inside = number == b
        share, mean = float(inside.mean()), float(confidence[inside].mean())
        ids = [prompt_ids[i] for i in np.flatnonzero(inside).tolist()]
        bins.append(
            ReliabilityBin(0.5 + b / (2 * BINS), 0.5 + (b + 1) / (2 * BINS), mean, share_estimate(right[inside], ids))
        )
        error += share * abs(float(right[inside].mean()) - mean)
        # E|x| of a normal error whose variance is that of a share of `inside.sum()` trials.
        floor += share * math.sqrt(2 / math.pi * mean * (1 - mean) / int(inside.sum()))
    log_loss = float(np.logaddexp(0.0, -gap).mean())
    return Calibration(tuple(bins), error, floor, float(confidence.mean() - right.mean()), log_loss)
