"""What is fitted to data alone: SFT and the reward model."""

from itertools import combinations, permutations, product

import torch
from torch import Tensor

from assent.algorithms.plackett_luce import PlackettLuce
from assent.algorithms.reward_model import RewardModel
from assent.algorithms.sft import SFT
from assent.algorithms.soft_reward_model import SoftRewardModel
from assent.evals import toy_world as toy
from assent.stages.verify.worlds import PROMPTS, TOLERANCE, VOCABULARY, Verdict, fit, world
from assent.types import ComparisonBatch, RankedComparisonBatch, Sequences, SoftComparisonBatch, TokenBatch


def sft() -> Verdict:
    """The policy must become the distribution of the demonstrations."""
    policy, target, _ = world()
    wanted = target.distribution().detach()
    start = toy.total_variation(policy.distribution().detach(), wanted)
    counts = (wanted / wanted.sum() * 900).round().long()
    rows = [(x, a, b) for x, a, b in counts.nonzero().tolist() for _ in range(int(counts[x, a, b]))]
    batch = TokenBatch(Sequences.of([[x] for x, _, _ in rows], [[a, b] for _, a, b in rows]))
    fit(policy, batch, SFT(), steps=200)
    observed = counts / counts.sum((1, 2), keepdim=True)
    end = toy.total_variation(policy.distribution().detach(), observed.double())
    return Verdict("sft", "the demonstrations' distribution", start, end, TOLERANCE)


def reward_model() -> Verdict:
    """Fed with every pair in its true proportion, score differences must become the true ones."""
    tables, _, rewards = world()
    responses = [(x, a, b) for x in range(PROMPTS) for a in range(VOCABULARY) for b in range(VOCABULARY)]
    pairs = [(i, j) for i, r in enumerate(responses) for j, s in enumerate(responses) if i != j and r[0] == s[0]]
    copies = 60
    better: list[int] = []
    worse: list[int] = []
    members: list[tuple[int, int, int]] = []
    for i, j in pairs:
        times = round(copies * torch.sigmoid(rewards[responses[i]] - rewards[responses[j]]).item())
        for _ in range(times):
            base = len(members)
            members += [responses[i], responses[j]]
            better.append(base)
            worse.append(base + 1)
    batch = ComparisonBatch(
        Sequences.of([[x] for x, _, _ in members], [[a, b] for _, a, b in members]),
        torch.full((len(better),), 2),
        torch.tensor(better),
        torch.tensor(worse),
        torch.arange(len(better)),
        torch.zeros(len(better), dtype=torch.float64),
    )
    truth = _centred(rewards)
    start = truth.abs().max().item()
    fit(tables, batch, RewardModel(), steps=200)
    end = (_centred(tables.scores_XVV.detach()) - truth).abs().max().item()
    return Verdict("reward_model", "the true score differences", start, end, 5 * TOLERANCE)


def soft_reward_model() -> Verdict:
    """Fed with every pair once and its true probability as the label, score differences must become the true ones."""
    tables, _, rewards = world()
    responses = [(x, a, b) for x in range(PROMPTS) for a in range(VOCABULARY) for b in range(VOCABULARY)]
    pairs = [(r, s) for i, r in enumerate(responses) for s in responses[i + 1 :] if r[0] == s[0]]
    members = [side for pair in pairs for side in pair]
    batch = SoftComparisonBatch(
        Sequences.of([[x] for x, _, _ in members], [[a, b] for _, a, b in members]),
        torch.full((len(pairs),), 2),
        torch.arange(0, len(members), 2),
        torch.arange(1, len(members), 2),
        torch.arange(len(pairs)),
        torch.zeros(len(pairs), dtype=torch.float64),
        torch.stack([torch.sigmoid(rewards[r] - rewards[s]) for r, s in pairs]),
    )
    truth = _centred(rewards)
    start = truth.abs().max().item()
    fit(tables, batch, SoftRewardModel(), steps=200)
    end = (_centred(tables.scores_XVV.detach()) - truth).abs().max().item()
    return Verdict("soft_reward_model", "the true score differences", start, end, TOLERANCE)


RANKED = ((0, 4), (0, 1, 3), (0, 1, 3, 7))
"""Which of nine responses one ranking orders; shifted round all nine, so that every response is in as many."""


def plackett_luce() -> Verdict:
    """Fed with rankings of two, three and four responses in their true proportions, score differences must become
    the true ones."""
    tables, _, rewards = world()
    copies = 120
    responses = [(a, b) for a in range(VOCABULARY) for b in range(VOCABULARY)]
    best_first: list[list[tuple[int, int, int]]] = []
    for x, shift, chosen in product(range(PROMPTS), range(len(responses)), RANKED):
        members = [(x, *responses[(shift + i) % len(responses)]) for i in chosen]
        for order in permutations(members):
            strengths = torch.stack([rewards[r] for r in order]).exp()
            chance = (strengths / strengths.flip(0).cumsum(0).flip(0)).prod().item()
            best_first += [list(order)] * round(copies * chance)
    counts = torch.tensor([len(order) for order in best_first])
    starts = (counts.cumsum(0) - counts).tolist()
    pairs = [(g, s + i, s + j) for g, s in enumerate(starts) for i, j in combinations(range(len(best_first[g])), 2)]
    group, better, worse = (torch.tensor(column) for column in zip(*pairs, strict=True))
    batch = RankedComparisonBatch(
        Sequences.of(
            [[x] for order in best_first for x, _, _ in order], [[a, b] for order in best_first for _, a, b in order]
        ),
        counts,
        better,
        worse,
        group,
        torch.zeros(len(pairs), dtype=torch.float64),
        torch.tensor([k for order in best_first for k in range(1, len(order) + 1)]),
        torch.ones(len(best_first), dtype=torch.bool),
    )
    truth = _centred(rewards)
    start = truth.abs().max().item()
    fit(tables, batch, PlackettLuce(), steps=200)
    end = (_centred(tables.scores_XVV.detach()) - truth).abs().max().item()
    return Verdict("plackett_luce", "the true score differences", start, end, TOLERANCE)


def _centred(scores_XVV: Tensor) -> Tensor:
    return scores_XVV - scores_XVV.mean((1, 2), keepdim=True)
