"""Several annotators on the same responses, as one comparison whose pairs carry shares of votes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from assent.data.splits import record_key
from assent.records import Comparison, Preference


def pool_votes(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """One comparison for each prompt and list of responses, in order of first appearance.

    The probability of a pair is the mean over all that was said of it: 1 for a choice, 0 for the contrary one, 0.5 for
    a tie, and what a judge gave. Degrees and safety labels of several annotators have no mean and are left out; where
    only one annotator spoke, the comparison stays as it is.
    """
    groups: dict[tuple[str, tuple[str, ...], tuple[bool, ...]], list[Comparison]] = defaultdict(list)
    for c in comparisons:
        groups[record_key(c), c.responses, c.ended].append(c)
    return [_pooled(group) if len(group) > 1 else group[0] for group in groups.values()]


def _pooled(group: Sequence[Comparison]) -> Comparison:
    said: dict[tuple[int, int], list[float]] = defaultdict(list)
    for p in (p for c in group for p in c.preferences):
        first = min(p.better, p.worse)
        said[first, max(p.better, p.worse)].append(p.target if p.better == first else 1 - p.target)
    preferences = tuple(_preference(i, j, sum(v) / len(v)) for (i, j), v in said.items())
    annotators = "+".join(dict.fromkeys(c.annotator for c in group if c.annotator))
    return replace(group[0], preferences=preferences, annotator=annotators, shown=(), unsafe=())


def _preference(i: int, j: int, probability: float) -> Preference:
    """i preferred to j with this probability."""
    better, worse = (i, j) if probability >= 0.5 else (j, i)
    return Preference(better, worse, tie=probability == 0.5, probability=max(probability, 1 - probability))
