"""Products of float32 matrices where torch's own leave half of the processor idle.

On x86 torch multiplies with MKL, which takes AVX2 on an AMD processor whatever else it has. `multiply.c` takes
AVX-512: on one core of a Zen 5 it does 140 to 200 GFLOP/s where MKL does 75 to 95, in the shapes of small language
models. There, and on what follows it, if it can be compiled and gives what torch gives, `linear` and `product` use it;
everywhere else, and for every other number type and device, they are torch's own. (Zen 4 makes each operation of 512
bits out of two, so that it should have little to win; not measured.)

A row of the result depends on its own row alone, to the last bit: not on how many rows or threads are beside it.
"""

import ctypes
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from assent.kernels import build

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("multiply.c")
COLUMNS = 32
"""Of a panel, as in `multiply.c`."""

NARROW = 16
"""Of less than half a panel, such as a head that gives one score, torch makes the product."""

BLOCK = 16 * 16 * (256 + 16)
"""Numbers that each thread lays out of the left matrix, as in `multiply.c`."""

LAID_OUT = 2**20
"""Numbers of the right matrix that are laid out at once: 4 MiB."""

ZEN_5 = 26
"""The family of AMD's first processors with whole units of 512 bits."""

GAP = 2e-6
"""Largest difference from torch that is put down to rounding, relative to the largest value."""


@dataclass(frozen=True)
class Multiply:
    """The compiled function."""

    function: Any

    def __call__(
        self, a_NK: Tensor, b_KM: "Tensor | Panels", bias_M: Tensor | None, out_NM: Tensor, *, add: bool
    ) -> Tensor:
        """a @ b + bias into `out_NM`, or added to it."""
        a_NK, bias_M = _with_neighbours(a_NK), None if bias_M is None else bias_M.contiguous()
        rows, depth = a_NK.shape
        columns, threads = b_KM.shape[1], torch.get_num_threads()
        wide = min(columns + -columns % COLUMNS, max(COLUMNS, LAID_OUT // depth // COLUMNS * COLUMNS))
        if isinstance(b_KM, Panels):
            b, strides, room = b_KM.numbers, [0, 0], 0
        else:
            b = _with_neighbours(b_KM)
            strides, room = [*b.stride()], wide * depth
        scratch = out_NM.new_empty(room + threads * BLOCK)
        self.function(
            a_NK.data_ptr(), b.data_ptr(), None if bias_M is None else bias_M.data_ptr(),
            out_NM.data_ptr(), scratch.data_ptr(), *a_NK.stride(), *strides, out_NM.stride(0),
            rows, columns, depth, wide, add, threads,
        )  # fmt: skip
        return out_NM


def _with_neighbours(x: Tensor) -> Tensor:
    """Of the two strides one must be 1."""
    return x if 1 in x.stride() and 0 not in x.stride() else x.contiguous()


@dataclass(frozen=True)
class Panels:
    """A right matrix as `multiply.c` reads it: laid out once for many products.

    Args:
        numbers: `[columns / 32, K, 32]`, flattened, 0 beyond the last column; of the weights as they were.
        shape: (K, M).
    """

    numbers: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, b_KM: Tensor) -> "Panels | None":
        """None where the compiled function is not for such a matrix."""
        if _taken(b_KM.t(), b_KM, None, depth=0) is None:
            return None
        beyond = -b_KM.shape[1] % COLUMNS
        numbers = F.pad(b_KM, (0, beyond)).unflatten(1, (-1, COLUMNS)).transpose(0, 1).flatten()
        return cls(numbers, (b_KM.shape[0], b_KM.shape[1]))


@cache
def multiply() -> Multiply | None:
    """The compiled function, checked; None where torch's own is as fast, or it cannot be had, or its figures differ."""
    told = build.processor()
    newer = told.get("vendor_id") == "AuthenticAMD" and int(told.get("cpu family", "0")) >= ZEN_5
    if not newer or "avx512f" not in told.get("flags", "").split():
        return None
    try:
        function = Multiply(_function(build.load(SOURCE)))
        gap = _gap(function)
    except build.FAILURES as error:
        logger.info("products keep to torch, at half the speed, since multiply.c could not be compiled: %s", error)
        return None
    if not gap < GAP:
        logger.warning("products keep to torch: multiply.c as compiled here differs from it by %.2g", gap)
        return None
    return function


def _function(library: ctypes.CDLL) -> Any:
    function = library.multiply
    function.restype = None
    function.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 9 + [ctypes.c_int32] * 2
    return function


def _gap(function: Multiply) -> float:
    """Largest difference from a product in float64, relative to the largest value, over shapes with every kind of
    edge."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for rows, depth, columns in ((1, 3, 32), (17, 300, 45), (31, 64, 96), (300, 40, 33)):
        a, b, bias = (torch.randn(*n, generator=generator) for n in ((rows, depth), (depth, columns), (columns,)))
        expected = torch.addmm(bias.double(), a.double(), b.double())
        for left in (a, a.t().contiguous().t()):
            for right in (b, b.t().contiguous().t()):
                for add in (False, True):
                    out = (bias + 0 * expected).float() if add else torch.full_like(expected, torch.nan).float()
                    function(left, right, None if add else bias, out, add=add)
                    worst = max(worst, float((out - expected).abs().max() / expected.abs().max()))
    return worst


def product(a_NK: Tensor, b_KM: Tensor | Panels, bias_M: Tensor | None = None) -> Tensor:
    """a @ b + bias, `[N, M]`, without gradient."""
    if isinstance(b_KM, Panels):
        function = multiply()
        assert function is not None and a_NK.shape[1] == b_KM.shape[0]
    elif (function := _taken(a_NK, b_KM, bias_M, depth=0)) is None:
        with torch.no_grad():
            return a_NK @ b_KM if bias_M is None else torch.addmm(bias_M, a_NK, b_KM)
    return function(a_NK, b_KM, bias_M, a_NK.new_empty(a_NK.shape[0], b_KM.shape[1]), add=False)


def add_product(out_NM: Tensor, a_NK: Tensor, b_KM: Tensor) -> Tensor:
    """out += a @ b, without gradient."""
    function = _taken(a_NK, b_KM, None, depth=0)
    if (
        function is None
        or out_NM.shape != (len(a_NK), b_KM.shape[1])
        or out_NM.stride(1) != 1
        or out_NM.dtype != torch.float32
    ):
        return out_NM.addmm_(a_NK, b_KM)
    return function(a_NK, b_KM, None, out_NM, add=True)


def linear(x: Tensor, weight_MK: Tensor, bias_M: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, with its gradient; a second derivative is refused.

    Args:
        x: `[..., K]`.

    Returns:
        `[..., M]`.
    """
    if _taken(x, weight_MK, bias_M, depth=1) is None or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight_MK, bias_M)
    x_NK = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight_MK, bias_M)):
        y_NM: Tensor = _Linear.apply(x_NK, weight_MK, bias_M)
    else:
        y_NM = product(x_NK, weight_MK.t(), bias_M)
    return y_NM.view(*x.shape[:-1], -1)


