"""From the logits of steps to the score of a solution, and to a reward at each step."""

import torch
from torch import Tensor
from torch.nn import functional as F

from assent.functional import _guards
from assent.functional._precision import as_float


def log_product(logits_S: Tensor) -> Tensor:
    """log of the probability that every step is right, the steps taken as independent: sum of log sigmoid.

    Args:
        logits_S: one per step of a solution, in order; at least one.

    Returns:
        A scalar, nats, at most 0: a logarithm does not underflow on long solutions.

    Raises:
        ValueError: not [S], or no step.

    Source: Lightman et al. 2023 (arXiv 2305.20050), section 2.6.
    """
    _steps(logits_S)
    return F.logsigmoid(as_float(logits_S)).sum()


def minimum(logits_S: Tensor) -> Tensor:
    """Probability of the least probable step: a solution is as good as its worst step.

    Args:
        logits_S: as in `log_product`.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: as `log_product`.

    Source: Math-Shepherd (arXiv 2312.08935).
    """
    _steps(logits_S)
    return as_float(logits_S).sigmoid().min()


def running_product(logits_S: Tensor) -> Tensor:
    """Potential of each prefix: the probability that all its steps are right.

    Args:
        logits_S: as in `log_product`.

    Returns:
        `[S]` in [0, 1], never rising.

    Raises:
        ValueError: as `log_product`.

    Source: Lightman et al. 2023 (arXiv 2305.20050), of every prefix.
    """
    _steps(logits_S)
    return F.logsigmoid(as_float(logits_S)).cumsum(0).exp()


def running_minimum(logits_S: Tensor) -> Tensor:
    """Potential of each prefix: the probability of its least probable step.

    Args:
        logits_S: as in `log_product`.

    Returns:
        `[S]` in [0, 1], never rising.

    Raises:
        ValueError: as `log_product`.

    Source: PURE (arXiv 2504.15275), whose return is the minimum over the steps.
    """
    _steps(logits_S)
    return as_float(logits_S).sigmoid().cummin(0).values


def differences(potentials_S: Tensor) -> Tensor:
    """Reward of each step: what it adds to the potential, potential_k - potential_{k-1}, the potential before the first
    step being 0.

    The rewards of a solution add up to the potential of its end, however many steps lead there; a step that leaves
    the potential as it is earns nothing.

    Args:
        potentials_S: of each prefix, in order; at least one.

    Returns:
        `[S]` in the unit of the potentials.

    Raises:
        ValueError: not [S], or no step.

    Source: Ng, Harada and Russell 1999, potential-based shaping.
    """
    _steps(potentials_S)
    return torch.diff(as_float(potentials_S), prepend=as_float(potentials_S).new_zeros(1))


def _steps(x_S: Tensor) -> None:
    _guards.rank("logits_S", x_S, 1, "[S], the steps of one solution")
    if x_S.numel() == 0:
        _guards.refuse("a solution needs a step", got="S = 0", fix="drop responses without a step")
