"""Losses of reward models: outcome, ranking, soft label, process."""

import torch
from torch import Tensor
from torch.nn import functional as F

from assent.functional import _guards
from assent.functional._precision import as_float


def bradley_terry(chosen_B: Tensor, rejected_B: Tensor, *, margin: float | Tensor = 0.0) -> Tensor:
    """-log sigmoid(chosen - rejected - margin), per pair.

    Args:
        chosen_B: scores of the preferred responses, logits.
        rejected_B: scores of the others.
        margin: by how much the pair must differ, one number or one per pair; by degree of preference in Llama 2 (arXiv
            2307.09288, table 27), 0 in Llama 3.

    Returns:
        `[B]`, nats.

    Raises:
        ValueError: shapes differ.

    Source: Bradley and Terry 1952; Stiennon et al. 2020 (arXiv 2009.01325).
    """
    _guards.same_shape(chosen_B=chosen_B, rejected_B=rejected_B)
    if isinstance(margin, Tensor) and margin.dim() > 0:
        _guards.same_shape(chosen_B=chosen_B, margin=margin)
    return -F.logsigmoid(as_float(chosen_B) - as_float(rejected_B) - margin)


def k_wise(scores_K: Tensor, ranks_K: Tensor) -> Tensor:
    """Mean of -log sigmoid(s_better - s_worse) over the strictly ordered pairs of one prompt; ties drop out.

    All pairs of a prompt are one element of the batch, whatever K: pairs shuffled apart overfit in one epoch.

    Args:
        scores_K: of the K completions of one prompt, logits.
        ranks_K: 1 is best, equal numbers are ties; gaps are allowed.

    Returns:
        A scalar, nats; 0 with zero gradient when all are tied.

    Raises:
        ValueError: shapes differ or are not [K], K < 2, a rank below 1 or nan.

    Source: InstructGPT (arXiv 2203.02155), equation 1.
    """
    _ranking(scores_K, ranks_K)
    scores_K = as_float(scores_K)
    better_KK = ranks_K[:, None] < ranks_K[None, :]
    gap_KK = torch.where(better_KK, scores_K[:, None] - scores_K[None, :], 0.0)
    loss_KK = torch.where(better_KK, -F.logsigmoid(gap_KK), 0.0)
    return loss_KK.sum() / better_KK.sum().clamp(min=1)


def plackett_luce(scores_K: Tensor, ranks_K: Tensor) -> Tensor:
    """-log P(ranking) = sum_k [logsumexp(s_(k), ..., s_(K)) - s_(k)], the scores being sorted from best to worst.

    Args:
        scores_K: of the K completions of one prompt, logits.
        ranks_K: 1 is best; all different.

    Returns:
        A scalar, nats per ranking (a sum over its K - 1 choices, not a mean).

    Raises:
        ValueError: shapes differ or are not [K], K < 2, a rank below 1 or nan, or a tie.

    Source: Plackett 1975, Luce 1959.
    """
    _ranking(scores_K, ranks_K)
    return plackett_luce_each(scores_K[None], ranks_K[None], torch.ones_like(ranks_K, dtype=torch.bool)[None])[0]


