"""How accurate any reward model can be, given that annotators disagree."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assent.evals.intervals import Estimate, Floats, share_estimate
from assent.evals.judged import JudgedPair


@dataclass(frozen=True, slots=True)
class NoiseCeiling:
    """What the noise of the votes allows.

    Args:
        accuracy: the highest expected accuracy on single votes; an upper bound when it comes from votes.
        at_least: an accuracy that some predictor is known to reach (the other annotators' majority); None when unknown.
        agreement: how often two annotators order a pair alike; None when unknown.
        source: where the figures come from, in words.
    """

    accuracy: float
    at_least: float | None
    agreement: Estimate | None
    source: str

    @classmethod
    def given(cls, accuracy: float, *, source: str = "known noise of the simulated annotators") -> "NoiseCeiling":
        return cls(accuracy, None, None, source)


FEWEST_TOLD_APART = 3
"""Annotators whose agreements two by two tell how reliable each is: of two, only the product is known."""
ROUNDS, SETTLED = 500, 1e-9
"""Of fitting; the change at which it ends."""


def ceiling_from_votes(pairs: Sequence[JudgedPair], *, level: float = 0.95) -> NoiseCeiling | None:
    """Ceiling from pairs that two or more annotators ordered; ties do not vote. None when there are no such pairs.

    * agreement: over all two votes on a pair, then over pairs;
    * at least: each vote predicted by the majority of the others, a draw counting half;
    * at most: the smaller of two upper bounds. One is the share of the majority among the very votes it was taken from.
      The other is (1 + E[r]) / 2, where r says how far an annotator's votes follow the best answers, 1 for always and 0
      for by chance. Two annotators agree with a chance of (1 + E[r_j r_k d^2]) / 2, d being how clear a pair is, so r
      times the root of E[d^2] is the one factor of their agreements (`_followed`), and E[d] is not above that root
      (Jensen), equality when all pairs are equally clear. Who cannot be told apart is taken to be alike: the root of
      2 a - 1, a the agreement. That alone would be too low where annotators differ, since a good and a bad one agree
      less often than two of middling reliability.

    Sources: Dawid and Skene 1979 (votes independent given the best answer); Parisi et al. 2014 (PNAS 111, predictors
    without labels: their products off the diagonal are of rank one); Harman and Jones 1966 (minres).
    """
    units: dict[tuple[str, str, str], list[tuple[str, int]]] = defaultdict(list)
    for pair in pairs:
        if not pair.tie:
            units[pair.asked].append((pair.annotator, 1 if pair.better.id == pair.asked[1] else -1))
    kept = {key: votes for key, votes in units.items() if len(votes) >= 2}
    if not kept:
        return None
    total = np.array([len(votes) for votes in kept.values()], dtype=np.float64)
    forward = np.array([sum(vote > 0 for _, vote in votes) for votes in kept.values()], dtype=np.float64)
    counts = np.stack([forward, total - forward], 1)
    alike = (counts * (counts - 1)).sum(1) / (total * (total - 1))
    agreement = share_estimate(alike, [key[0] for key in kept], level=level)
    bound = _bound(list(kept.values()), float(alike.mean()), float((counts.max(1) / total).mean()))
    others = counts - 1
    predicted = np.where(others > counts[:, ::-1], 1.0, np.where(others == counts[:, ::-1], 0.5, 0.0))
    at_least = float(((counts * predicted).sum(1) / total).mean())
    return NoiseCeiling(max(at_least, bound), at_least, agreement, f"{len(kept)} pairs with two or more votes")


def _bound(units: Sequence[Sequence[tuple[str, int]]], alike: float, majority: float) -> float:
    names = sorted({name for votes in units for name, _ in votes})
    as_if_alike = math.sqrt(max(0.0, 2 * alike - 1))
    if len(names) == 1:  # nobody knows who voted
        return min(majority, (1 + as_if_alike) / 2)
    if len(names) < FEWEST_TOLD_APART:
        return majority
    column = {name: i for i, name in enumerate(names)}
    signs, voted = np.zeros((len(units), len(names))), np.zeros((len(units), len(names)))
    for row, votes in enumerate(units):
        for name, vote in votes:  # who voted twice on a pair has their mean
            signs[row, column[name]] += vote
            voted[row, column[name]] += 1
    followed = _followed(signs / np.maximum(voted, 1), voted > 0)
    told_apart = float(((voted * followed).sum(1) / voted.sum(1)).mean())
    return min(majority, (1 + max(as_if_alike, told_apart)) / 2)


def _followed(signs_UA: Floats, voted_UA: NDArray[np.bool_]) -> Floats:
    """How far each annotator's votes follow the common factor of all, from -1 to 1, `[A]`.

    Least squares on the mean products of two annotators' votes, each weighted by the pairs that both voted on.
    """
    shared = voted_UA.T.astype(np.float64) @ voted_UA
    products = signs_UA.T @ signs_UA
    np.fill_diagonal(shared, 0.0)
    np.fill_diagonal(products, 0.0)
    _, vectors = np.linalg.eigh(products / np.maximum(shared, 1))
    followed = vectors[:, -1] * (1 if vectors[:, -1].sum() >= 0 else -1)
    for _ in range(ROUNDS):
        before = followed.copy()
        for j in range(len(followed)):
            weight = float(shared[j] @ followed**2)
            if weight > 0:
                followed[j] = np.clip(products[j] @ followed / weight, -1.0, 1.0)
        if np.abs(followed - before).max() < SETTLED:
            break
    return followed
