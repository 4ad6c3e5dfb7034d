"""What is declared of a metric."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """Healthy values, both ends included; None is no bound on that side."""

    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool:
        """nan is not healthy."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low <= value <= high

    def __str__(self) -> str:
        if self.low is None:
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared metric.

    Args:
        name: as logged. A name that ends in `/<...>` declares a family: anything may stand there.
        unit: of the number.
        meaning: what is averaged over what.
        healthy: where it should be, or None where no range holds in general.
        advice: what to do outside the range, or how to read it where there is none.
        label: short name in the terminal's line; empty keeps it out of the line.
    """

    name: str
    unit: str
    meaning: str
    healthy: Range | None
    advice: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Metrics that belong together, under one heading of the page."""

    title: str
    about: str
    metrics: tuple[Metric, ...]
