"""What stands in a masked place must not matter: the check that every masked function passes."""

import math

import torch
from torch import Tensor


def assert_blind_to_masked(function, inputs: list[Tensor], mask: Tensor, *, detached: bool = False) -> None:
    """Put nan, inf, -inf and 1e30 in the masked places of every input; values and gradients stay bit for bit."""
    assert mask.any() and not mask.all()

    def outcome(filling):
        filled = [torch.where(mask, x, filling).requires_grad_() for x in inputs]
        out = function(*filled, mask)
        outs = out if isinstance(out, tuple) else (out,)
        if detached:
            assert not any(x.requires_grad for x in outs)
            return outs
        weights = [torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).view(x.shape) for x in outs]
        total = sum((x * weight).sum() for x, weight in zip(outs, weights, strict=True))
        return (*outs, *torch.autograd.grad(total, filled))

    clean = outcome(0.0)
    for x in clean:
        assert x.isfinite().all()
    for filling in (math.nan, math.inf, -math.inf, 1e30):
        for one, other in zip(outcome(filling), clean, strict=True):
            assert torch.equal(one, other), f"{filling} in a masked place changed the outcome"
