"""Where a model lives, and the number type that its products run in.

Weights are float32 and stay so: optimiser states and the small updates of reinforcement learning need the digits. With
`bfloat16` the matrix products of a forward and its backward pass run in bfloat16 (`torch.autocast`), and all that
comes after them, log-softmax, losses, values, is float32 as before.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn

_NOTE = "assent_products"


@dataclass(frozen=True, slots=True)
class Placement:
    """A device, and the number type of matrix products.

    Args:
        device: with its index where it has one, `cuda:0` and not `cuda`.
        products: float32, or bfloat16.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    products: torch.dtype = torch.float32


CPU = Placement()


def place(module: nn.Module, placement: Placement, *, model: nn.Module | None = None) -> None:
    """Move a module, and note on the model how its products run.

    Args:
        model: the transformers model inside the module; the module itself when None.
    """
    torch.nn.Module.to(module, placement.device)
    vars(module if model is None else model)[_NOTE] = placement.products


def device_of(model: nn.Module) -> torch.device:
    """Where its weights are."""
    return next(model.parameters()).device


def products_of(model: nn.Module) -> torch.dtype:
    """The number type that its matrix products run in: that of its weights, unless it was placed otherwise."""
    noted: torch.dtype = getattr(model, _NOTE, torch.float32)
    return next(model.parameters()).dtype if noted == torch.float32 else noted


def placement_of(model: nn.Module) -> Placement:
    """How it was placed."""
    return Placement(device_of(model), getattr(model, _NOTE, torch.float32))


def narrowed(model: nn.Module) -> torch.dtype | None:
    """What `running_in` is to be told for this model; None where products run in the number type of the weights."""
    noted = getattr(model, _NOTE, torch.float32)
    return None if noted == torch.float32 else noted


def running_in(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Products inside run in this number type; as they are for None."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def in_full(model: nn.Module) -> Iterator[None]:
    """Products inside run in the number type of the weights: for numbers that are kept, and compared elsewhere."""
    noted = vars(model).get(_NOTE, torch.float32)
    vars(model)[_NOTE] = torch.float32
    try:
        yield
    finally:
        vars(model)[_NOTE] = noted
