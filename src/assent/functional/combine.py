"""Many scores into one: safety with helpfulness, and the members of an ensemble."""

import torch
from torch import Tensor

from assent.functional import _guards
from assent.functional._precision import as_float

EDGE = 1e-6  # a sigmoid that has saturated to 0 or 1 keeps a finite logit, +-13.8


def llama2_gate(
    safety_B: Tensor, helpfulness_B: Tensor, is_safety_prompt_B: Tensor, *, threshold: float = 0.15
) -> Tensor:
    """logit(safety) where the prompt asks for safety or safety < threshold, logit(helpfulness) elsewhere.

    Args:
        safety_B: sigmoid of the safety model's score, in (0, 1).
        helpfulness_B: sigmoid of the helpfulness model's score, in (0, 1).
        is_safety_prompt_B: bool.
        threshold: below it a response counts as unsafe; .15 in the paper (precision .89, recall .55 there).

    Returns:
        `[B]`, logits, to be whitened before the KL penalty; probabilities are clamped to [1e-6, 1 - 1e-6].

    Raises:
        ValueError: shapes differ, is_safety_prompt_B is not bool, a score or the threshold is outside [0, 1].

    Source: Llama 2 (arXiv 2307.09288), section 3.2.3.
    """
    _guards.same_shape(safety_B=safety_B, helpfulness_B=helpfulness_B, is_safety_prompt_B=is_safety_prompt_B)
    _guards.boolean("is_safety_prompt_B", is_safety_prompt_B)
    _guards.number("threshold", threshold, low=0.0, high=1.0)
    _guards.elements_within("safety_B", safety_B, low=0.0, high=1.0)
    _guards.elements_within("helpfulness_B", helpfulness_B, low=0.0, high=1.0)
    safety_B, helpfulness_B = as_float(safety_B), as_float(helpfulness_B)
    chosen_B = torch.where(is_safety_prompt_B | (safety_B < threshold), safety_B, helpfulness_B)
    return chosen_B.clamp(EDGE, 1.0 - EDGE).logit()


def ensemble_mean(scores_MB: Tensor) -> Tensor:
    """Mean over the members.

    Args:
        scores_MB: one row per member, on a common scale.

    Returns:
        `[B]`, score units.

    Raises:
        ValueError: not [M, B], or no member.

    Source: Coste et al. 2023 (arXiv 2310.02743).
    """
    return _members(scores_MB).mean(0)


def worst_case(scores_MB: Tensor) -> Tensor:
    """Minimum over the members. Argument, result, errors and source as `ensemble_mean`.

    Bring the members to a common scale first, or the one with the widest scores decides alone.
    """
    return _members(scores_MB).amin(0)


def uncertainty_weighted(scores_MB: Tensor, *, coefficient: float) -> Tensor:
    """mean - coefficient * sample variance (n - 1) over the members; one member has variance 0.

    Args:
        scores_MB: one row per member, on a common scale.
        coefficient: per score unit, not negative; .5 for best-of-n and .1 for PPO in the paper.

    Returns:
        `[B]`, score units.

    Raises:
        ValueError: not [M, B], no member, or the coefficient is negative.

    Source: Coste et al. 2023 (arXiv 2310.02743), its code: a variance, not a standard deviation.
    """
    _guards.number("coefficient", coefficient, low=0.0)
    scores_MB = _members(scores_MB)
    if scores_MB.shape[0] == 1:
        return scores_MB[0]
    return scores_MB.mean(0) - coefficient * scores_MB.var(0, correction=1)


def _members(scores_MB: Tensor) -> Tensor:
    _guards.rank("scores_MB", scores_MB, 2, "[M, B], one row per member")
    if scores_MB.shape[0] == 0:
        _guards.refuse("an ensemble needs a member", got=tuple(scores_MB.shape), fix="pass at least one row of scores")
    return as_float(scores_MB)
