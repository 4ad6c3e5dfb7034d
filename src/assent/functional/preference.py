"""Losses on pairs of responses, without a reward model. One loss per pair, or per response for `kto` and `bco`.

h = logprob - ref_logprob of a response, beta h its implicit reward, D = h_chosen - h_rejected. `dpo`, `robust_dpo`,
`hinge`, `apo_zero`, `apo_down`, `kto`, `bco` and `cpo` take *sums* over the tokens of a response; `ipo`, `simpo` and
`orpo` take *means* per token.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from assent.functional import _guards
from assent.functional._precision import as_float

CERTAIN = -1e-7  # a mean log-probability above this is taken as this: the odds of a certain response are infinite


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-(1 - e) log sigmoid(beta D) - e log sigmoid(-beta D), e being the label smoothing (0: DPO; above: conservative
    DPO).

    Args:
        chosen: log-probability of each preferred response under the policy, summed over its tokens, `[B]`, nats.
        rejected: of each other response.
        ref_chosen: of the preferred responses under the reference.
        ref_rejected: of the others under the reference.
        beta: reward units per nat, positive; .1 in the paper.
        label_smoothing: e in [0, .5), the share of labels believed to be flipped.

    Returns:
        `[B]`, nats.

    Raises:
        ValueError: shapes differ, beta is not positive, label_smoothing is outside [0, .5).

    Source: DPO (arXiv 2305.18290); smoothing: Mitchell, "A note on DPO with noisy preferences" (2023).
    """
    won, lost = _implicit_rewards(chosen, rejected, ref_chosen, ref_rejected, beta)
    kept, flipped = _smoothing(label_smoothing)
    return -kept * F.logsigmoid(won - lost) - flipped * F.logsigmoid(lost - won)


def robust_dpo(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, flip_probability: float
) -> Tensor:
    """[-(1 - e) log sigmoid(beta D) + e log sigmoid(-beta D)] / (1 - 2e): in expectation over flips, DPO on true
    labels.

    Args:
        chosen, rejected, ref_chosen, ref_rejected, beta: as `dpo`.
        flip_probability: e in [0, .5), the known rate of flipped labels.

    Returns:
        `[B]`, nats; may be negative.

    Raises:
        ValueError: shapes differ, beta is not positive, flip_probability is outside [0, .5).

    Source: Chowdhury et al. 2024 (arXiv 2403.00409).
    """
    _guards.number("flip_probability", flip_probability, low=0.0, high=0.5, open_high=True)
    won, lost = _implicit_rewards(chosen, rejected, ref_chosen, ref_rejected, beta)
    kept, flipped = 1.0 - flip_probability, flip_probability
    return (flipped * F.logsigmoid(lost - won) - kept * F.logsigmoid(won - lost)) / (kept - flipped)


def ipo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """(D - 1 / (2 beta))^2, on *means* per token: a margin to reach, not to exceed.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: log-probability per token of each response, `[B]`, nats per token.
        beta: the paper's tau, positive; .1.

    Returns:
        `[B]`, squared nats per token.

    Raises:
        ValueError: shapes differ, or beta is not positive.

    Source: Azar et al. 2023 (arXiv 2310.12036), equation 17; the mean per token is the authors' own reading of it.
    """
    _guards.number("beta", beta, low=0.0, open_low=True)
    won, lost = _implicit_rewards(chosen, rejected, ref_chosen, ref_rejected, beta=1.0)
    return (won - lost - 0.5 / beta).square()


