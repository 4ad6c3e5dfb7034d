"""How far annotators agree: raw, Cohen, Fleiss, Krippendorff, Gwet, each with an interval over what was judged.

Every coefficient is a function of sums over units, so that one draw of units serves them all. Units with fewer than two
labels say nothing of agreement; they still count in what the label shares of Fleiss and Gwet are, as in Gwet's book.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from assent.feedback.ratings import Ratings
from assent.intervals import LEVEL, RESAMPLES, Estimate, Floats, Interval, Ints, bootstrap_sums, percentile_interval

COHEN_CELLS = 20_000_000
"""Units x annotators in twos x cells of their tables beyond which Cohen's mean has no interval: 160 MB."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The coefficients; a value is None where it is undefined, as where everybody always says the same.

    Args:
        raw: how often two labels of one unit are the same: over all twos of a unit, then over units.
        cohen: the mean of Cohen's kappa over all two annotators who share units (Light 1971); without an interval where
            it would need more than `COHEN_CELLS`.
        cohen_of: Cohen's kappa of each two annotators, without an interval.
        fleiss: Fleiss' kappa; where annotators are missing, Gwet's (2014) extension.
        alpha_nominal, alpha_ordinal: Krippendorff's alpha. Ordinal takes the scale in its order.
        ac1: Gwet's AC1, which does not collapse where nearly everybody says the same.
        ac2: Gwet's AC2 with ordinal weights.
        annotators, units, shared, labels: how many there are; `shared` are the units with two labels or more.
    """

    raw: Estimate
    cohen: Estimate
    cohen_of: Mapping[tuple[str, str], float | None]
    fleiss: Estimate
    alpha_nominal: Estimate
    alpha_ordinal: Estimate
    ac1: Estimate
    ac2: Estimate
    annotators: int
    units: int
    shared: int
    labels: int

    def table(self) -> str:
        """As Markdown."""
        rows = (
            ("raw agreement", self.raw),
            ("Cohen's kappa, mean of all two", self.cohen),
            ("Fleiss' kappa", self.fleiss),
            ("Krippendorff's alpha, nominal", self.alpha_nominal),
            ("Krippendorff's alpha, ordinal", self.alpha_ordinal),
            ("Gwet's AC1", self.ac1),
            ("Gwet's AC2, ordinal weights", self.ac2),
        )
        lines = ["| coefficient | value | interval |", "|---|---|---|"]
        return "\n".join(lines + [f"| {name} | {_shown(e.value)} | {_ends(e.interval)} |" for name, e in rows]) + "\n"


def agreement(ratings: Ratings, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Agreement:
    """All coefficients, with percentile intervals over resampled clusters of units.

    Sources: Cohen 1960; Fleiss 1971; Krippendorff, Computing Krippendorff's alpha-reliability (2011); Gwet 2008 and
        Handbook of inter-rater reliability (4th edition, 2014).
    """
    counts, q = ratings.counts(), len(ratings.scale)
    shared = counts.sum(1) >= 2
    clusters, units = len(np.unique(ratings.cluster_U[shared])), int(shared.sum())
    plain, coincidences = _gwet_sums(counts, identity(q)), _coincidences(counts)
    kinds: list[tuple[Floats, Callable[[Floats], Floats]]] = [
        (plain, _observed),
        (plain, _fleiss),
        (coincidences, lambda sums: _alpha(sums, q, _nominal_distance)),
        (coincidences, lambda sums: _alpha(sums, q, _ordinal_distance)),
        (plain, lambda sums: _gwet(sums, identity(q))),
        (_gwet_sums(counts, ordinal(q)), lambda sums: _gwet(sums, ordinal(q))),
    ]
    twos = list(combinations(range(len(ratings.annotators)), 2))
    crossed = [_crossed(ratings, a, b) for a, b in twos]
    tables = np.array([np.bincount(cell, minlength=q * q) for _, cell in crossed], dtype=np.float64).reshape(1, -1)
    each = _cohen_kappas(tables, q)
    by_unit = len(counts) * tables.size <= COHEN_CELLS
    if by_unit:
        kinds.append((_spread(crossed, len(counts), q), lambda sums: _mean_known(_cohen_kappas(sums, q))))
    columns = np.cumsum([per_unit.shape[1] for per_unit, _ in kinds])[:-1]
    sums = np.concatenate([per_unit for per_unit, _ in kinds], 1)
    drawn = np.split(bootstrap_sums(sums, ratings.cluster_U, resamples=resamples, seed=seed), columns, axis=1)

    def estimate(value: float, draws: Floats | None) -> Estimate:
        if not np.isfinite(value):
            return Estimate(None, None, clusters, units)
        return Estimate(float(value), None if draws is None else _interval(draws, level), clusters, units)

    raw, fleiss, nominal, ranked, ac1, ac2 = (
        estimate(finish(per_unit.sum(0, keepdims=True))[0], finish(draws))
        for (per_unit, finish), draws in zip(kinds[:6], drawn, strict=False)
    )
    names = ratings.annotators
    return Agreement(
        raw=raw,
        cohen=estimate(_mean_known(each)[0], kinds[6][1](drawn[6]) if by_unit else None),
        cohen_of={
            (names[a], names[b]): float(kappa) if np.isfinite(kappa) else None
            for (a, b), kappa in zip(twos, each[0], strict=True)
        },
        fleiss=fleiss,
        alpha_nominal=nominal,
        alpha_ordinal=ranked,
        ac1=ac1,
        ac2=ac2,
        annotators=len(names),
        units=len(ratings.units),
        shared=units,
        labels=len(ratings.label_N),
    )


def gwet(ratings: Ratings, weights: Floats) -> float | None:
    """Gwet's AC2 with weights of your own, [Q, Q]; AC1 with `identity`. None where it is undefined."""
    (value,) = _gwet(_gwet_sums(ratings.counts(), weights).sum(0, keepdims=True), weights)
    return float(value) if np.isfinite(value) else None


