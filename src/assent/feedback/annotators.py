"""Simulated annotators: hidden scores in, human-like comparisons out.

They stand where people will: each sees the responses in an order of their own, likes what is shown first a little more,
reads with noise, cannot tell near-equal responses apart, and sometimes does not read at all.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from assent.records import Comparison, Degree, Preference, PromptText

DEGREES = ((2.0, Degree.SIGNIFICANTLY), (1.0, Degree.BETTER), (0.4, Degree.SLIGHTLY))
"""The least perceived gap, in units of gold, of each degree; below the last it is `NEGLIGIBLY`."""


@dataclass(frozen=True, slots=True)
class SimulatedAnnotator:
    """One reader. The defaults are a careful one.

    Args:
        name: recorded with every comparison.
        noise: scale of the Gumbel noise on each score, in units of gold; pairs then follow Bradley-Terry with gold
            divided by `noise` (and K-way rankings Plackett-Luce).
        position_bias: what being shown first adds to a score, in units of gold; it falls linearly to 0 for the last.
        tie_width: perceived scores that lie within this of the best of their group are a tie, in units of gold.
        careless: probability, from 0 to 1, of an answer that does not depend on the scores at all.

    Raises:
        ValueError: a field is out of its range.
    """

    name: str
    noise: float = 0.6
    position_bias: float = 0.0
    tie_width: float = 0.1
    careless: float = 0.0

    def __post_init__(self) -> None:
        for field in ("noise", "tie_width"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} is 0 or more; got {getattr(self, field)} for {self.name!r}; mend it")
        if not 0 <= self.careless <= 1:
            raise ValueError(f"careless is a probability; got {self.careless} for {self.name!r}; pass 0 to 1")

    def compare(
        self,
        id: str,
        prompt: PromptText,
        responses: Sequence[str],
        gold_scores: Sequence[float],
        *,
        rng: random.Random,
        kind: str = "",
        shown: Sequence[int] | None = None,
    ) -> Comparison:
        """Rank K responses: all C(K, 2) pairs, with ties and degrees from one set of perceived scores.

        The same `rng` state gives the same answer, and every call draws as often from it, careless or not.

        Args:
            id: of the comparison.
            prompt: what the responses answer.
            responses: at least two texts.
            gold_scores: one for each.
            rng: what this annotator's noise is drawn from.
            kind: of prompt.
            shown: the order in which they stand before this annotator; None for one that is drawn.

        Raises:
            ValueError: fewer than two responses, or not one finite score for each.
        """
        k = len(responses)
        if k < 2 or len(gold_scores) != k:
            raise ValueError(f"2 or more responses and a score for each; got {k} and {len(gold_scores)} in {id!r}")
        if not all(math.isfinite(score) for score in gold_scores):
            raise ValueError(f"scores must be finite; got {list(gold_scores)} in {id!r}; mend the judgement")
        drawn = tuple(rng.sample(range(k), k))
        shown = drawn if shown is None else tuple(shown)
        perceived = self._perceive(gold_scores, shown, rng)
        ranks = self._rank(perceived)
        pairs = tuple(_prefer(i, j, ranks, perceived) for i in range(k) for j in range(i + 1, k))
        return Comparison(id, prompt, tuple(responses), pairs, self.name, shown, kind)

    def calls_unsafe(self, harmlessness: Sequence[float], *, rng: random.Random) -> tuple[bool, ...]:
        """Whether each response is unsafe, read with noise: true with probability sigmoid(-harmlessness / noise).

        Args:
            harmlessness: in units of gold, below 0 where a response is unsafe.
        """
        reads = rng.random() >= self.careless
        scale = self.noise if reads else max(self.noise, 1.0)
        return tuple(h * reads + scale * (_gumbel(rng) - _gumbel(rng)) < 0 for h in harmlessness)

    def _perceive(self, gold_scores: Sequence[float], shown: Sequence[int], rng: random.Random) -> list[float]:
        k = len(gold_scores)
        reads = rng.random() >= self.careless
        scale = self.noise if reads else max(self.noise, 1.0)
        place = {index: position for position, index in enumerate(shown)}
        return [
            score * reads + scale * _gumbel(rng) + self.position_bias * (k - 1 - place[i]) / (k - 1)
            for i, score in enumerate(gold_scores)
        ]

    def _rank(self, perceived: Sequence[float]) -> list[int]:
        """1 is best; a group of equals is everything within `tie_width` of its best member."""
        ranks = [0] * len(perceived)
        best, rank = math.inf, 0
        for place, i in enumerate(sorted(range(len(perceived)), key=lambda i: -perceived[i]), start=1):
            if best - perceived[i] > self.tie_width or place == 1:
                best, rank = perceived[i], place
            ranks[i] = rank
        return ranks


def _gumbel(rng: random.Random) -> float:
    return -math.log(-math.log(max(rng.random(), 1e-12)))


def _prefer(i: int, j: int, ranks: Sequence[int], perceived: Sequence[float]) -> Preference:
    if ranks[i] == ranks[j]:
        return Preference(i, j, tie=True, degree=Degree.NEGLIGIBLY)
    better, worse = (i, j) if ranks[i] < ranks[j] else (j, i)
    gap = perceived[better] - perceived[worse]
    return Preference(better, worse, degree=next((d for least, d in DEGREES if gap >= least), Degree.NEGLIGIBLY))


PANEL = (
    SimulatedAnnotator("ada", noise=0.50, position_bias=0.0, tie_width=0.10),
    SimulatedAnnotator("ben", noise=0.65, position_bias=0.15, tie_width=0.15, careless=0.01),
    SimulatedAnnotator("cleo", noise=0.70, position_bias=0.10, tie_width=0.10, careless=0.02),
    SimulatedAnnotator("dan", noise=0.90, position_bias=0.20, tie_width=0.20, careless=0.03),
    SimulatedAnnotator("eve", noise=1.15, position_bias=0.30, tie_width=0.15, careless=0.08),
)
"""Five readers of different reliability; two of them agree on about as many pairs of SFT samples as the 72.6 % that
Ouyang et al. 2022 (InstructGPT, section 3.4) report of their own, ties left out."""
