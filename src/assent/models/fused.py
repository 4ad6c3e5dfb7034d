"""Parts of transformers models written out in many small operations, run as few: the same functions to rounding.

Each small operation reads and writes the states once more, and may keep them for the backward pass. Names and weights
of the modules stay, so the saved folder is the same, and whoever loads it elsewhere runs what transformers has there.
"""

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import GELUTanh, NewGELUActivation
from transformers.pytorch_utils import Conv1D

from assent.kernels import products

SAME = 1e-5
"""Largest difference from the module replaced, relative to the largest value; float32 gives about 1e-6."""


def fuse(model: nn.Module) -> None:
    """GELU in its tanh form as torch's one operation instead of eight; RMS norms by `RMSNorm`, those whose function it
    has (Gemma's, which adds 1 to its weights, is left); projections by `products.linear`, where that is not torch's."""
    for module in list(model.modules()):
        if type(module) in _PROJECTIONS and products.multiply() is not None:
            module.forward = MethodType(_PROJECTIONS[type(module)], module)
        for name, part in module.named_children():
            if type(part) is NewGELUActivation:
                setattr(module, name, GELUTanh())
            elif (norm := _as_rms_norm(part)) is not None:
                setattr(module, name, norm)


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    return products.linear(x, module.weight, module.bias)


def _conv1d(module: Conv1D, x: Tensor) -> Tensor:
    return products.linear(x, module.weight.t(), module.bias)


_PROJECTIONS: dict[type, Callable[..., Tensor]] = {nn.Linear: _linear, Conv1D: _conv1d}
"""Set on the module as its `forward`. Its class stays, since others ask for it."""
for _forward in (_linear, _conv1d):
    _forward.__name__ = "forward"  # what a pickle looks for


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467, with eps
    under the root as in Llama).

    In float32 it keeps its input and one number a position for the backward pass; the written-out form keeps more than
    the states twice. In other number types it is that form: the mean in float32, rounded before the weight.

    Args:
        weight: `[D]`, the module's own parameter.
        eps: above 0.
    """

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = weight, eps

    def forward(self, hidden: Tensor) -> Tensor:
        if hidden.dtype == self.weight.dtype == torch.float32:
            return self._in_one_piece(hidden, self.weight)
        wide = hidden.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(hidden.dtype)

    def _in_one_piece(self, hidden: Tensor, weight_D: Tensor) -> Tensor:
        normed: Tensor = _RMSNorm.apply(hidden, weight_D, self.variance_epsilon)
        return normed

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, eps={self.variance_epsilon}"


class _RMSNorm(torch.autograd.Function):
    """The gradient written out: with n = x r and g' = g w, dx = r (g' - n mean(g' n)) and dw = sum of g n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, inverse)
        return (x * inverse).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, weight_D, inverse = ctx.saved_tensors
        normed = x * inverse
        d_weight = (grad * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = grad * weight_D
            along = torch.linalg.vecdot(d_x, normed).unsqueeze(-1).div_(x.shape[-1])
            d_x.addcmul_(normed, along, value=-1).mul_(inverse)
        return d_x, d_weight, None


@torch.no_grad()
def _as_rms_norm(part: nn.Module) -> RMSNorm | None:
    """The module as an `RMSNorm`, where it is one by name and gives the same numbers."""
    weight, eps = getattr(part, "weight", None), getattr(part, "variance_epsilon", None)
    if not type(part).__name__.endswith("RMSNorm") or isinstance(part, RMSNorm) or not isinstance(eps, float):
        return None
    if not isinstance(weight, nn.Parameter) or len(inspect.signature(part.forward).parameters) != 1:
        return None
    if weight.is_meta or weight.dim() != 1:
        return None
    norm = RMSNorm(weight, eps)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(4, len(weight), generator=generator).to(weight)
    theirs, ours = part(probe), norm(probe)
    if theirs.dtype != ours.dtype or (theirs - ours).abs().max() > SAME * theirs.abs().max():
        return None
    return norm.train(part.training)
