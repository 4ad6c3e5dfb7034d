"""A card that is not there: tensors that say they live on a device of their own, and refuse to meet those that do not.

PyTorch lets Python stand in for a backend ("PrivateUse1"). Here it is called `card`. A tensor on it is a wrapper around
an ordinary one; while the card is plugged in, every operation looks at where its arguments live, and is then computed
by the CPU on what the wrappers hold. So a program runs on the card as it would on a GPU, with real numbers, and what a
GPU would refuse is refused: an operation on tensors of two devices, unless one is a number of no dimension. What is
made without a device lives on the CPU, and is found out when it meets the card.

Gaps, known: attention picks another kernel than on the CPU (numbers differ in the seventh digit); `torch.autocast` does
nothing on it; a GPU would also take index tensors from the CPU, which is refused here, since each costs a wait.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "card"
HOST = torch.device("cpu")


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float32, torch.bfloat16]


class OnCard(Tensor):
    """A tensor on the card, which holds an ordinary one."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnCard":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "layout": held.layout}
        made = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=card(), **layout)
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnCard({self.held})"

    def tolist(self) -> Any:
        return self.held.tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def storage(self) -> Any:
        return self.held.storage()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnCard":
        if id(self) not in memo:
            other = OnCard(self.held.detach().clone()).requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                other = torch.nn.Parameter(other, requires_grad=self.requires_grad)
            memo[id(self)] = other
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor of the card, which is not plugged in")


class Apart(RuntimeError):
    """What CUDA says when tensors of two devices meet."""


MOVES = ("aten::copy_", "aten::_to_copy", "aten::to")


class Card(TorchDispatchMode):
    """While it is entered, tensors of the card can be computed with.

    `moves` counts what went over, by direction: "in" and "out".
    """

    def __init__(self) -> None:
        super().__init__()
        self.moves: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat = tree_flatten((args, kwargs))[0]
        tensors = [x for x in flat if isinstance(x, Tensor)]
        on = [x for x in tensors if isinstance(x, OnCard)]
        named = next((x for x in flat if isinstance(x, torch.device)), None)
        name = func._schema.name
        if name in MOVES:
            there = on != [] if named is None or name == "aten::copy_" else named.type == NAME
            self._count(name, args, there)
        elif name == "aten::_local_scalar_dense":
            there = False
        else:
            _refuse_apart(name, on, [x for x in tensors if not isinstance(x, OnCard) and x.dim() > 0])
            there = on != [] if named is None else named.type == NAME
        out = func(*_held(args), **_held(kwargs))
        if not there or func._schema.returns == []:
            return out
        if name == "aten::copy_" and not isinstance(args[0], OnCard):
            return args[0]
        wrapped = tree_map_only(Tensor, OnCard, out)
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if on else wrapped

    def _count(self, name: str, args: Any, there: bool) -> None:
        source = args[1] if name == "aten::copy_" else args[0]
        there = isinstance(args[0], OnCard) if name == "aten::copy_" else there
        if isinstance(source, OnCard) != there and source.dim() > 0:
            self.moves["in" if there else "out"] += 1


def _held(tree: Any) -> Any:
    tree = tree_map_only(OnCard, lambda t: t.held, tree)
    return tree_map_only(torch.device, lambda _: HOST, tree)


def _refuse_apart(name: str, on: Sequence[Tensor], off: Sequence[Tensor]) -> None:
    if on and off:
        shapes = [[tuple(x.shape) for x in side] for side in (on, off)]
        raise Apart(f"Expected all tensors to be on the same device: {name} of {shapes[0]} there and {shapes[1]} here")


@cache
def register() -> None:
    """The name can be registered once in a process."""
    _setup_privateuseone_for_python_backend(NAME, _Module())


def card() -> torch.device:
    return torch.device(NAME, 0)


@contextmanager
def plugged_in() -> Iterator[Card]:
    """The card, once it is registered; outside, its tensors cannot be touched."""
    register()
    lift, swap = torch._C._only_lift_cpu_tensors(), torch.__future__.get_swap_module_params_on_conversion()
    # `torch.tensor(..., device=card)` is made on the CPU and moved, which a mode hears of only so.
    torch._C._set_only_lift_cpu_tensors(True)
    # `Module.to` else makes new parameters, and tied ones come apart; on a GPU they stay the objects they were.
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with Card() as mode:
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(lift)
        torch.__future__.set_swap_module_params_on_conversion(swap)
