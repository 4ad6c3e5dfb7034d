"""Learning-rate schedules as values."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up, then constant, linear or cosine decay to a floor.

    Args:
        decay: shape after the warm-up. InstructGPT: cosine for SFT and reward model, constant for PPO.
        warmup: share of all steps spent rising, 0 to 1.
        start: factor the warm-up starts from (InstructGPT's PPO: one tenth of the peak).
        floor: factor at the end (InstructGPT: 0.1 for SFT and reward model).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    decay: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: float = 0.0
    start: float = 0.0
    floor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= 1 or not 0 <= self.floor <= 1 or not 0 <= self.start <= 1:
            raise ValueError(
                f"warmup, start and floor must lie in [0, 1]; got {self}; warmup is a share, not a step count"
            )

    def factor(self, step: int, total: int) -> float:
        """Factor on the peak learning rate for step `step` (0 is the first) of `total`."""
        rising = round(self.warmup * total)
        if step < rising:
            return self.start + (1 - self.start) * (step + 1) / rising
        if self.decay == "constant":
            return 1.0
        done = (step - rising) / max(1, total - rising)
        left = 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.floor + (1 - self.floor) * left
