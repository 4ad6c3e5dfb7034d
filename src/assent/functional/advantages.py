"""Advantages without a value head: a response against the others of its prompt."""

import torch
from torch import Tensor

from assent.functional import _guards
from assent.functional._precision import as_float

STD_EPSILON = 1e-4


def group_relative(scores_B: Tensor, group_B: Tensor, *, scale_by_std: bool = True) -> Tensor:
    """(score - mean of its group) / (std of its group + 1e-4), the std being the sample one (n - 1).

    Args:
        scores_B: one per response.
        group_B: integer, which prompt each response belongs to; any numbers, in any order, groups of any size above 1.
        scale_by_std: False leaves the division out, as Dr. GRPO does to weigh all prompts alike.

    Returns:
        `[B]`, detached, in standard deviations (score units without the division). Exactly 0 where all scores of a
        group are equal, so that such a group teaches nothing.

    Raises:
        ValueError: shapes differ or are not [B], group_B is not integer, or a group has one member.

    Source: GRPO (arXiv 2402.03300); Dr. GRPO (arXiv 2503.20783); the constant 1e-4 is that of TRL.
    """
    scores_B, group_B, size_B, constant_B = _groups(scores_B, group_B)
    centred_B = torch.where(constant_B, 0.0, scores_B - _sum_per_group(scores_B, group_B) / size_B)
    if not scale_by_std:
        return centred_B
    variance_B = _sum_per_group(centred_B.square(), group_B) / (size_B - 1)
    return centred_B / (variance_B.sqrt() + STD_EPSILON)


def leave_one_out(scores_B: Tensor, group_B: Tensor) -> Tensor:
    """score - mean of the *other* scores of its group: an unbiased baseline. Equals n / (n - 1) (score - group mean).

    Args:
        scores_B: one per response.
        group_B: integer, which prompt each response belongs to.

    Returns:
        `[B]`, detached, in score units.

    Raises:
        ValueError: shapes differ or are not [B], group_B is not integer, or a group has one member.

    Source: RLOO (arXiv 2402.14740); Kool et al. 2019.
    """
    scores_B, group_B, size_B, constant_B = _groups(scores_B, group_B)
    others_B = (_sum_per_group(scores_B, group_B) - scores_B) / (size_B - 1)
    return torch.where(constant_B, 0.0, scores_B - others_B)


def in_company(group_B: Tensor) -> Tensor:
    """Which responses have another of their prompt to be compared with; a response is alone when no scorer would score
    the others.

    Args:
        group_B: integer, which prompt each response belongs to.

    Returns:
        `[B]`, bool.

    Raises:
        ValueError: none has; then one response per prompt was sampled.

    Source: RLOO (arXiv 2402.14740) and GRPO (arXiv 2402.03300) are defined for 2 responses per prompt or more.
    """
    _, index_B, size_G = group_B.unique(return_inverse=True, return_counts=True)
    together_B = size_G[index_B] > 1
    if not bool(together_B.any()):
        _guards.refuse(
            "no response has another of its prompt to be compared with",
            got=f"{len(size_G)} prompts with one response each",
            fix="set samples_per_prompt to at least 2",
        )
    return together_B


def no_signal(scores_B: Tensor, group_B: Tensor) -> Tensor:
    """Which groups have one score for all their responses: comparing them teaches nothing. A group of one is such.

    Args:
        scores_B: one per response.
        group_B: integer, which prompt each response belongs to.

    Returns:
        `[G]`, bool, in the order of the groups' numbers.

    Source: DAPO (arXiv 2503.14476), which samples such prompts again.
    """
    names_G, index_B = group_B.unique(return_inverse=True)
    blank_G = scores_B.new_zeros(names_G.numel())
    lowest_G = blank_G.scatter_reduce(0, index_B, scores_B, "amin", include_self=False)
    highest_G = blank_G.scatter_reduce(0, index_B, scores_B, "amax", include_self=False)
    return lowest_G == highest_G


def _groups(scores_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Check, and return scores, groups numbered from 0, size of each row's group, whether its scores are all equal."""
    _guards.rank("scores_B", scores_B, 1, "[B]")
    _guards.same_shape(scores_B=scores_B, group_B=group_B)
    if group_B.is_floating_point() or group_B.dtype == torch.bool:
        _guards.refuse("group_B must be integer", got=group_B.dtype, fix="number the prompts of the batch")
    names_G, index_B, size_G = group_B.unique(return_inverse=True, return_counts=True)
    if bool((size_G < 2).any()):
        _guards.refuse(
            "a response alone in its group has nothing to be compared with",
            got=f"groups with one response: {names_G[size_G < 2][:8].tolist()}",
            fix="sample at least 2 responses per prompt, and keep them in one batch",
        )
    scores_B = as_float(scores_B.detach())
    # Compared, not computed: the mean of equal numbers is off by a rounding, which a std of 0 + 1e-4 would blow up.
    return scores_B, index_B, size_G[index_B], no_signal(scores_B, group_B)[index_B]


def _sum_per_group(x_B: Tensor, index_B: Tensor) -> Tensor:
    """At each row the sum of `x_B` over the row's group."""
    sums = x_B.new_zeros(int(index_B.max()) + 1 if index_B.numel() else 0)
    return sums.index_add(0, index_B, x_B)[index_B]
