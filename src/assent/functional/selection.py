"""Best of n: how far it moves the policy and what it earns."""

import math

import torch
from torch import Tensor

from assent.functional import _guards
from assent.functional._precision import as_float


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n: KL(best-of-n policy || policy), in nats.

    Exact when no two scores tie, else an upper bound.

    Args:
        n: samples per prompt, at least 1.

    Raises:
        ValueError: n is not an integer of at least 1.

    Source: Stiennon et al. 2020 (arXiv 2009.01325); the bound: Beirami et al. 2024 (arXiv 2401.01879).
    """
    _guards.count("n", n)
    return math.log(n) - (n - 1) / n


def best_of_n_expected(gold_N: Tensor, proxy_N: Tensor, n: int) -> Tensor:
    """Expected gold score of the sample that the proxy likes best among n drawn without replacement from N.

    sum_{i = n..N} C(i - 1, n - 1) / C(N, n) gold_(i), sorted upwards by proxy: an unbiased estimate of best-of-n from
    all N samples of a prompt. Samples with equal proxy share their mean gold, as if the tie were broken at random.

    Args:
        gold_N: the score that is reported, of N samples of one prompt.
        proxy_N: the score that selects.
        n: 1 to N.

    Returns:
        A scalar, gold units.

    Raises:
        ValueError: shapes differ or are not [N], n is outside [1, N], a proxy is nan.

    Source: Gao et al. 2022 (arXiv 2210.10760), appendix; Nakano et al. 2021 (arXiv 2112.09332).
    """
    _guards.rank("gold_N", gold_N, 1, "[N]")
    _guards.same_shape(gold_N=gold_N, proxy_N=proxy_N)
    _guards.count("n", n)
    total = gold_N.numel()
    if n > total:
        _guards.refuse(
            "best of n needs n samples",
            got=f"n = {n}, N = {total}",
            fix=f"draw more samples per prompt, or ask for n <= {total}",
        )
    if bool(proxy_N.isnan().any()):
        _guards.refuse(
            "proxy_N has nan: it orders nothing", got=proxy_N.tolist()[:8], fix="drop samples without a score"
        )
    gold_N = as_float(gold_N)
    levels_L, level_N = proxy_N.unique(return_inverse=True)  # distinct proxies, upwards
    size_L = level_N.bincount(minlength=levels_L.numel())
    mean_gold_L = gold_N.double().new_zeros(levels_L.numel()).index_add(0, level_N, gold_N.double()) / size_L
    # P(best is at or below the i-th) = C(i, n) / C(N, n); a level earns the difference between its last place and the
    # one before.
    cumulative = _chance_of_all_below(total, n).to(gold_N.device)
    last_L = cumulative[size_L.cumsum(0)]
    weight_L = last_L - torch.cat([last_L.new_zeros(1), last_L[:-1]])
    return (weight_L * mean_gold_L).sum().to(gold_N.dtype)


def _chance_of_all_below(total: int, n: int) -> Tensor:
    """C(i, n) / C(total, n) for i = 0..total, in float64; a product of ratios, since the binomials overflow."""
    place = torch.arange(total, 0, -1, dtype=torch.float64)
    falling = ((place - n).clamp(min=0.0) / place).cumprod(0)  # C(i - 1, n) = C(i, n) (i - n) / i, from i = total down
    return torch.cat([falling.new_ones(1), falling]).flip(0)
