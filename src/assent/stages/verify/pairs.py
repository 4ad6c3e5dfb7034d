"""Direct alignment: every pair in its true proportion."""

import torch
from torch import Tensor

from assent.algorithms.dpo import DPO
from assent.algorithms.ipo import IPO
from assent.evals import toy_world as toy
from assent.stages.verify.worlds import KL_COEF, PROMPTS, TOLERANCE, VOCABULARY, Verdict, fit, world
from assent.types import ReferencedPairBatch, Sequences


def dpo() -> Verdict:
    """Fed with every pair in its true proportion, the policy must become what PPO must become."""
    policy, reference, _ = world()
    strengths, batch = _every_pair(reference)
    best = toy.optimum(reference.distribution().detach(), strengths.log(), kl_coef=KL_COEF)
    start = toy.total_variation(policy.distribution().detach(), best)
    fit(policy, batch, DPO(beta=KL_COEF), steps=400)
    end = toy.total_variation(policy.distribution().detach(), best)
    return Verdict("dpo", "ref * exp(reward / beta) / Z", start, end, TOLERANCE)


def ipo() -> Verdict:
    """With every pair judged equally often, log-ratios become T P / beta, P the share of the others that a response of
    T tokens wins against (Azar et al., theorem 1; T because the loss is on means per token)."""
    policy, reference, _ = world()
    strengths, batch = _every_pair(reference)
    flat = strengths.flatten(1)
    wins = (flat[:, :, None] / (flat[:, :, None] + flat[:, None, :])).mean(2).view_as(strengths)
    best = toy.optimum(reference.distribution().detach(), wins * toy.RESPONSE_LENGTH, kl_coef=KL_COEF)
    start = toy.total_variation(policy.distribution().detach(), best)
    fit(policy, batch, IPO(beta=KL_COEF), steps=400)
    end = toy.total_variation(policy.distribution().detach(), best)
    return Verdict("ipo", "ref * exp(win share per token / beta) / Z", start, end, TOLERANCE)


def _every_pair(reference: toy.Tables) -> tuple[Tensor, ReferencedPairBatch]:
    """Strengths in {1, 3, 9}, whose Bradley-Terry shares are whole numbers of 20 comparisons, and those comparisons."""
    generator = torch.Generator().manual_seed(4)
    strengths = 3.0 ** torch.randint(0, 3, (PROMPTS, VOCABULARY, VOCABULARY), generator=generator).double()
    responses = [(x, a, b) for x in range(PROMPTS) for a in range(VOCABULARY) for b in range(VOCABULARY)]
    members = [
        side
        for r in responses
        for s in responses
        if r != s and r[0] == s[0]
        for _ in range(round(20 * (strengths[r] / (strengths[r] + strengths[s])).item()))
        for side in (r, s)
    ]
    sequences = Sequences.of([[x] for x, _, _ in members], [[a, b] for _, a, b in members])
    with torch.no_grad():
        ref_logprobs_B = toy.TableForward(reference).logprobs(sequences).sum(1)
    return strengths, ReferencedPairBatch(sequences, ref_logprobs_B)
