"""Direct alignment: every pair in its true proportion."""

from collections.abc import Callable

import torch
from torch import Tensor

from assent.algorithms.cpo import CPO
from assent.algorithms.dpo import DPO
from assent.algorithms.hinge import Hinge
from assent.algorithms.ipo import IPO
from assent.algorithms.robust_dpo import RobustDPO
from assent.evals import toy_world as toy
from assent.protocols import OfflineAlgorithm
from assent.stages.verify.worlds import (
    KL_COEF,
    PROMPTS,
    SEQUENCE_OPTIMUM,
    TOLERANCE,
    VOCABULARY,
    Verdict,
    fit,
    world,
)
from assent.types import ReferencedPairBatch, Sequences

FLIPPED = 0.2
"""Share of wrong labels in the worlds of noisy annotators."""


def dpo() -> Verdict:
    """Fed with every pair in its true proportion, the policy must become what PPO must become."""
    return _at_the_optimum("dpo", DPO(beta=KL_COEF), SEQUENCE_OPTIMUM)


def length_normalised_dpo() -> Verdict:
    """On means per token the margin of T tokens is T times as wide in nats: T beta does what beta does on sums."""
    algorithm = DPO(beta=toy.RESPONSE_LENGTH * KL_COEF, length_normalised=True)
    return _at_the_optimum("dpo, length-normalised", algorithm, "ref * exp(T reward / beta) / Z")


def robust_dpo() -> Verdict:
    """With a fifth of the labels flipped it must arrive where DPO arrives on clean ones."""
    return flipped(RobustDPO(beta=KL_COEF, flip_probability=FLIPPED))


def flipped(algorithm: RobustDPO | DPO) -> Verdict:
    """Labels of which a share is flipped, and DPO's optimum on clean ones."""
    claim = f"{SEQUENCE_OPTIMUM}, from {FLIPPED:.0%} flipped labels"
    return _at_the_optimum(algorithm.name, algorithm, claim, flipped=FLIPPED)


def cpo() -> Verdict:
    """The contrast alone, without a reference."""
    claim = "exp(reward / beta) / Z"
    return _at_the_optimum("cpo", CPO(beta=KL_COEF, nll_weight=0.0), claim, uniform=True)


def ipo() -> Verdict:
    """With every pair judged equally often, log-ratios become T P / beta, P the share of the others that a response of
    T tokens wins against (Azar et al., theorem 1; T because the loss is on means per token)."""

    def wins(strengths: Tensor) -> Tensor:
        flat = strengths.flatten(1)
        share = (flat[:, :, None] / (flat[:, :, None] + flat[:, None, :])).mean(2).view_as(strengths)
        return share * toy.RESPONSE_LENGTH

    claim = "ref * exp(win share per token / beta) / Z"
    return _at_the_optimum("ipo", IPO(beta=KL_COEF), claim, of_strengths=wins)


def cdpo() -> Verdict:
    """Its own optimum: where each response stands in one pair only, a pair that q of the judgements order so gets the
    margin logit((1 - e) q + e (1 - q)) / beta."""
    smoothing = 0.1

    def margin(shares_P: Tensor) -> Tensor:
        return ((1 - smoothing) * shares_P + smoothing * (1 - shares_P)).logit() / KL_COEF

    algorithm = DPO(beta=KL_COEF, label_smoothing=smoothing)
    return _lone_pairs("cdpo", algorithm, "margins logit((1 - e) q + e (1 - q)) / beta, pair by pair", margin)


def hinge() -> Verdict:
    """The majority of a pair's judgements wins by 1 / beta, whatever its share: the hinge is no proper score."""
    claim = "margins of 1 / beta for the majority, pair by pair"
    return _lone_pairs("hinge", Hinge(beta=KL_COEF), claim, lambda shares_P: (shares_P - 0.5).sign() / KL_COEF)


CLAIMS: tuple[Callable[[], Verdict], ...] = (dpo, cdpo, robust_dpo, length_normalised_dpo, ipo, hinge, cpo)


