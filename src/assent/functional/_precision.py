"""The one rule of precision: nothing below float32 meets a sum, a softmax or an exp, and float64 stays float64."""

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0  # exp(20) = 4.9e8: far outside any clip range, far inside float32


def as_float(x: Tensor) -> Tensor:
    """Raise half precision, integers and bools to float32; leave float32 and float64 as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def clamp_log_ratio(x: Tensor) -> Tensor:
    """Clamp a log-ratio (nats) to +-20, so that its exp is finite; beyond the clamp the gradient is 0."""
    return x.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