def identity(q: int) -> Floats:
    """Agreement is the same label."""
    return np.eye(q)


def linear(q: int) -> Floats:
    """1 - |k - l| / (Q - 1), [Q, Q]."""
    return 1 - _apart(q) / max(q - 1, 1)


def quadratic(q: int) -> Floats:
    """1 - (k - l)^2 / (Q - 1)^2, [Q, Q]."""
    return 1 - (_apart(q) / max(q - 1, 1)) ** 2


def ordinal(q: int) -> Floats:
    """1 - C(|k - l| + 1, 2) / C(Q, 2), [Q, Q] (Gwet 2014, section 3.5)."""
    return 1 - _apart(q) * (_apart(q) + 1) / max(q * (q - 1), 1)


def _apart(q: int) -> Floats:
    return np.abs(np.subtract.outer(np.arange(q), np.arange(q))).astype(np.float64)


# ------------------------------------------------------------------------------ sums per unit, and what is made of them


def _gwet_sums(counts_UQ: Floats, weights: Floats) -> Floats:
    """Of each unit: its agreement and 1 where two labels or more, then its label shares and 1 where any, [U, Q + 3]."""
    m = counts_UQ.sum(1)
    twos = np.maximum(m * (m - 1), 1.0)
    alike = np.where(m >= 2, (counts_UQ * (counts_UQ @ weights - 1)).sum(1) / twos, 0.0)
    shares = counts_UQ / np.maximum(m, 1.0)[:, None]
    return np.column_stack([alike, m >= 2, shares, m >= 1])


def _observed(sums: Floats) -> Floats:
    return _ratio(sums[:, 0], sums[:, 1])


def _fleiss(sums: Floats) -> Floats:
    shares = sums[:, 2:-1] / sums[:, -1:]
    return _beyond(_observed(sums), (shares**2).sum(1))