def _at_the_optimum(
    name: str,
    algorithm: OfflineAlgorithm,
    claim: str,
    *,
    of_strengths: Callable[[Tensor], Tensor] = torch.log,
    flipped: float = 0.0,
    uniform: bool = False,
) -> Verdict:
    """Judgements of every two responses, and ref * exp(`of_strengths` / beta) / Z; `uniform` is a flat reference."""
    policy, reference, _ = world()
    strengths, batch = _every_pair(reference, flipped=flipped)
    ref = torch.ones_like(strengths) if uniform else reference.distribution().detach()
    best = toy.optimum(ref, of_strengths(strengths), kl_coef=KL_COEF)
    start = toy.total_variation(policy.distribution().detach(), best)
    fit(policy, batch, algorithm, steps=400)
    end = toy.total_variation(policy.distribution().detach(), best)
    return Verdict(name, claim, start, end, TOLERANCE)


def _lone_pairs(name: str, algorithm: OfflineAlgorithm, claim: str, margin_of: Callable[[Tensor], Tensor]) -> Verdict:
    """Responses in pairs that share none, so that each margin is free; distances are the largest error of one, nats."""
    policy, reference, _ = world()
    own, shares = VOCABULARY**2, (0.9, 0.75, 0.6, 0.1)
    pairs = [(x * own + 2 * i, x * own + 2 * i + 1, q) for x in range(PROMPTS) for i, q in enumerate(shares)]
    chosen = [side for a, b, q in pairs for side in [a] * round(20 * q) + [b] * round(20 * (1 - q))]
    rejected = [side for a, b, q in pairs for side in [b] * round(20 * q) + [a] * round(20 * (1 - q))]
    batch = _judged(reference, chosen, rejected)
    wanted_P = margin_of(torch.tensor([q for _, _, q in pairs], dtype=torch.float64))

    def error() -> float:
        log = policy.distribution().detach().log().flatten() - batch.ref_logprobs_B
        found_P = torch.stack([log[a] - log[b] for a, b, _ in pairs])
        return (found_P - wanted_P).abs().max().item()

    start = error()
    fit(policy, batch, algorithm, steps=800)
    return Verdict(name, claim, start, error(), 5 * TOLERANCE)


def _every_pair(reference: toy.Tables, *, flipped: float = 0.0) -> tuple[Tensor, ReferencedPairBatch]:
    """Strengths in {1, 3, 9}, whose Bradley-Terry shares are whole hundredths, and 100 judgements of each two responses
    in that proportion.

    Args:
        flipped: share of the judgements whose label is turned round; a multiple of 0.1.
    """
    generator = torch.Generator().manual_seed(4)
    strengths = 3.0 ** torch.randint(0, 3, (PROMPTS, VOCABULARY, VOCABULARY), generator=generator).double()
    flat, own = strengths.flatten(1), VOCABULARY**2
    chosen, rejected = [], []
    for x in range(PROMPTS):
        for a in range(own):
            for b in range(own):
                share = (flat[x, a] / (flat[x, a] + flat[x, b])).item()
                times = round(100 * (share * (1 - flipped) + (1 - share) * flipped)) if a != b else 0
                chosen += [x * own + a] * times
                rejected += [x * own + b] * times
    return strengths, _judged(reference, chosen, rejected)


def _judged(reference: toy.Tables, chosen: list[int], rejected: list[int]) -> ReferencedPairBatch:
    """Pairs of responses, each named by its number among all responses to all prompts, prompt by prompt."""
    rows = [(x, a, b) for x in range(PROMPTS) for a in range(VOCABULARY) for b in range(VOCABULARY)]
    sequences = Sequences.of([[x] for x, _, _ in rows], [[a, b] for _, a, b in rows])
    with torch.no_grad():
        ref_logprobs_B = toy.TableForward(reference).logprobs(sequences).sum(1)
    counts_G = torch.full((PROMPTS,), VOCABULARY**2)
    return ReferencedPairBatch(sequences, counts_G, torch.tensor(chosen), torch.tensor(rejected), ref_logprobs_B)
