"""What every function here refuses, in one voice: what is wrong, what was got, how to fix it."""

import math
from typing import NoReturn

import torch
from torch import Tensor


def refuse(what: str, *, got: object, fix: str) -> NoReturn:
    """Raise the `ValueError` of this package: what, got, fix."""
    raise ValueError(f"{what}\n  got: {got}\n  fix: {fix}")


def number(name: str, value: float, *, low: float, high: float = math.inf, open_low: bool = False,
           open_high: bool = False) -> None:  # fmt: skip
    """Refuse a number outside [low, high] (or an open end); nan is outside every interval."""
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if above and below:
        return
    interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high or high == math.inf else ']'}"
    refuse(f"{name} is outside {interval}", got=value, fix=f"pass a {name} in {interval}")


def count(name: str, value: int, *, low: int = 1) -> None:
    """Refuse anything but an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        refuse(f"{name} must be an integer of at least {low}", got=repr(value), fix=f"pass {name} >= {low}")


def same_shape(**tensors: Tensor) -> None:
    """Refuse tensors that must match element for element but differ in shape; nothing is broadcast by accident."""
    if len({tuple(x.shape) for x in tensors.values()}) > 1:
        refuse(
            f"{', '.join(tensors)} must have one shape",
            got={name: tuple(x.shape) for name, x in tensors.items()},
            fix="align them element for element; expand on purpose where one value serves many places",
        )


def broadcastable(**tensors: Tensor) -> None:
    """Refuse tensors of different rank or of shapes that differ otherwise than by a 1 ([B, 1] against [B, T])."""
    shapes = [tuple(x.shape) for x in tensors.values()]
    sizes = [set(column) - {1} for column in zip(*shapes, strict=False)]
    if len({len(shape) for shape in shapes}) > 1 or any(len(size) > 1 for size in sizes):
        refuse(
            f"{', '.join(tensors)} must have one shape, or a 1 where one value serves a whole dimension",
            got=dict(zip(tensors, shapes, strict=True)),
            fix="give each [B, T], or [B, 1] for one value per sequence ([B] would be read as [T])",
        )


def rank(name: str, x: Tensor, dims: int, legend: str) -> None:
    """Refuse a tensor that has not `dims` dimensions."""
    if x.dim() != dims:
        refuse(f"{name} must be {legend}", got=tuple(x.shape), fix=f"pass a tensor with {dims} dimension(s)")


def boolean(name: str, x: Tensor) -> None:
    """Refuse a mask that is not bool: a 0/1 or -100 mask hides what is included."""
    if x.dtype != torch.bool:
        refuse(f"{name} must be a bool tensor, True = included", got=x.dtype, fix=f"pass {name}.bool() or a comparison")


def mask_of(mask: Tensor, **tensors: Tensor) -> None:
    """Refuse a mask that is not bool or that does not fit its tensors element for element."""
    boolean("mask", mask)
    same_shape(mask=mask, **tensors)


def elements_within(name: str, x: Tensor, *, low: float, high: float) -> None:
    """Refuse a tensor with an element outside [low, high]; nan is outside."""
    inside = (x >= low) & (x <= high)
    if not bool(inside.all()):
        refuse(
            f"{name} has elements outside [{low:g}, {high:g}]",
            got=x[~inside].flatten()[:4].tolist(),
            fix=f"map {name} into [{low:g}, {high:g}] first",
        )