def hinge(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """relu(1 - beta D): the loss of SLiC on implicit rewards, used in RSO.

    Arguments and errors as `dpo`; smoothing weighs the loss of the pair with that of the swapped pair. Without unit.

    Source: RSO (arXiv 2309.06657); SLiC-HF (arXiv 2305.10425).
    """
    won, lost = _implicit_rewards(chosen, rejected, ref_chosen, ref_rejected, beta)
    kept, flipped = _smoothing(label_smoothing)
    return kept * F.relu(1.0 - (won - lost)) + flipped * F.relu(1.0 - (lost - won))


def apo_zero(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """1 - sigmoid(beta h_chosen) + sigmoid(beta h_rejected): chosen up, rejected down; for pairs better than the model.

    Arguments and errors as `dpo`; smoothing weighs the loss of the pair with that of the swapped pair. In (0, 2), no
    unit.

    Source: APO (arXiv 2408.06266).
    """
    won, lost = _implicit_rewards(chosen, rejected, ref_chosen, ref_rejected, beta)
    kept, flipped = _smoothing(label_smoothing)
    return kept * (won.neg().sigmoid() + lost.sigmoid()) + flipped * (lost.neg().sigmoid() + won.sigmoid())


def apo_down(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """sigmoid(beta h_chosen) + 1 - sigmoid(beta D): both down, rejected further; for a model better than its pairs.

    Arguments and errors as `dpo`; smoothing weighs the loss of the pair with that of the swapped pair. In (0, 2), no
    unit.

    Source: APO (arXiv 2408.06266).
    """
    won, lost = _implicit_rewards(chosen, rejected, ref_chosen, ref_rejected, beta)
    kept, flipped = _smoothing(label_smoothing)
    straight = won.sigmoid() + (lost - won).sigmoid()
    swapped = lost.sigmoid() + (won - lost).sigmoid()
    return kept * straight + flipped * swapped


def kto(
    logprobs_B: Tensor,
    ref_logprobs_B: Tensor,
    desirable_B: Tensor,
    kl_baseline: float | Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """w (1 - sigmoid(beta (h - z))) for a desirable response, w (1 - sigmoid(beta (z - h))) for an undesirable one.

    z = max(0, kl_baseline) is a constant: no gradient passes through it.

    Args:
        logprobs_B: of each response under the policy, summed over its tokens, nats.
        ref_logprobs_B: under the reference.
        desirable_B: bool, True = thumbs up.
        kl_baseline: one number for the batch, nats: the mean of h over *mismatched* prompts and responses.
        beta: reward units per nat, positive; .1 in the paper.
        desirable_weight: not negative; keep desirable_weight n_desirable / (undesirable_weight n_undesirable) in [1,
            4/3].
        undesirable_weight: not negative.

    Returns:
        `[B]`, in (0, weight), without unit.

    Raises:
        ValueError: shapes differ, desirable_B is not bool, kl_baseline is not one number, beta or a weight is out of
            range.

    Source: KTO (arXiv 2402.01306).
    """
    _guards.number("desirable_weight", desirable_weight, low=0.0)
    _guards.number("undesirable_weight", undesirable_weight, low=0.0)
    h_B = _log_ratios(logprobs_B, ref_logprobs_B, desirable_B, beta)
    baseline = _constant("kl_baseline", kl_baseline, h_B)
    gain_B = beta * (h_B - baseline.clamp(min=0.0))
    return torch.where(desirable_B, desirable_weight * gain_B.neg().sigmoid(), undesirable_weight * gain_B.sigmoid())


def bco(
    logprobs_B: Tensor,
    ref_logprobs_B: Tensor,
    desirable_B: Tensor,
    reward_shift: float | Tensor,
    *,
    beta: float,
) -> Tensor:
    """-log sigmoid(beta h - d) for a desirable response, -log sigmoid(d - beta h) for an undesirable one.

    d = reward_shift is a constant: no gradient passes through it.

    Args:
        logprobs_B, ref_logprobs_B, desirable_B: as `kto`.
        reward_shift: one number for the batch, in units of reward: half the sum of the mean rewards of both kinds, as a
            running mean.
        beta: reward units per nat, positive; .01 in the paper.

    Returns:
        `[B]`, nats.

    Raises:
        ValueError: shapes differ, desirable_B is not bool, reward_shift is not one number, beta is not positive.

    Source: BCO (arXiv 2404.04656).
    """
    h_B = _log_ratios(logprobs_B, ref_logprobs_B, desirable_B, beta)
    logits_B = beta * h_B - _constant("reward_shift", reward_shift, h_B)
    return -torch.where(desirable_B, F.logsigmoid(logits_B), F.logsigmoid(-logits_B))


def cpo(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """-log sigmoid(beta (chosen - rejected)): DPO with a uniform reference. The likelihood term is the caller's.

    Args:
        chosen: log-probability of each preferred response, summed over its tokens, `[B]`, nats.
        rejected: of each other response.
        beta: reward units per nat, positive; .1 in the paper.

    Returns:
        `[B]`, nats.

    Raises:
        ValueError: shapes differ, or beta is not positive.

    Source: CPO (arXiv 2401.08417).
    """
    _guards.same_shape(chosen=chosen, rejected=rejected)
    _guards.number("beta", beta, low=0.0, open_low=True)
    return -F.logsigmoid(beta * (as_float(chosen) - as_float(rejected)))


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta (chosen - rejected) - gamma), on *means* per token and without a reference.

    Args:
        chosen: log-probability per token of each preferred response, `[B]`, nats per token.
        rejected: of each other response.
        beta: positive; 2 to 10 in the paper.
        gamma: the margin that beta (chosen - rejected) must exceed, not negative; .25 to 5 in the paper (its tables
            give gamma / beta, .1 to .8).

    Returns:
        `[B]`, nats.

    Raises:
        ValueError: shapes differ, beta is not positive, gamma is negative.

    Source: SimPO (arXiv 2405.14734).
    """
    _guards.same_shape(chosen=chosen, rejected=rejected)
    _guards.number("beta", beta, low=0.0, open_low=True)
    _guards.number("gamma", gamma, low=0.0)
    return -F.logsigmoid(beta * (as_float(chosen) - as_float(rejected)) - gamma)


def orpo(chosen: Tensor, rejected: Tensor, *, weight: float) -> Tensor:
    """-chosen - weight log sigmoid(log odds(chosen) - log odds(rejected)), with odds = p / (1 - p), p = exp(mean
    logprob).

    The first term is the likelihood of the preferred response: no reference and no fine-tuning before.

    Args:
        chosen: log-probability per token of each preferred response, `[B]`, nats per token; at most 0.
        rejected: of each other response.
        weight: of the odds term, not negative; .1 in the paper.

    Returns:
        `[B]`, nats per token.

    Raises:
        ValueError: shapes differ, or weight is negative.

    Source: ORPO (arXiv 2403.07691).
    """
    _guards.same_shape(chosen=chosen, rejected=rejected)
    _guards.number("weight", weight, low=0.0)
    chosen, rejected = as_float(chosen), as_float(rejected)
    return -chosen - weight * F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(logprobs: Tensor) -> Tensor:
    """log p - log(1 - p), from log p <= 0, exact at both ends and finite in its gradient."""
    logprobs = logprobs.clamp(max=CERTAIN)
    near_one = torch.log(-torch.expm1(logprobs))  # each keeps its digits on its side of p = 1/2 only
    near_zero = torch.log1p(-torch.exp(logprobs))
    return logprobs - torch.where(logprobs > -math.log(2.0), near_one, near_zero)


def _log_ratios(logprobs_B: Tensor, ref_logprobs_B: Tensor, desirable_B: Tensor, beta: float) -> Tensor:
    """h of each response."""
    _guards.same_shape(logprobs_B=logprobs_B, ref_logprobs_B=ref_logprobs_B, desirable_B=desirable_B)
    _guards.boolean("desirable_B", desirable_B)
    _guards.number("beta", beta, low=0.0, open_low=True)
    return as_float(logprobs_B) - as_float(ref_logprobs_B)


def _constant(name: str, value: float | Tensor, like: Tensor) -> Tensor:
    """One number for the batch, through which no gradient passes."""
    constant = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
    if constant.numel() != 1:
        _guards.refuse(
            f"{name} is one number for the batch",
            got=tuple(constant.shape),
            fix="average it over the whole batch (over all processes) first",
        )
    return constant.reshape(())


def _implicit_rewards(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """beta h of the chosen and of the rejected responses."""
    _guards.same_shape(chosen=chosen, rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected)
    _guards.number("beta", beta, low=0.0, open_low=True)
    won = beta * (as_float(chosen) - as_float(ref_chosen))
    lost = beta * (as_float(rejected) - as_float(ref_rejected))
    return won, lost


def _smoothing(label_smoothing: float) -> tuple[float, float]:
    """Weights of the pair as labelled and of the pair swapped."""
    _guards.number("label_smoothing", label_smoothing, low=0.0, high=0.5, open_high=True)
    return 1.0 - label_smoothing, label_smoothing