def plackett_luce_each(scores_GK: Tensor, ranks_GK: Tensor, mask_GK: Tensor) -> Tensor:
    """`plackett_luce` of many prompts at once, each with its own number of completions.

    Args:
        scores_GK: of the completions of each prompt, logits; their order is free.
        ranks_GK: 1 is best; all different within a prompt.
        mask_GK: bool, which places hold a completion.

    Returns:
        `[G]`, nats per ranking; 0 for a prompt with fewer than two completions.

    Raises:
        ValueError: shapes differ or are not [G, K], the mask is not bool, a rank below 1 or nan, or a tie.

    Source: Plackett 1975, Luce 1959.
    """
    _guards.rank("scores_GK", scores_GK, 2, "[G, K], the completions of each prompt")
    _guards.same_shape(scores_GK=scores_GK, ranks_GK=ranks_GK, mask_GK=mask_GK)
    _guards.boolean("mask_GK", mask_GK)
    _guards.elements_within("ranks_GK", ranks_GK[mask_GK], low=1, high=float("inf"))
    # Worst first and what is no completion last, so that the sum over those still to be chosen never meets it.
    ranks_GK, order_GK = torch.where(mask_GK, ranks_GK, 0).sort(dim=-1, descending=True)
    inside_GK = mask_GK.gather(-1, order_GK)
    tied_G = ((ranks_GK[:, 1:] == ranks_GK[:, :-1]) & inside_GK[:, 1:]).any(-1)
    if tied_G.any():
        _guards.refuse(
            "plackett_luce is the likelihood of a strict order and cannot take ties",
            got=f"ranks {sorted(ranks_GK[tied_G][0][inside_GK[tied_G][0]].tolist())}",
            fix="use k_wise, where tied pairs drop out, or ask the labeller to break the tie",
        )
    worst_first_GK = torch.where(inside_GK, as_float(scores_GK).gather(-1, order_GK), 0.0)
    return torch.where(inside_GK, worst_first_GK.logcumsumexp(-1) - worst_first_GK, 0.0).sum(-1)


def soft_bradley_terry(a_B: Tensor, b_B: Tensor, target_B: Tensor) -> Tensor:
    """Cross-entropy to a soft label: -t log sigmoid(a - b) - (1 - t) log sigmoid(b - a), per pair.

    Args:
        a_B: scores of the first responses, logits.
        b_B: scores of the second.
        target_B: t = P(a preferred), in [0, 1]; .5 is a tie.

    Returns:
        `[B]`, nats.

    Raises:
        ValueError: shapes differ, or a target is outside [0, 1].

    Source: Christiano et al. 2017 (arXiv 1706.03741); RLAIF (arXiv 2309.00267).
    """
    _guards.same_shape(a_B=a_B, b_B=b_B, target_B=target_B)
    return _cross_entropy(as_float(a_B) - as_float(b_B), target_B, "target_B")


def step_cross_entropy(logits_S: Tensor, labels_S: Tensor) -> Tensor:
    """Binary cross-entropy of each step: -y log sigmoid(logit) - (1 - y) log sigmoid(-logit).

    Args:
        logits_S: one per step, at its last token.
        labels_S: y in [0, 1], same shape: hard, or the share of completions that ended right. Bad, neutral and good are
            mapped before.

    Returns:
        `[S]`, nats.

    Raises:
        ValueError: shapes differ, or a label is outside [0, 1].

    Source: Lightman et al. 2023 (arXiv 2305.20050); soft labels: Math-Shepherd (arXiv 2312.08935).
    """
    _guards.same_shape(logits_S=logits_S, labels_S=labels_S)
    return _cross_entropy(as_float(logits_S), labels_S, "labels_S")


def centering(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """(chosen + rejected)^2, per pair: pins the constant that comparisons leave free. The caller applies the
    coefficient.

    Args:
        chosen_B: scores of the preferred responses.
        rejected_B: scores of the others.

    Returns:
        `[B]`, squared score units.

    Raises:
        ValueError: shapes differ.

    Source: Eisenstein et al. 2023 (arXiv 2312.09244), coefficient .01.
    """
    _guards.same_shape(chosen_B=chosen_B, rejected_B=rejected_B)
    return (as_float(chosen_B) + as_float(rejected_B)).square()


def _cross_entropy(logits: Tensor, target: Tensor, name: str) -> Tensor:
    _guards.elements_within(name, target, low=0.0, high=1.0)
    target = as_float(target)
    return -(target * F.logsigmoid(logits) + (1.0 - target) * F.logsigmoid(-logits))


def _ranking(scores_K: Tensor, ranks_K: Tensor) -> None:
    _guards.rank("scores_K", scores_K, 1, "[K], the completions of one prompt")
    _guards.same_shape(scores_K=scores_K, ranks_K=ranks_K)
    if scores_K.numel() < 2:
        _guards.refuse(
            "a ranking needs two completions", got=f"K = {scores_K.numel()}", fix="drop prompts with one completion"
        )
    _guards.elements_within("ranks_K", ranks_K, low=1, high=float("inf"))
