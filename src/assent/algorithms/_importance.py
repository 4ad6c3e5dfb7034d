"""Correction for tokens that another distribution than the learner's drew: an engine's rounding, or older weights."""

import torch
from torch import Tensor

from assent.functional import ratio
from assent.types import Mean, Scored


def importance(scored: Scored, cap: float | None) -> tuple[Tensor, dict[str, Mean]]:
    """Weight of each token's policy loss, min(pi_old / pi_sampler, cap), `[B, T]`, 1 without a cap; and how it went.

    It multiplies all of the loss that is a mean over sampled tokens, the KL term with it (verl corrects the surrogate
    alone), and not what a critic learns.

    Args:
        cap: C; 2 in Yao et al. 2025 ("Your efficient RL framework secretly brings you off-policy RL training").

    Raises:
        ValueError: the cap is not positive.
    """
    mask = scored.mask_BT
    if cap is None:
        return torch.ones_like(scored.old_logprobs_BT), {}
    old_BT = torch.where(mask, scored.old_logprobs_BT, 0.0)
    weights_BT = ratio.truncated_importance_weights(old_BT, scored.sampler_logprobs_BT, cap=cap)
    return weights_BT, {
        "importance/mean": Mean.of(weights_BT, mask),
        "importance/capped": Mean.of((weights_BT >= cap).float(), mask),
    }
