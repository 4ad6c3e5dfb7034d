"""Reinforcement learning, through the real loop."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from assent.algorithms.grpo import GRPO
from assent.algorithms.leash import KLInReward
from assent.algorithms.online_dpo import OnlineDPO
from assent.algorithms.ppo import PPO
from assent.algorithms.reinforce import Reinforce
from assent.algorithms.reinforce_pp import ReinforcePP
from assent.algorithms.reinforce_pp_baseline import ReinforcePPBaseline
from assent.algorithms.remax import ReMax
from assent.algorithms.rloo import RLOO
from assent.evals import toy_world as toy
from assent.loops.online import online
from assent.rollout.source import PromptSource, sample
from assent.stages.online_algorithms import AnyAlgorithm, scoring_for
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
from assent.train.scoring import KLControl, RolloutScoring, Shaping
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


def grpo_kl_in_reward() -> Verdict:
    """The group's mean then holds the response's own score and KL alike, so that only the step is shorter."""
    algorithm = GRPO(epochs=2, minibatches=2, scale_by_std=False, leash=KLInReward())
    verdict = arrives_online(algorithm, SEQUENCE_OPTIMUM, sequence_optimum, steps=160)
    return replace(verdict, algorithm="grpo, leash: reward")


def reinforce() -> Verdict:
    return arrives_online(Reinforce(minibatches=2, to_go=True), SEQUENCE_OPTIMUM, sequence_optimum, steps=320)


def remax() -> Verdict:
    return arrives_online(ReMax(), SEQUENCE_OPTIMUM, sequence_optimum, steps=960)


def reinforce_pp() -> Verdict:
    return arrives_online(ReinforcePP(epochs=2, minibatches=2), SEQUENCE_OPTIMUM, sequence_optimum, steps=320)


def reinforce_pp_baseline() -> Verdict:
    """Its leash is in deviations of the score, as they are where it ends. They shrink as the policy settles on the
    best, so that a weak leash gives way altogether: at this world's usual coefficient there is no such place but the
    best response alone, at four times that there is one."""
    kl_coef = 4 * KL_COEF
    return arrives_online(
        ReinforcePPBaseline(epochs=2, minibatches=2),
        "ref * exp(E[reward | token] / (beta deviation)) / Z, token by token",
        lambda reference, rewards: whitened_optimum(reference, rewards, kl_coef=kl_coef),
        steps=160,
        kl_coef=kl_coef,
    )


def online_dpo() -> Verdict:
    """Two samples of a prompt: the best and the worst of many would never show what lies between them."""
    algorithm = OnlineDPO(epochs=2, minibatches=2, soft_labels=True)
    verdict = arrives_online(algorithm, SEQUENCE_OPTIMUM, sequence_optimum, steps=160, samples=2)
    return replace(verdict, algorithm="online_dpo, soft labels")


def sequence_optimum(reference: Tensor, rewards: Tensor) -> Tensor:
    return toy.optimum(reference, rewards, kl_coef=KL_COEF)


def _myopic_optimum(reference: Tensor, rewards: Tensor) -> Tensor:
    return toy.myopic_optimum(reference, rewards, kl_coef=KL_COEF * SAMPLES / (SAMPLES - 1))


def whitened_optimum(reference: Tensor, rewards: Tensor, *, kl_coef: float) -> Tensor:
    """The policy whose own deviation of the reward within prompts is in its leash, found by going there and again."""
    best = reference
    for _ in range(200):
        mean_X = (best * rewards).sum((1, 2))
        spread = ((best * rewards.square()).sum((1, 2)) - mean_X.square()).mean().sqrt().item()
        best = toy.myopic_optimum(reference, rewards, kl_coef=kl_coef * spread * (SAMPLES / (SAMPLES - 1)) ** 0.5)
    return best


def arrives_online(
    algorithm: AnyAlgorithm,
    claim: str,
    best_of: Best,
    *,
    steps: int,
    kl_coef: float = KL_COEF,
    samples: int = SAMPLES,
    lr: float = 0.05,
) -> Verdict:
    """Through the real loop, with as many responses of a step in all, whatever their number of one prompt."""
    policy, reference, rewards = world()
    best = best_of(reference.distribution().detach(), rewards)
    start = toy.total_variation(policy.distribution().detach(), best)
    learner = learner_of(policy, lr=lr, steps=steps * algorithm.epochs * algorithm.minibatches, floor=0.0)
    engine = toy.TableEngine(policy)
    source = PromptSource(
        [replace(p, id=p.id + k * "'") for p in toy.prompts(PROMPTS) for k in range(SAMPLES // samples)],
        engine,
        Sampling(toy.RESPONSE_LENGTH, ()),
        prompts_per_step=PROMPTS * (SAMPLES // samples),
        samples_per_prompt=samples,
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
        kl_control=KLControl(kl_coef),
        token_budget=10**6,
    )
    greedy = Sampling(toy.RESPONSE_LENGTH, (), greedy=True)
    score = scoring_for(
        algorithm,
        scoring,
        values=forward.values,
        greedy=lambda asked: sample(engine, asked, greedy, seed=0, decode=str),
    )
    online(source, score, algorithm, learner, Quiet(), Once(), KLGuard(KLBudget(), policy))
    end = toy.total_variation(policy.distribution().detach(), best)
    return Verdict(algorithm.name, claim, start, end, TOLERANCE)


CLAIMS: tuple[Callable[[], Verdict], ...] = (
    ppo,
    rloo,
    grpo,
    grpo_kl_in_reward,
    reinforce,
    remax,
    reinforce_pp,
    reinforce_pp_baseline,
    online_dpo,
)