def _taken(x: Tensor, weight: Tensor, bias: Tensor | None, *, depth: int) -> Multiply | None:
    """The compiled function, for matrices that it is for: plain ones of float32 on a CPU, wide enough, not empty. Those
    that do not fit each other are torch's to refuse.

    Args:
        depth: the dimension of `weight` that is summed over.
    """
    for t in (x, weight) if bias is None else (x, weight, bias):
        if t.dtype != torch.float32 or t.device.type != "cpu" or type(t) not in (Tensor, nn.Parameter):
            return None
    if _followed() or weight.dim() != 2 or min(weight.shape) < NARROW or x.dim() < 2 or x.numel() == 0:
        return None
    if x.shape[-1] != weight.shape[depth] or (bias is not None and bias.shape != (weight.shape[1 - depth],)):
        return None
    return multiply()


def _followed() -> bool:
    """Whether something follows torch's operations, to trace, compile or count them; it would miss one in C."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack() > 0


class _Linear(torch.autograd.Function):
    """x @ weight^T + bias; keeps for the backward pass what it needs and no more."""

    @staticmethod
    def forward(ctx: Any, x_NK: Tensor, weight_MK: Tensor, bias_M: Tensor | None) -> Tensor:
        moving_x, moving_weight = ctx.needs_input_grad[:2]
        ctx.save_for_backward(x_NK if moving_weight else None, weight_MK if moving_x else None)
        return product(x_NK, weight_MK.t(), bias_M)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NM: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_NK, weight_MK = ctx.saved_tensors
        return (
            None if weight_MK is None else product(grad_NM, weight_MK),
            None if x_NK is None else product(grad_NM.t(), x_NK),
            grad_NM.sum(0) if ctx.needs_input_grad[2] else None,
        )