def _gwet(sums: Floats, weights: Floats) -> Floats:
    q = len(weights)
    shares = sums[:, 2:-1] / sums[:, -1:]
    if q < 2:
        return np.full(len(sums), np.nan)
    return _beyond(_observed(sums), weights.sum() / (q * (q - 1)) * (shares * (1 - shares)).sum(1))


def _crossed(ratings: Ratings, a: int, b: int) -> tuple[Ints, Ints]:
    """The units that both labelled, and for each the cell Q * label of a + label of b."""
    of_a, of_b = (np.nonzero(ratings.annotator_N == i)[0] for i in (a, b))
    units, mine, yours = np.intersect1d(
        ratings.unit_N[of_a], ratings.unit_N[of_b], assume_unique=True, return_indices=True
    )
    return units, ratings.label_N[of_a[mine]] * len(ratings.scale) + ratings.label_N[of_b[yours]]


def _spread(crossed: Sequence[tuple[Ints, Ints]], units: int, q: int) -> Floats:
    """1 at the unit and cell of each two annotators, [U, twos * Q * Q]."""
    made = np.zeros((units, len(crossed) * q * q))
    for i, (where, cell) in enumerate(crossed):
        made[where, i * q * q + cell] = 1.0
    return made


def _cohen_kappas(sums: Floats, q: int) -> Floats:
    """Of each two annotators, [R, twos]; nan where they share no unit."""
    table = sums.reshape(len(sums), -1, q, q)
    n = table.sum((2, 3))
    observed = _ratio(np.trace(table, axis1=2, axis2=3), n)
    expected = _ratio((table.sum(2) * table.sum(3)).sum(2), n**2)
    return _beyond(observed, expected)


def _coincidences(counts_UQ: Floats) -> Floats:
    """Of each unit with two labels or more: ordered twos of its labels over (labels - 1), [U, Q * Q]."""
    m = counts_UQ.sum(1)
    twos = counts_UQ[:, :, None] * counts_UQ[:, None, :] - counts_UQ[:, :, None] * np.eye(counts_UQ.shape[1])
    weight = np.where(m >= 2, 1 / np.maximum(m - 1, 1.0), 0.0)
    return (twos * weight[:, None, None]).reshape(len(counts_UQ), -1)


def _alpha(sums: Floats, q: int, distance: Callable[[Floats], Floats]) -> Floats:
    table = sums.reshape(len(sums), q, q)
    n_RQ = table.sum(2)
    n, apart = n_RQ.sum(1), distance(n_RQ)
    expected = (n_RQ[:, :, None] * n_RQ[:, None, :] * apart).sum((1, 2))
    return 1 - _ratio((n - 1) * (table * apart).sum((1, 2)), expected)


def _nominal_distance(n_RQ: Floats) -> Floats:
    return np.broadcast_to(1 - np.eye(n_RQ.shape[1]), (*n_RQ.shape, n_RQ.shape[1]))


def _ordinal_distance(n_RQ: Floats) -> Floats:
    """(n_c + ... + n_k - (n_c + n_k) / 2)^2: squared difference of mid-ranks, [R, Q, Q]."""
    middle = n_RQ.cumsum(1) - n_RQ / 2
    return (middle[:, :, None] - middle[:, None, :]) ** 2


def _beyond(observed: Floats, expected: Floats) -> Floats:
    """(observed - expected) / (1 - expected); nan where chance explains everything."""
    return _ratio(observed - expected, 1 - expected)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(bottom) > 1e-12, top / bottom, np.nan)


def _mean_known(values: Floats) -> Floats:
    """Mean along the last axis over what is not nan; nan where nothing is."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(1), known.sum(1).astype(np.float64))


def _interval(draws: Floats, level: float) -> Interval | None:
    """None where more of the resamples are undefined than the interval leaves out."""
    known = draws[np.isfinite(draws)]
    return percentile_interval(known, level) if len(known) >= level * len(draws) else None


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"
