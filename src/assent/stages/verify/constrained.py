"""A constrained objective, through the real loop: the policy and the multiplier must settle where the cost binds."""

import torch
from torch import Tensor

from assent.algorithms.ppo import PPO
from assent.algorithms.ppo_lagrangian import PPOLagrangian
from assent.evals import toy_world as toy
from assent.loops.online import online
from assent.rollout.source import PromptSource
from assent.stages.verify.worlds import KL_COEF, PROMPTS, SAMPLES, TOLERANCE, Once, Quiet, Verdict, learner_of, world
from assent.train.guard import KLBudget, KLGuard
from assent.train.lagrange import Charge, ConstrainedScoring, Lagrange, Multiplier
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer
from assent.types import Sampling

THRESHOLD, STEPS = -0.2, 240


def ppo_lagrangian() -> Verdict:
    """Cost is half of the reward and half of its own, so that the two pull apart and neither rules alone."""
    policy, reference, rewards = world()
    costs = 0.5 * rewards + 0.5 * torch.randn(rewards.shape, generator=torch.Generator().manual_seed(5)).double()
    weight, best = binding(reference.distribution().detach(), rewards, costs)
    algorithm = PPOLagrangian(ppo=PPO(epochs=2, minibatches=2, value_coef=1.0, value_clip=10.0))
    learner = learner_of(policy, lr=0.05, steps=STEPS * algorithm.epochs * algorithm.minibatches, floor=0.0)
    source = PromptSource(
        toy.prompts(PROMPTS),
        toy.TableEngine(policy),
        Sampling(toy.RESPONSE_LENGTH, ()),
        prompts_per_step=PROMPTS,
        samples_per_prompt=SAMPLES,
        steps=STEPS,
        seed=0,
        decode=str,
    )
    forward, multiplier = toy.TableForward(policy), Multiplier(Lagrange(threshold=THRESHOLD, lr=0.1, window=1024))
    scoring = RolloutScoring(
        forward.logprobs,
        toy.TableForward(reference).logprobs,
        [WeightedScorer(toy.TableScorer(rewards)), WeightedScorer(toy.TableScorer(costs, "cost"), 0.0)],
        shaping=Shaping(),
        kl_control=KLControl(KL_COEF),
        token_budget=10**6,
    )
    score = ConstrainedScoring(
        CriticScoring(scoring, forward.values), forward.cost_values, {"cost": Charge()}, multiplier
    )
    start = toy.total_variation(policy.distribution().detach(), best)
    online(source, score, algorithm, learner, Quiet(), Once(), KLGuard(KLBudget(), policy))
    end = toy.total_variation(policy.distribution().detach(), best)
    claim = f"E[cost] = {THRESHOLD:g}, lambda = {weight:.2f}, ref * exp((r - lambda c) / (1 + lambda) / beta) / Z"
    return Verdict(algorithm.name, claim, start, end, TOLERANCE)


def binding(reference: Tensor, rewards: Tensor, costs: Tensor) -> tuple[float, Tensor]:
    """The multiplier at which the optimum of the Lagrangian costs the threshold, by bisection, and that optimum."""

    def at(weight: float) -> Tensor:
        return toy.optimum(reference, (rewards - weight * costs) / (1 + weight), kl_coef=KL_COEF)

    def cost(weight: float) -> float:
        return (at(weight) * costs).sum((1, 2)).mean().item()

    low, high = 1e-4, 5.0
    assert cost(low) > THRESHOLD > cost(high), "the constraint must bind"
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) > THRESHOLD else (low, middle)
    return low, at(low)
