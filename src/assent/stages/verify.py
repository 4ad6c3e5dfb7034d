"""`assent verify`: every algorithm on a world whose optimum is known, through the real loop.

The table says how far each ends from where the mathematics says it must. It is what a user runs to trust an
installation, and what a test runs to trust a change.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from assent.algorithms.dpo import DPO
from assent.algorithms.grpo import GRPO
from assent.algorithms.ipo import IPO
from assent.algorithms.ppo import PPO
from assent.algorithms.reward_model import RewardModel
from assent.algorithms.rloo import RLOO
from assent.algorithms.sft import SFT
from assent.dist.processes import Alone
from assent.evals import toy_world as toy
from assent.loops.online import online
from assent.protocols import OfflineAlgorithm, State
from assent.rollout.source import PromptSource
from assent.train.guard import KLBudget, KLGuard
from assent.train.learner import LocalLearner
from assent.train.schedule import Schedule
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping, WeightedScorer
from assent.types import Batch, ComparisonBatch, ReferencedPairBatch, Sampling, Sequences, TokenBatch

PROMPTS, VOCABULARY, SAMPLES, KL_COEF = 2, 3, 128, 0.5
TOLERANCE = 0.02
"""Largest total variation that counts as arrived: sampled learning leaves noise of about half of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table: `distance` is a total variation, 0 to 1, or the largest error of a score difference."""

    algorithm: str
    optimum: str
    start: float
    distance: float
    tolerance: float

    @property
    def arrived(self) -> bool:
        return self.distance <= self.tolerance < self.start


def verify() -> list[Verdict]:
    """Train every algorithm that claims an optimum, from the same start, and measure where it ends."""
    return [run() for run in CLAIMS]


Best = Callable[[Tensor, Tensor], Tensor]
"""Reference and rewards to the policy that must be arrived at, each [X, V, V]."""


def _ppo() -> Verdict:
    algorithm = PPO(epochs=2, minibatches=2, value_coef=1.0, value_clip=10.0)
    return _online(algorithm, SEQUENCE_OPTIMUM, _sequence_optimum, steps=160)


def _rloo() -> Verdict:
    return _online(RLOO(minibatches=2), SEQUENCE_OPTIMUM, _sequence_optimum, steps=320)


def _grpo() -> Verdict:
    """With the KL in the loss, and the group's mean as baseline, which lengthens the leash by K / (K - 1)."""
    algorithm = GRPO(epochs=2, minibatches=2, scale_by_std=False)
    return _online(algorithm, "ref * exp(E[reward | token] / beta) / Z, token by token", _myopic_optimum, steps=160)


SEQUENCE_OPTIMUM = "ref * exp(reward / beta) / Z"


def _sequence_optimum(reference: Tensor, rewards: Tensor) -> Tensor:
    return toy.optimum(reference, rewards, kl_coef=KL_COEF)


def _myopic_optimum(reference: Tensor, rewards: Tensor) -> Tensor:
    return toy.myopic_optimum(reference, rewards, kl_coef=KL_COEF * SAMPLES / (SAMPLES - 1))


def _online(algorithm: PPO | RLOO | GRPO, claim: str, best_of: Best, *, steps: int) -> Verdict:
    """Through the real loop; only PPO learns a critic."""
    policy, reference, rewards = _world()
    best = best_of(reference.distribution().detach(), rewards)
    start = toy.total_variation(policy.distribution().detach(), best)
    learner = _learner(policy, lr=0.05, steps=steps * algorithm.epochs * algorithm.minibatches, floor=0.0)
    source = PromptSource(
        toy.prompts(PROMPTS),
        toy.TableEngine(policy),
        Sampling(toy.RESPONSE_LENGTH, ()),
        prompts_per_step=PROMPTS,
        samples_per_prompt=SAMPLES,
        steps=steps,
        seed=0,
        decode=str,
    )
    forward = toy.TableForward(policy)
    scoring = RolloutScoring(
        forward.logprobs,
        toy.TableForward(reference).logprobs,
        [WeightedScorer(toy.TableScorer(rewards))],
        shaping=Shaping(),
        kl_control=KLControl(KL_COEF),
        token_budget=10**6,
    )
    score = CriticScoring(scoring, forward.values) if isinstance(algorithm, PPO) else scoring
    online(source, score, algorithm, learner, _Quiet(), _Once(), KLGuard(KLBudget(), policy))
    end = toy.total_variation(policy.distribution().detach(), best)
    return Verdict(algorithm.name, claim, start, end, TOLERANCE)


