"""The oracle: enumerate every batch with its probability, run the real pipeline on each, add up the gradients, and
compare with autograd on the definition of the objective."""

import itertools

import pytest
import torch
from small_world import PROMPTS, V, critic_scoring_on, gradient_of, learner_on, made_world, objective

from assent.algorithms.ppo import PPO
from assent.algorithms.reward_model import RewardModel
from assent.algorithms.sft import SFT
from assent.evals.toy_world import RESPONSE_LENGTH, rollout
from assent.types import ComparisonBatch, Sequences, TokenBatch


@pytest.fixture
def world():
    return made_world()


@pytest.mark.parametrize("lam", [1.0])
def test_ppo_gradient_is_the_gradient_of_the_kl_regularised_objective(world, tmp_path, lam):
    """With lambda 1 and on-policy samples, any critic is only a baseline: the expected gradient is exact."""
    policy, reference, rewards = world
    ppo = PPO(epochs=1, minibatches=1, lam=lam, value_coef=0.1, whiten_advantages=False)
    score = critic_scoring_on(policy, reference, rewards)
    probability = policy.distribution().detach()
    expected = torch.zeros_like(policy.logits_XSV)
    for x, first, second in itertools.product(range(PROMPTS), range(V), range(V)):
        experience = ppo.experience(score([rollout(policy, x, first, second)]))
        learner = learner_on(policy, tmp_path)
        gradient = gradient_of(policy, lambda e=experience, step=learner: step.update(e, ppo))
        expected += probability[x, first, second] / PROMPTS * gradient
    (exact,) = torch.autograd.grad(-objective(policy, reference, rewards), policy.logits_XSV)
    torch.testing.assert_close(expected * RESPONSE_LENGTH, exact, rtol=1e-5, atol=1e-7)


def test_ppo_gradient_over_every_pair_of_samples(world, tmp_path):
    """The same with batches of two: one denominator for the batch, whatever its composition."""
    policy, reference, rewards = world
    ppo = PPO(epochs=1, minibatches=1, lam=1.0, whiten_advantages=False)
    score = critic_scoring_on(policy, reference, rewards)
    probability = policy.distribution().detach() / PROMPTS
    outcomes = list(itertools.product(range(PROMPTS), range(V), range(V)))
    expected = torch.zeros_like(policy.logits_XSV)
    for a, b in itertools.product(outcomes, outcomes):
        experience = ppo.experience(score([rollout(policy, *a), rollout(policy, *b)]))
        gradient = gradient_of(policy, lambda e=experience: learner_on(policy, tmp_path).update(e, ppo))
        expected += probability[a] * probability[b] * gradient
    (exact,) = torch.autograd.grad(-objective(policy, reference, rewards), policy.logits_XSV)
    torch.testing.assert_close(expected * RESPONSE_LENGTH, exact, rtol=1e-5, atol=1e-7)


def test_sft_gradient_is_the_gradient_of_the_cross_entropy(world, tmp_path):
    policy, _, _ = world
    data = [(0, 1, 2), (0, 1, 2), (1, 0, 0), (1, 2, 1)]
    batch = TokenBatch(Sequences.of([[x] for x, _, _ in data], [[a, b] for _, a, b in data]))
    gradient = gradient_of(policy, lambda: learner_on(policy, tmp_path, token_budget=3).step(batch, SFT()))
    log = policy.distribution().log()
    definition = -torch.stack([log[row] for row in data]).sum() / (len(data) * RESPONSE_LENGTH)
    (exact,) = torch.autograd.grad(definition, policy.logits_XSV)
    torch.testing.assert_close(gradient, exact, rtol=1e-6, atol=1e-9)


def test_reward_model_gradient_is_the_gradient_of_instructgpt_loss(world, tmp_path):
    """K = 3 and K = 2 prompts in one batch, one tie, one margin: mean over pairs within a prompt, then over prompts."""
    policy, _, _ = world
    responses = [(0, 0, 0), (0, 1, 2), (0, 2, 1), (1, 1, 1), (1, 0, 2)]
    pairs = [(1, 0, 0.0), (1, 2, 0.5), (4, 3, 0.0)]
    batch = ComparisonBatch(
        Sequences.of([[x] for x, _, _ in responses], [[a, b] for _, a, b in responses]),
        torch.tensor([3, 2]),
        torch.tensor([p[0] for p in pairs]),
        torch.tensor([p[1] for p in pairs]),
        torch.tensor([0, 0, 1]),
        torch.tensor([p[2] for p in pairs], dtype=torch.float64),
    )
    with torch.no_grad():
        policy.scores_XVV.normal_(generator=torch.Generator().manual_seed(5))
    before = policy.scores_XVV.detach().clone().requires_grad_()
    learner_on(policy, tmp_path, token_budget=3).step(batch, RewardModel())
    losses = [-(before[responses[w]] - before[responses[b]] - m).sigmoid().log() for w, b, m in pairs]
    definition = ((losses[0] + losses[1]) / 2 + losses[2]) / 2
    (exact,) = torch.autograd.grad(definition, before)
    torch.testing.assert_close(before.detach() - policy.scores_XVV.detach(), exact, rtol=1e-6, atol=1e-9)
