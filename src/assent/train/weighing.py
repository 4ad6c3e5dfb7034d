"""Several scorers into one reward: each normalised, clipped and weighted by itself, then added up."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from assent.protocols import Itemised, Scorer
from assent.types import CombinedScores, Mean, Moments, NamedScores, Rollout

LEAST_VARIANCE = 1e-8
"""What a normaliser divides by at least, squared: scores that are all equal stay finite."""

Over = Callable[[Moments, Moments], Moments]
"""Which moments normalise a batch, given those of every batch before and its own."""


def everything_seen(before: Moments, batch: Moments) -> Moments:
    """Running moments, this batch included."""
    return before + batch


def this_batch(before: Moments, batch: Moments) -> Moments:
    """Whitening over the batch."""
    return batch


@dataclass(frozen=True)
class WeightedScorer:
    """A scorer and what becomes of its score, in this order.

    Args:
        scorer: the judge.
        weight: in the sum that the policy is trained on.
        watched: it is logged and nothing else: a rollout that it will not score is trained on all the same.
        normalise: over which moments the score is brought to mean 0 and deviation 1; None leaves it as it is.
        clip: bound on its absolute value after normalisation.
    """

    scorer: Scorer
    weight: float = 1.0
    normalise: Over | None = None
    clip: float | None = None
    watched: bool = False


def ask(scorer: Scorer, rollouts: Sequence[Rollout]) -> CombinedScores:
    """What a scorer says, with what its parts said where it is made of others."""
    if isinstance(scorer, Itemised):
        return scorer.itemised(rollouts)
    return CombinedScores(scorer.score(rollouts), (), {})


def standardise(events_BT: Tensor, last_B1: Tensor, moments: Moments) -> Tensor:
    """Events whose sums over each row have lost the mean and are divided by the deviation.

    Args:
        last_B1: index of the last included token of each row.
    """
    deviation = deviation_of(moments)
    # The mean belongs to the sequence, so it is taken off once, at its last token.
    return (events_BT / deviation).scatter_add(1, last_B1, torch.full_like(events_BT[:, :1], -moments.mean / deviation))


def clipped(events_BT: Tensor, last_B1: Tensor, bound: float) -> Tensor:
    """Events whose sums over each row are within the bound; what is too much is taken off at the last token."""
    totals = events_BT.sum(1, keepdim=True)
    return events_BT.scatter_add(1, last_B1, totals.clamp(-bound, bound) - totals)


def deviation_of(moments: Moments) -> float:
    return float(max(moments.variance, LEAST_VARIANCE) ** 0.5)


def distribution(named: Sequence[NamedScores]) -> dict[str, Mean]:
    """Mean and spread of each named score over the batch, and the correlation of every two of them; over the rollouts
    that they scored, nan being no score.

    A correlation with a score that does not vary is not a number and is left out.
    """
    metrics: dict[str, Mean] = {}
    for n in named:
        scores_N = n.scores_B[~n.scores_B.isnan()].double()
        if not len(scores_N):
            continue
        low, high = torch.quantile(scores_N, torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
        metrics |= {
            f"score/{n.name}": Mean.of(scores_N),
            f"score_std/{n.name}": Mean(scores_N.std(correction=0).item(), 1.0),
            f"score_low/{n.name}": Mean(low, 1.0),
            f"score_high/{n.name}": Mean(high, 1.0),
        }
    for a, b in combinations(named, 2):
        both_2N = torch.stack([a.scores_B, b.scores_B]).double()
        both_2N = both_2N[:, ~both_2N.isnan().any(0)]
        together = torch.corrcoef(both_2N)[0, 1] if both_2N.shape[1] > 1 else None
        if together is not None and together.isfinite():
            metrics[f"score_correlation/{a.name} {b.name}"] = Mean(together.item(), 1.0)
    return metrics


def leaves(scorer: Scorer) -> Iterator[Scorer]:
    """The judges that a scorer is made of; itself where it is made of none."""
    if not isinstance(scorer, Itemised):
        yield scorer
        return
    for part in scorer.parts:
        yield from leaves(part)
