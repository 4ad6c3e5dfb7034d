"""Simulated step markers: what is known of every step in, what a person would say of it out."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from assent.records import Rating, StepLabel


@dataclass(frozen=True, slots=True)
class SimulatedMarker:
    """One reader of worked solutions.

    Args:
        name: recorded with every solution.
        overlooks: probability of calling a bad step good.
        doubts: probability of calling a step bad that is not.
        stops: says nothing after the first step called bad, as the labellers of PRM800K.

    Raises:
        ValueError: a probability is outside [0, 1].
    """

    name: str
    overlooks: float = 0.05
    doubts: float = 0.02
    stops: bool = True

    def __post_init__(self) -> None:
        for field in ("overlooks", "doubts"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} is a probability; got {getattr(self, field)} for {self.name!r}; mend it")

    def label(self, ratings: Sequence[Rating], *, rng: random.Random) -> tuple[StepLabel, ...]:
        """One label per step; the same `rng` state gives the same answer, and every call draws once per step."""
        said: list[StepLabel] = []
        stopped = False
        for rating in ratings:
            heard = self._hear(rating, rng.random())
            said.append(None if stopped else heard)
            stopped = stopped or (self.stops and heard is Rating.BAD)
        return tuple(said)

    def _hear(self, rating: Rating, draw: float) -> Rating:
        if rating is Rating.BAD:
            return Rating.GOOD if draw < self.overlooks else Rating.BAD
        return Rating.BAD if draw < self.doubts else rating
