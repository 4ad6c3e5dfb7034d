"""Means and whitening over the included places only."""

import torch
from torch import Tensor

from assent.functional import _guards
from assent.functional._precision import as_float

WHITEN_EPSILON = 1e-8


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x` over the included places: sum(x[mask]) / count(mask).

    Args:
        x: any shape and unit; bools and integers are counted as numbers.
        mask: bool, shape of `x`, True = included.

    Returns:
        A scalar in the unit of `x`, float32 at least. Nan when nothing is included (its gradient is then 0).

    Raises:
        ValueError: the mask is not bool, or of another shape.
    """
    _guards.mask_of(mask, x=x)
    x = as_float(x)
    return torch.where(mask, x, 0.0).sum() / mask.sum()


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Scale the included places to unit variance: (x - mean) / sqrt(var + 1e-8), plus the mean if it is not to be
    shifted.

    The variance is the biased one (divided by n), as in the original TensorFlow code of RLHF.

    Args:
        x: any shape.
        mask: bool, shape of `x`, True = included. Mean and variance are over all included places together.
        shift_mean: False keeps the mean, as is done for rewards; True removes it, as is done for advantages.

    Returns:
        Shape of `x`, in standard deviations; masked places are 0.

    Raises:
        ValueError: the mask is not bool, or of another shape.

    Source: Ziegler et al. 2019 (arXiv 1909.08593), openai/lm-human-preferences.
    """
    _guards.mask_of(mask, x=x)
    included = torch.where(mask, as_float(x), 0.0)
    count = mask.sum().clamp(min=1)
    mean = included.sum() / count
    centred = torch.where(mask, included - mean, 0.0)
    scaled = centred * (centred.square().sum() / count + WHITEN_EPSILON).rsqrt()
    return scaled if shift_mean else torch.where(mask, scaled + mean, 0.0)
