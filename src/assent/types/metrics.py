"""Metrics as totals, so that they add."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mean:
    """A metric as total and count, so that it adds over micro-batches, minibatches and processes.

    `value` is nan where nothing was counted.
    """

    total: float
    count: float

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None = None) -> "Mean":
        """Total and count of the included elements of `x`; every element when `mask` is None."""
        x = x.detach()
        if mask is None:
            return cls(x.double().sum().item(), float(x.numel()))
        return cls(torch.where(mask, x, torch.zeros_like(x)).double().sum().item(), mask.sum().item())

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else float("nan")


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations; adds exactly (Chan et al. 1979), so order hardly matters."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None = None) -> "Moments":
        kept = (x if mask is None else x[mask]).detach().double()
        if kept.numel() == 0:
            return cls()
        mean = kept.mean()
        return cls(float(kept.numel()), mean.item(), (kept - mean).square().sum().item())

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        if count == 0:
            return Moments()
        gap = other.mean - self.mean
        mean = self.mean + gap * other.count / count
        squares = self.squares + other.squares + gap * gap * self.count * other.count / count
        return Moments(count, mean, squares)

    @property
    def variance(self) -> float:
        """Biased variance (divided by the count); nan when empty."""
        return self.squares / self.count if self.count else float("nan")


def add_metrics(a: Mapping[str, Mean], b: Mapping[str, Mean]) -> dict[str, Mean]:
    """Key by key sum; a key of only one side is kept."""
    total = dict(a)
    for name, mean in b.items():
        total[name] = total[name] + mean if name in total else mean
    return total
