"""How accurate any reward model can be, given that annotators disagree."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assent.evals.intervals import Estimate, share_estimate
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


def ceiling_from_votes(pairs: Sequence[JudgedPair], *, level: float = 0.95) -> NoiseCeiling | None:
    """Ceiling from pairs that two or more annotators ordered; ties do not vote. None when there are no such pairs.

    * agreement: over all two votes on a pair, then over pairs;
    * at least: each vote predicted by the majority of the others, a draw counting half;
    * at most: the smaller of two upper bounds: the share of the majority among the very votes it was taken from, and
      (1 + sqrt(2 a - 1)) / 2 with a the agreement. With q the chance that a vote agrees with the best answer to its
      pair, a = E[1 - 2 q (1 - q)] and the ceiling is E[q]; the bound is Jensen's inequality, equality when all pairs
      are equally hard.
    """
    votes: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for pair in pairs:
        if not pair.tie:
            votes[pair.asked][int(pair.better.id != pair.asked[1])] += 1
    kept = {key: counts for key, counts in votes.items() if sum(counts) >= 2}
    if not kept:
        return None
    counts = np.array(list(kept.values()), dtype=np.float64)
    total = counts.sum(1)
    alike = (counts * (counts - 1)).sum(1) / (total * (total - 1))
    agreement = share_estimate(alike, [key[0] for key in kept], level=level)
    majority = float((counts.max(1) / total).mean())
    spread = math.sqrt(max(0.0, 2 * float(alike.mean()) - 1))
    others = counts - 1
    predicted = np.where(others > counts[:, ::-1], 1.0, np.where(others == counts[:, ::-1], 0.5, 0.0))
    at_least = float(((counts * predicted).sum(1) / total).mean())
    at_most = max(at_least, min(majority, (1 + spread) / 2))
    return NoiseCeiling(at_most, at_least, agreement, f"{len(kept)} pairs with two or more votes")
