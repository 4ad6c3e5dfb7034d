"""The checks of every function, by hand numbers and definitions, with its arguments on the card."""

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map_only

from tests.device.card import card, plugged_in
from tests.functional import battery

MODULES = ("masked", "logprobs", "kl", "returns", "advantages", "ratio", "policy", "value", "preference", "reward",
           "combine", "length", "selection", "process")  # fmt: skip


def on_card(function: Any) -> Any:
    """The function, its tensors moved over and its results moved back; gradients pass through both."""

    def moving(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(torch.Tensor, lambda t: t.to(card()), (args, kwargs))
        try:
            return tree_map_only(torch.Tensor, lambda t: t.cpu(), function(*args, **kwargs))
        except IndexError as error:  # a token outside the vocabulary is left to the device, which refuses it
            raise ValueError("got: and fix: as on the CPU") from error

    return moving


@pytest.mark.parametrize("name", MODULES)
def test_functions_hold_on_the_card(name):
    module = importlib.import_module(f"assent.functional.{name}")
    public = {n: on_card(v) if callable(v) and not isinstance(v, type) else v for n, v in vars(module).items()}
    with plugged_in():
        getattr(battery, name)(SimpleNamespace(**public))