def _sft() -> Verdict:
    """The policy must become the distribution of the demonstrations."""
    policy, target, _ = _world()
    wanted = target.distribution().detach()
    start = toy.total_variation(policy.distribution().detach(), wanted)
    counts = (wanted / wanted.sum() * 900).round().long()
    rows = [(x, a, b) for x, a, b in counts.nonzero().tolist() for _ in range(int(counts[x, a, b]))]
    batch = TokenBatch(Sequences.of([[x] for x, _, _ in rows], [[a, b] for _, a, b in rows]))
    _fit(policy, batch, SFT(), steps=200)
    observed = counts / counts.sum((1, 2), keepdim=True)
    end = toy.total_variation(policy.distribution().detach(), observed.double())
    return Verdict("sft", "the demonstrations' distribution", start, end, TOLERANCE)


def _reward_model() -> Verdict:
    """Fed with every pair in its true proportion, score differences must become the true ones."""
    tables, _, rewards = _world()
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
    _fit(tables, batch, RewardModel(), steps=200)
    end = (_centred(tables.scores_XVV.detach()) - truth).abs().max().item()
    return Verdict("reward_model", "the true score differences", start, end, 5 * TOLERANCE)


def _dpo() -> Verdict:
    """Fed with every pair in its true proportion, the policy must become what PPO must become."""
    policy, reference, _ = _world()
    strengths, batch = _every_pair(reference)
    best = toy.optimum(reference.distribution().detach(), strengths.log(), kl_coef=KL_COEF)
    start = toy.total_variation(policy.distribution().detach(), best)
    _fit(policy, batch, DPO(beta=KL_COEF), steps=400)
    end = toy.total_variation(policy.distribution().detach(), best)
    return Verdict("dpo", "ref * exp(reward / beta) / Z", start, end, TOLERANCE)


def _ipo() -> Verdict:
    """With every pair judged equally often, log-ratios become T P / beta, P the share of the others that a response of
    T tokens wins against (Azar et al., theorem 1; T because the loss is on means per token)."""
    policy, reference, _ = _world()
    strengths, batch = _every_pair(reference)
    flat = strengths.flatten(1)
    wins = (flat[:, :, None] / (flat[:, :, None] + flat[:, None, :])).mean(2).view_as(strengths)
    best = toy.optimum(reference.distribution().detach(), wins * toy.RESPONSE_LENGTH, kl_coef=KL_COEF)
    start = toy.total_variation(policy.distribution().detach(), best)
    _fit(policy, batch, IPO(beta=KL_COEF), steps=400)
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


CLAIMS: tuple[Callable[[], Verdict], ...] = (_sft, _reward_model, _dpo, _ipo, _ppo, _rloo, _grpo)


def _world() -> tuple[toy.Tables, toy.Tables, Tensor]:
    policy, reference = toy.Tables(PROMPTS, VOCABULARY, seed=1), toy.Tables(PROMPTS, VOCABULARY, seed=2)
    generator = torch.Generator().manual_seed(3)
    return policy, reference, torch.randn(PROMPTS, VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)


def _centred(scores_XVV: Tensor) -> Tensor:
    return scores_XVV - scores_XVV.mean((1, 2), keepdim=True)


def _learner(tables: toy.Tables, *, lr: float, steps: int, floor: float) -> LocalLearner:
    return LocalLearner(
        toy.TableForward(tables),
        {"policy": tables},
        [torch.optim.Adam(tables.parameters(), lr=lr)],
        schedule=Schedule("linear", floor=floor),
        total_steps=steps,
        token_budget=10**6,
        seed=0,
        quarantine=Path(tempfile.gettempdir()) / "assent-verify",
        processes=Alone(),
        max_grad_norm=float("inf"),
    )


def _fit(tables: toy.Tables, batch: Batch, algorithm: OfflineAlgorithm, *, steps: int) -> None:
    learner = _learner(tables, lr=0.05, steps=steps, floor=0.01)
    for _ in range(steps):
        learner.step(batch, algorithm)


class _Quiet:
    """A tracker for a run that nobody watches."""

    def log(self, step: int, metrics: object) -> None: ...
    def progress(self, done: int, total: int) -> None: ...
    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None: ...


class _Once:
    """A checkpoint for a run of seconds."""

    def restore(self) -> int:
        return 0

    def after_step(self, done: int) -> None: ...
