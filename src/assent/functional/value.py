"""The value head: its loss per token and how well it explains the returns."""

import torch
from torch import Tensor

from assent.functional import _guards
from assent.functional._precision import as_float


def clipped_value_loss(
    values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, *, clip: float | None = 0.2
) -> Tensor:
    """0.5 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2).

    Args:
        values_BT: predicted now; carries the gradient.
        old_values_BT: predicted before the update.
        returns_BT: targets, in the unit of the rewards.
        clip: in the unit of the rewards, so it depends on their scale; .2 in Ziegler et al. 2019. None for none.

    Returns:
        `[B, T]`, in squared units of the rewards.

    Raises:
        ValueError: shapes differ, or clip is negative.

    Source: PPO's code (arXiv 1707.06347, openai/baselines); Ziegler et al. 2019 (arXiv 1909.08593).
    """
    _guards.same_shape(values_BT=values_BT, old_values_BT=old_values_BT, returns_BT=returns_BT)
    values_BT, old_values_BT, returns_BT = as_float(values_BT), as_float(old_values_BT), as_float(returns_BT)
    squares_BT = (values_BT - returns_BT).square()
    if clip is None:
        return 0.5 * squares_BT
    _guards.number("clip", clip, low=0.0)
    near_BT = values_BT.clamp(old_values_BT - clip, old_values_BT + clip)
    return 0.5 * torch.maximum(squares_BT, (near_BT - returns_BT).square())


def explained_variance(values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over the included tokens.

    1 is a perfect value head, 0 one that is worth a constant, negative one that is worse than a constant.

    Args:
        values_BT: predicted, any shape.
        returns_BT: what came, same shape and unit.
        mask_BT: bool, same shape, True = included.

    Returns:
        A scalar without unit, detached; nan when the returns are constant or nothing is included.

    Raises:
        ValueError: shapes differ, or the mask is not bool.
    """
    _guards.mask_of(mask_BT, values_BT=values_BT, returns_BT=returns_BT)
    returns_N = as_float(returns_BT.detach()[mask_BT])
    errors_N = returns_N - as_float(values_BT.detach()[mask_BT])
    # Compared, not computed: rounding gives equal returns a tiny variance, and the ratio would then be noise.
    if returns_N.numel() == 0 or bool((returns_N == returns_N[0]).all()):
        return torch.full((), torch.nan, dtype=errors_N.dtype, device=errors_N.device)
    return 1.0 - errors_N.var(correction=0) / returns_N.var(correction=0)
