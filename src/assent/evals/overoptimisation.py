"""Proxy and gold over KL: where optimising the reward model stops making responses better.

The shape to expect is Gao, Schulman & Hilton 2022 (arXiv 2210.10760): gold rises with the square root of KL, peaks
and falls while the proxy goes on rising.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from assent.errors import DataError
from assent.evals.intervals import Estimate, bootstrap_mean
from assent.evals.plain import from_json, to_json
from assent.functional.selection import best_of_n_expected, best_of_n_kl

ERROR_RATE = 0.05
"""Chance of calling a curve that never fell over-optimised, over all its points together."""

FEWEST_POINTS = 5
"""Points needed to estimate the noise of a curve from the curve itself."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One evaluation during training.

    Args:
        step: policy updates done.
        kl: KL(policy || reference), nats per sequence.
        proxy: mean score by the reward model trained on.
        gold: mean score by gold or a held-out judge; another scale is fine.
        gold_error: standard error of `gold`; None when unknown.
        proxy_error: standard error of `proxy`; None when unknown.
    """

    step: int
    kl: float
    proxy: float
    gold: float
    gold_error: float | None = None
    proxy_error: float | None = None


@dataclass(frozen=True, slots=True)
class BestOfN:
    """What choosing the best of n reference samples by the proxy earns, and how far it moves from the reference."""

    n: int
    kl: float
    proxy: float
    gold: Estimate


@dataclass(frozen=True, slots=True)
class Finding:
    """What a curve shows.

    Args:
        overoptimised: gold fell from its peak by more than its noise while the proxy did not fall.
        peak_step, peak_kl, peak_gold: where gold was highest.
        fall: gold at its peak minus gold at the end.
        noise: how large a fall luck alone explains.
        text: the same in a sentence.
    """

    overoptimised: bool
    peak_step: int
    peak_kl: float
    peak_gold: float
    fall: float
    noise: float
    text: str


@dataclass(frozen=True, slots=True)
class Overoptimisation:
    """A curve, reference points at known KL, and the finding."""

    points: tuple[CurvePoint, ...]
    best_of_n: tuple[BestOfN, ...]
    finding: Finding
    judge: str = "gold"

    def to_json(self) -> dict[str, Any]:
        return to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Overoptimisation":
        return from_json(cls, data)


def stretches(points: Sequence[CurvePoint], *, most: int = 12) -> tuple[CurvePoint, ...]:
    """Means over equal stretches of steps, at most `most`, each with the standard error of its means.

    KL does not rise at every step, so a line through single steps runs to and fro. The error includes the trend within
    a stretch, which makes it careful. A stretch of one point keeps what it had.
    """
    parts = np.array_split(np.arange(len(points)), min(most, len(points)))
    return tuple(_mean_point([points[i] for i in part]) for part in parts)


def _mean_point(points: Sequence[CurvePoint]) -> CurvePoint:
    if len(points) == 1:
        return points[0]
    columns = np.array([(p.kl, p.proxy, p.gold) for p in points])
    kl, proxy, gold = (float(x) for x in columns.mean(0))
    _, proxy_error, gold_error = (float(x) for x in columns.std(0, ddof=1) / np.sqrt(len(points)))
    return CurvePoint(points[-1].step, kl, proxy, gold, gold_error, proxy_error)


def overoptimisation(
    points: Sequence[CurvePoint], *, best_of_n: Sequence[BestOfN] = (), judge: str = "gold"
) -> Overoptimisation:
    """A curve in order of steps with what it shows.

    Args:
        judge: what `gold` is, such as "gold" or "the held-out reward model".

    Raises:
        DataError: fewer than two points, or a number that is not finite, or too few points to know the noise of.
    """
    ordered = tuple(sorted(points, key=lambda p: p.step))
    return Overoptimisation(ordered, tuple(best_of_n), find(ordered, judge=judge), judge)


def find(points: Sequence[CurvePoint], *, judge: str = "gold") -> Finding:
    """Compare the last point with the one where gold was highest.

    The highest of k noisy points is partly luck, so the fall must exceed a one-sided normal bound at `ERROR_RATE` /
    (k - 1) (Bonferroni over the points that could have been the peak). Standard errors are taken as independent,
    which is careful where all points use the same prompts. Without standard errors, the noise is read off the curve's
    own roughness (second differences), which takes at least 5 points.

    Raises:
        DataError: as `overoptimisation`.
    """
    _check(points)
    peak, last = max(points, key=lambda p: p.gold), points[-1]
    bound = NormalDist().inv_cdf(1 - ERROR_RATE / (len(points) - 1))
    fall = peak.gold - last.gold
    if peak.gold_error is None or last.gold_error is None:
        noise = bound * math.sqrt(2) * _roughness([p.gold for p in points])
    else:
        noise = bound * math.hypot(peak.gold_error, last.gold_error)
    fell, proxy_rose = fall > noise, last.proxy >= peak.proxy
    since = f"since step {peak.step} (KL {peak.kl:.1f} nats)"
    figures = f"from {_signed(peak.gold)} to {_signed(last.gold)} (noise explains {noise:.2f})"
    if fell and proxy_rose:
        text = (
            f"Over-optimisation: {since} the proxy rose from {_signed(peak.proxy)} to {_signed(last.proxy)} while "
            f"{judge} fell {figures}. Stop there, raise the KL coefficient, or improve the reward model."
        )
    elif fell:
        text = (
            f"{judge[:1].upper()}{judge[1:]} fell {figures} {since}, and so did the proxy: training became unstable, "
            f"which is not over-optimisation."
        )
    else:
        text = (
            f"No over-optimisation seen up to {last.kl:.1f} nats: {judge} ended at {_signed(last.gold)}, its highest "
            f"was {_signed(peak.gold)} at step {peak.step}."
        )
    return Finding(fell and proxy_rose, peak.step, peak.kl, peak.gold, fall, noise, text)


def best_of_n_points(
    proxy_PN: ArrayLike, gold_PN: ArrayLike, ns: Sequence[int], *, seed: int = 0
) -> tuple[BestOfN, ...]:
    """Best of n by the proxy from the same N reference samples of each prompt, unbiased for every n.

    Args:
        proxy_PN: [prompts, N].
        gold_PN: [prompts, N].
        ns: each 1 to N.

    Raises:
        DataError: shapes differ.
        ValueError: n is outside [1, N].
    """
    proxy = torch.as_tensor(np.asarray(proxy_PN, dtype=np.float64))
    gold = torch.as_tensor(np.asarray(gold_PN, dtype=np.float64))
    if proxy.ndim != 2 or proxy.shape != gold.shape or proxy.numel() == 0:
        raise DataError(
            "best of n needs proxy and gold scores of the same samples, [prompts, N]",
            got=f"{tuple(proxy.shape)} and {tuple(gold.shape)}",
            why="the sample that the proxy picks is judged by its own gold score",
            fix="score every sample by both; drop prompts with fewer samples",
        )
    prompts = [str(i) for i in range(len(proxy))]
    points = []
    for n in ns:
        golds = [float(best_of_n_expected(g, p, n)) for g, p in zip(gold, proxy, strict=True)]
        proxies = [float(best_of_n_expected(p, p, n)) for p in proxy]
        interval = bootstrap_mean(golds, prompts, seed=seed)
        estimate = Estimate(float(np.mean(golds)), interval, len(prompts), gold.numel())
        points.append(BestOfN(n, best_of_n_kl(n), float(np.mean(proxies)), estimate))
    return tuple(points)


def gold_at_equal_kl(points: Sequence[BestOfN], kl: float) -> float | None:
    """Gold of best-of-n at this KL, on a straight line between neighbouring n; None beyond the largest n measured.

    RL spends KL differently from best-of-n (Gao et al., section 3.4): read this as a reference, not as a ranking of
    methods.
    """
    known = sorted((p for p in points if p.gold.value is not None), key=lambda p: p.kl)
    if not known or not known[0].kl <= kl <= known[-1].kl:
        return None
    return float(np.interp(kl, [p.kl for p in known], [p.gold.value or 0.0 for p in known]))


def _check(points: Sequence[CurvePoint]) -> None:
    numbers = [x for p in points for x in (p.kl, p.proxy, p.gold)]
    if len(points) < 2 or not np.isfinite(numbers).all():
        raise DataError(
            "a curve needs two or more points with finite KL, proxy and gold",
            got=f"{len(points)} points",
            why="one point neither rises nor falls",
            fix="evaluate more often during training; drop points without a score and say so",
        )
    if len(points) < FEWEST_POINTS and any(p.gold_error is None for p in points):
        raise DataError(
            f"a curve of fewer than {FEWEST_POINTS} points needs standard errors",
            got=f"{len(points)} points, some without `gold_error`",
            why="without them a fall cannot be told from noise",
            fix="pass the standard error of each mean gold score, or evaluate more often",
        )


def _roughness(values: Sequence[float]) -> float:
    """Standard deviation of the noise on a smooth curve: median |second difference|, which has deviation sqrt(6)
    sigma."""
    second = np.diff(np.asarray(values, dtype=np.float64), n=2)
    return float(np.median(np.abs(second))) / (NormalDist().inv_cdf(0.75) * math.sqrt(6))


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
