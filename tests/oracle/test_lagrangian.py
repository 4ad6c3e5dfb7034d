"""PPO-Lagrangian: its gradient by enumeration, the KL on both sides, the multiplier by hand, and where it settles."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from small_world import BETA, PROMPTS, V, gradient_of, learner_on, made_world

from assent.algorithms.ppo import PPO
from assent.algorithms.ppo_lagrangian import PPOLagrangian
from assent.evals.toy_world import RESPONSE_LENGTH, TableForward, TableScorer, rollout
from assent.stages.verify.constrained import ppo_lagrangian
from assent.train.lagrange import Charge, ConstrainedScoring, Lagrange, Multiplier
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer

FIXED = Lagrange(initial=0.7, delay=10**6)
EXACT = PPO(epochs=1, minibatches=1, lam=1.0, value_coef=0.1, whiten_advantages=False)


@pytest.fixture
def world():
    policy, reference, rewards = made_world()
    costs = torch.randn(PROMPTS, V, V, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    with torch.no_grad():
        policy.cost_values_XS.normal_(generator=torch.Generator().manual_seed(9))
    return policy, reference, rewards, costs


def scoring_on(policy, reference, rewards, costs, settings=FIXED, *, kl_coef=BETA) -> ConstrainedScoring:
    scorers = [WeightedScorer(TableScorer(rewards)), WeightedScorer(TableScorer(costs, "cost"), 0.0)]
    plain = RolloutScoring(
        TableForward(policy).logprobs, TableForward(reference).logprobs, scorers,
        shaping=Shaping(), kl_control=KLControl(kl_coef), token_budget=64,
    )  # fmt: skip
    forward = TableForward(policy)
    with_values = CriticScoring(plain, forward.values)
    return ConstrainedScoring(with_values, forward.cost_values, {"cost": Charge()}, Multiplier(settings))


def test_at_a_fixed_multiplier_the_gradient_is_that_of_the_lagrangian(world, tmp_path):
    """Any two critics are only baselines, so the expected gradient is exact; the KL weighs beta, whatever lambda."""
    policy, reference, rewards, costs = world
    algorithm, score = PPOLagrangian(ppo=EXACT), scoring_on(*world)
    probability = policy.distribution().detach()
    expected = torch.zeros_like(policy.logits_XSV)
    before = policy.cost_values_XS.detach().clone()
    for x, first, second in itertools.product(range(PROMPTS), range(V), range(V)):
        experience = algorithm.experience(score([rollout(policy, x, first, second)]))
        learner = learner_on(policy, tmp_path)
        gradient = gradient_of(policy, lambda e=experience, step=learner: step.update(e, algorithm))
        with torch.no_grad():
            policy.cost_values_XS.copy_(before)
        expected += probability[x, first, second] / PROMPTS * gradient
    p, q, weight = policy.distribution(), reference.distribution().detach(), FIXED.initial
    value = (rewards - weight * costs) / (1 + weight) - BETA * (p.log() - q.log())
    (exact,) = torch.autograd.grad(-(p * value).sum((1, 2)).mean(), policy.logits_XSV)
    torch.testing.assert_close(expected * RESPONSE_LENGTH, exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weight", [0.1, 1.0, 4.0])
def test_the_kl_keeps_its_weight_whatever_the_multiplier(world, weight):
    """With no score and no cost, and critics at 0, the advantage is PPO's under the KL alone: exactly."""
    policy, reference, rewards, _ = world
    with torch.no_grad():
        policy.values_XS.zero_()
        policy.cost_values_XS.zero_()
    rollouts = [rollout(policy, x, a, b) for x, a, b in itertools.product(range(PROMPTS), range(V), range(V))]
    nothing = torch.zeros_like(rewards)
    score = scoring_on(policy, reference, nothing, nothing, Lagrange(initial=weight, delay=10))
    scored = score(rollouts)
    assert scored.multiplier == pytest.approx(weight)
    experience, plain = PPOLagrangian(ppo=EXACT).experience(scored), EXACT.experience(score.scoring(rollouts))
    torch.testing.assert_close(experience.advantages_BT, plain.advantages_BT, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(experience.cost_returns_BT, -plain.returns_BT, rtol=1e-12, atol=1e-12)


def test_two_critics_learn_two_returns(world, tmp_path):
    policy, *_ = world
    algorithm, score = (
        PPOLagrangian(ppo=PPO(epochs=1, minibatches=1, lam=1.0, value_coef=1.0, value_clip=None)),
        scoring_on(*world),
    )
    experience = algorithm.experience(score([rollout(policy, 0, 1, 2)]))
    before, cost_before = policy.values_XS.detach().clone(), policy.cost_values_XS.detach().clone()
    learner_on(policy, tmp_path).update(experience, algorithm)
    for moved, old, want in (
        (policy.values_XS - before, before, experience.returns_BT),
        (policy.cost_values_XS - cost_before, cost_before, experience.cost_returns_BT),
    ):
        expected = torch.zeros_like(old)
        for t, state in enumerate((0, 1 + 1)):
            expected[0, state] = (want[0, t] - old[0, state]) / RESPONSE_LENGTH
        torch.testing.assert_close(moved.detach(), expected, rtol=1e-6, atol=1e-9)


def test_each_advantage_reads_its_own_critic(world):
    """By hand, with lambda of GAE below 1, where a baseline of the other critic would show."""
    algorithm = PPOLagrangian(ppo=PPO(lam=0.5, gamma=0.9, whiten_advantages=False))
    scored = scoring_on(*world)([rollout(world[0], 0, 1, 2), rollout(world[0], 1, 0, 0)])
    made = algorithm.experience(scored)
    gap_BT = scored.old_logprobs_BT - scored.ref_logprobs_BT
    rewards_BT = scored.score_events_BT - BETA * gap_BT
    costs_BT = scored.cost_events_BT + BETA * gap_BT

    def advantage(given, values):
        last = given[:, 1] - values[:, 1]
        first = given[:, 0] + 0.9 * values[:, 1] - values[:, 0] + 0.9 * 0.5 * last
        return torch.stack([first, last], 1)

    of_reward, of_cost = advantage(rewards_BT, scored.values_BT), advantage(costs_BT, scored.cost_values_BT)
    wanted = (of_reward - scored.multiplier * of_cost) / (1 + scored.multiplier)
    torch.testing.assert_close(made.advantages_BT, wanted.to(made.advantages_BT.dtype), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made.cost_returns_BT, (of_cost + scored.cost_values_BT).to(made.cost_returns_BT.dtype))


def test_a_token_that_other_weights_drew_is_corrected_in_reward_and_cost_alike(world):
    """The weight stands on the whole advantage, after whitening, and on nothing that a critic learns."""
    policy, *_ = world
    drawn = [rollout(policy, 0, 1, 2), rollout(policy, 1, 0, 0)]
    drawn = [replace(r, sampler_logprobs=tuple(p - 0.4 * k for k, p in enumerate(r.sampler_logprobs))) for r in drawn]
    scored = scoring_on(*world)(drawn)
    plain, corrected = (
        PPOLagrangian(ppo=PPO(importance_cap=cap, whiten_advantages=True)).experience(scored) for cap in (None, 1.3)
    )
    weights = torch.tensor([[1.0, 1.3], [1.0, 1.3]], dtype=torch.float64)  # exp(0.4) = 1.49, capped
    torch.testing.assert_close(corrected.advantages_BT, plain.advantages_BT * weights, rtol=1e-6, atol=1e-7)
    assert torch.equal(corrected.returns_BT, plain.returns_BT)
    assert torch.equal(corrected.cost_returns_BT, plain.cost_returns_BT)
    assert corrected.metrics["importance/capped"].value == 0.5 and "importance/capped" not in plain.metrics


def test_rewards_are_not_whitened_beside_costs_that_are_not():
    with pytest.raises(ValueError, match=r"whiten_rewards .* got true"):
        PPOLagrangian(ppo=PPO(whiten_rewards=True))


def test_the_multiplier_by_hand():
    multiplier = Multiplier(Lagrange(threshold=0.5, initial=1.0, lr=0.1, cap=1.2, window=3, delay=1))
    multiplier.follow(torch.tensor([9.0]))
    assert multiplier.value == 1.0, "delayed"
    multiplier.follow(torch.tensor([1.0, 2.0, 0.9]))
    assert multiplier.mean_cost == pytest.approx(1.3) and multiplier.log == pytest.approx(0.1 * 0.8 * 1.0)
    multiplier.follow(torch.tensor([30.0, 30.0, 30.0]))
    assert multiplier.value == pytest.approx(1.2), "capped"
    multiplier.follow(torch.tensor([-1.5, -1.5, -1.5]))
    assert multiplier.log == pytest.approx(math.log(1.2) - 0.1 * 2.0 * 1.2)


def test_the_multiplier_follows_the_gradient_of_its_loss():
    """SGD on -(J - threshold) exp(log lambda)."""
    log = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (-(0.8 - 0.2) * log.exp()).backward()
    multiplier = Multiplier(Lagrange(threshold=0.2, initial=math.exp(0.3), lr=0.05, cap=None))
    multiplier.follow(torch.tensor([0.8], dtype=torch.float64))
    assert multiplier.log == pytest.approx(0.3 - 0.05 * log.grad.item())


def test_the_state_comes_back_bit_for_bit(world):
    policy, reference, rewards, costs = world
    settings = Lagrange(threshold=-0.3, window=5)

    def batch(step: int):
        return [rollout(policy, step % PROMPTS, a, (a + step) % V) for a in range(V)]

    whole, first, second = (scoring_on(policy, reference, rewards, costs, settings) for _ in range(3))
    expected = [whole(batch(step)).multiplier for step in range(6)]
    for step in range(3):
        first(batch(step))
    second.load_state_dict(first.state_dict())
    assert [second(batch(step)).multiplier for step in range(3, 6)] == expected[3:]
    assert second.state_dict() == whole.state_dict() and len(set(expected)) == 6


def test_a_cost_is_clipped_and_weighted_and_stands_on_the_last_token(world):
    policy, reference, rewards, costs = world
    score = scoring_on(policy, reference, rewards, 100 * costs)
    score.charges = {"cost": Charge(weight=0.5, clip=3.0)}
    scored = score([rollout(policy, 0, 1, 2)])
    raw = 100 * costs[0, 1, 2].item()
    assert scored.cost_events_BT.tolist() == [[0.0, pytest.approx(0.5 * math.copysign(min(3.0, abs(raw)), raw))]]
    assert scored.score_events_BT.sum().item() == pytest.approx(rewards[0, 1, 2].item()), "no cost in the score"
    assert scored.metrics["cost/above_zero"].value == float(raw > 0)


@pytest.mark.parametrize("wrong", [{"initial": 0.0}, {"window": 0}, {"lr": 0.0}, {"cap": 0.5}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        Lagrange(**wrong)


def test_the_constrained_optimum_is_arrived_at():
    verdict = ppo_lagrangian()
    assert verdict.arrived, verdict
