"""From where data are kept to where they are read."""

import copy
from dataclasses import fields, is_dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


def moved(carrier: T, device: torch.device) -> T:
    """The same carrier with its tensors on the device; itself where all of them are there.

    Data are kept on the CPU, where they are drawn, ordered and selected; models may live elsewhere. So a micro-batch
    goes over once, whole, when it is read, and what is kept of the outputs comes back.

    Args:
        carrier: a tensor, or a dataclass of tensors, carriers and anything else, which is left as it is.
        device: with its index where it has one.
    """
    if isinstance(carrier, Tensor):
        return cast(T, carrier.to(device))
    if not is_dataclass(carrier) or isinstance(carrier, type):
        return carrier
    held = {f.name: getattr(carrier, f.name) for f in fields(carrier)}
    changed = {name: there for name, value in held.items() if (there := moved(value, device)) is not value}
    if not changed:
        return carrier
    # Not `replace`: its checks were passed when the carrier was made, and on a GPU each of them would wait for it.
    other = copy.copy(carrier)
    for name, value in changed.items():
        object.__setattr__(other, name, value)
    return other
