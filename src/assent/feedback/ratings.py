"""Who said what of which thing: the table that agreement and reliability are computed from."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from assent.errors import DataError
from assent.intervals import Floats, Ints
from assent.records import Comparison, Degree, Preference, PromptText

Label = int | str

STRENGTH = {Degree.NEGLIGIBLY: 1, Degree.SLIGHTLY: 2, Degree.BETTER: 3, Degree.SIGNIFICANTLY: 4}
"""The four degrees as steps away from a tie."""


class Judged(NamedTuple):
    """Two responses to a prompt; `first` is the one with the lower index where the pair was met first."""

    prompt: PromptText
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Ratings:
    """N labels that A annotators gave to U units, each at most one to a unit unless `of` was told otherwise.

    Args:
        units: what was labelled, [U].
        annotators: names, [A].
        scale: the categories that could be given, from lowest to highest where they have an order, [Q].
        unit_N, annotator_N, label_N: indices into the three above.
        cluster_U: units of one number share their luck and are resampled together; 0 upwards without gaps.
        replaced: labels that a later one of the same annotator took the place of.
    """

    units: tuple[Hashable, ...]
    annotators: tuple[str, ...]
    scale: tuple[Label, ...]
    unit_N: Ints
    annotator_N: Ints
    label_N: Ints
    cluster_U: Ints
    replaced: int = 0

    @classmethod
    def of(
        cls,
        said: Iterable[tuple[Hashable, str, Label]],
        *,
        scale: Sequence[Label] | None = None,
        clusters: Sequence[Hashable] | None = None,
        unique: bool = True,
    ) -> "Ratings":
        """From (unit, annotator, label).

        Args:
            scale: all categories, in order; those seen, sorted, when None. A category that nobody used still counts in
                Gwet's coefficients.
            clusters: what each unit belongs to, in order of the units' first appearance; each its own when None.
            unique: the last label counts where an annotator gave a unit several. When False all are kept, which makes
                sense to `reliability` and none to `agreement`.

        Raises:
            DataError: there is no label, or one that is not on the scale.
        """
        rows = list(said)
        kept = list({row[:2]: row for row in rows}.values()) if unique else rows
        names = tuple(scale) if scale is not None else tuple(sorted({label for *_, label in kept}, key=_order))
        strange = [label for *_, label in kept if label not in names]
        if not kept or strange:
            raise DataError(
                "agreement needs labels, each of them on the scale",
                got=f"{strange[0]!r}, not among {list(names)}" if strange else "no label",
                why="a coefficient of nothing is undefined, and chance agreement depends on what could have been said",
                fix="pass labelled units, and a scale with every category",
            )
        units, annotators = _numbers(u for u, _, _ in kept), _numbers(a for _, a, _ in kept)
        place = {name: i for i, name in enumerate(names)}
        of = list(units) if clusters is None else list(clusters)
        number = _numbers(of)
        return cls(
            tuple(units),
            tuple(str(a) for a in annotators),
            names,
            np.array([units[u] for u, _, _ in kept], dtype=np.int64),
            np.array([annotators[a] for _, a, _ in kept], dtype=np.int64),
            np.array([place[label] for *_, label in kept], dtype=np.int64),
            np.array([number[c] for c in of], dtype=np.int64),
            len(rows) - len(kept),
        )

    def counts(self) -> Floats:
        """How many annotators gave each label to each unit, [U, Q]."""
        made = np.zeros((len(self.units), len(self.scale)))
        np.add.at(made, (self.unit_N, self.label_N), 1.0)
        return made


def signed(preference: Preference, *, degrees: bool = False) -> int:
    """Positive where the response with the lower index is preferred, negative where the other is, 0 for a tie."""
    if preference.tie:
        return 0
    size = STRENGTH.get(preference.degree, 1) if degrees else 1
    return size if preference.better < preference.worse else -size


def pair_votes(comparisons: Iterable[Comparison]) -> Iterable[tuple[Judged, bool, Comparison, Preference]]:
    """Every judged pair, under one name whichever way round its responses stand: (pair, turned, comparison, vote).

    `turned` says that the response with the lower index is the pair's `second`. Pairs of two equal texts are no
    question and are left out.
    """
    met: set[Judged] = set()
    for c in comparisons:
        for p in c.preferences:
            low, high = c.responses[min(p.better, p.worse)], c.responses[max(p.better, p.worse)]
            if low == high:
                continue
            pair, turned = Judged(c.prompt, low, high), False
            if pair not in met and Judged(c.prompt, high, low) in met:
                pair, turned = Judged(c.prompt, high, low), True
            met.add(pair)
            yield pair, turned, c, p


def pair_ratings(comparisons: Iterable[Comparison], *, degrees: bool = False) -> Ratings:
    """Every judged pair as a unit, labelled 1 (first preferred), 0 (tie) or -1; units of one prompt are a cluster.

    A unit is (pair, n): where annotators were asked the same pair again, their n-th answers are compared.

    Args:
        degrees: label with the degree as well, -4 to 4; pairs without a stated degree are left out, ties stay.

    Raises:
        DataError: nobody judged anything, or an annotator has no name.
    """
    said: list[tuple[tuple[Judged, int], str, int]] = []
    asked: Counter[tuple[Judged, str]] = Counter()
    for pair, turned, c, p in pair_votes(comparisons):
        if not c.annotator:
            raise DataError(
                "agreement is between annotators",
                got=f"no annotator in comparison {c.id!r}",
                why="two votes of nobody may be two of one person",
                fix="name the annotators, or leave the rows out",
            )
        if degrees and not p.tie and p.degree is Degree.UNSTATED:
            continue
        label = signed(p, degrees=degrees)
        said.append(((pair, asked[pair, c.annotator]), c.annotator, -label if turned else label))
        asked[pair, c.annotator] += 1
    widest = max(STRENGTH.values()) if degrees else 1
    order = dict.fromkeys(unit for unit, _, _ in said)
    return Ratings.of(said, scale=range(-widest, widest + 1), clusters=[pair.prompt for pair, _ in order])


def _numbers(values: Iterable[Hashable]) -> dict[Hashable, int]:
    """Each value and its number, 0 upwards in order of first appearance."""
    made: dict[Hashable, int] = {}
    for value in values:
        made.setdefault(value, len(made))
    return made


def _order(label: Label) -> tuple[bool, Label]:
    """Numbers before words."""
    return isinstance(label, str), label
