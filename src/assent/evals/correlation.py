"""Pearson and Spearman, None where a side is constant."""

import math

import numpy as np
from numpy.typing import ArrayLike

from assent.evals.intervals import Floats


def pearson(x: ArrayLike, y: ArrayLike) -> float | None:
    """Linear correlation; None for fewer than two points or a constant side."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.size < 2:
        return None
    return cosine(a - a.mean(), b - b.mean())


def cosine(x: ArrayLike, y: ArrayLike) -> float | None:
    """Correlation about 0 instead of about the means: Pearson over both orientations of a pair. None where a side is
    all 0."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    scale = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(np.clip(float(a @ b) / scale, -1.0, 1.0)) if scale > 0 else None


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Pearson of the ranks, ties sharing their mean rank."""
    return pearson(ranks(x), ranks(y))


def ranks(x: ArrayLike) -> Floats:
    """Ranks from 1 upwards; equal values share the mean of their places."""
    _, place, counts = np.unique(np.asarray(x, dtype=np.float64), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[place]
