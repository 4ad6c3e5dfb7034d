"""Reinforcement learning, through the real loop."""

from collections.abc import Callable

from torch import Tensor

from assent.algorithms.grpo import GRPO
from assent.algorithms.ppo import PPO
from assent.algorithms.rloo import RLOO
from assent.evals import toy_world as toy
from assent.loops.online import online
from assent.rollout.source import PromptSource
from assent.stages.verify.worlds import (
    KL_COEF,
    PROMPTS,
    SAMPLES,
    SEQUENCE_OPTIMUM,
    TOLERANCE,
    Once,
    Quiet,
    Verdict,
    learner_of,
    world,
)
from assent.train.guard import KLBudget, KLGuard
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer
from assent.types import Sampling

Best = Callable[[Tensor, Tensor], Tensor]
"""Reference and rewards to the policy that must be arrived at, each [X, V, V]."""


def ppo() -> Verdict:
    algorithm = PPO(epochs=2, minibatches=2, value_coef=1.0, value_clip=10.0)
    return arrives_online(algorithm, SEQUENCE_OPTIMUM, sequence_optimum, steps=160)


def rloo() -> Verdict:
    return arrives_online(RLOO(minibatches=2), SEQUENCE_OPTIMUM, sequence_optimum, steps=320)


def grpo() -> Verdict:
    """With the KL in the loss, and the group's mean as baseline, which lengthens the leash by K / (K - 1)."""
    algorithm = GRPO(epochs=2, minibatches=2, scale_by_std=False)
    return arrives_online(
        algorithm, "ref * exp(E[reward | token] / beta) / Z, token by token", _myopic_optimum, steps=160
    )


def sequence_optimum(reference: Tensor, rewards: Tensor) -> Tensor:
    return toy.optimum(reference, rewards, kl_coef=KL_COEF)


def _myopic_optimum(reference: Tensor, rewards: Tensor) -> Tensor:
    return toy.myopic_optimum(reference, rewards, kl_coef=KL_COEF * SAMPLES / (SAMPLES - 1))


def arrives_online(algorithm: PPO | RLOO | GRPO, claim: str, best_of: Best, *, steps: int) -> Verdict:
    """Through the real loop; only PPO learns a critic."""
    policy, reference, rewards = world()
    best = best_of(reference.distribution().detach(), rewards)
    start = toy.total_variation(policy.distribution().detach(), best)
    learner = learner_of(policy, lr=0.05, steps=steps * algorithm.epochs * algorithm.minibatches, floor=0.0)
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
    score = CriticScoring(scoring, forward.values) if algorithm.uses_critic else scoring
    online(source, score, algorithm, learner, Quiet(), Once(), KLGuard(KLBudget(), policy))
    end = toy.total_variation(policy.distribution().detach(), best)
    return Verdict(algorithm.name, claim, start, end, TOLERANCE)
