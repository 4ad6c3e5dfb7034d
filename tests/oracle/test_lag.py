"""Sampling with older weights, by enumeration: every pair of responses that the older policy may draw, with its
probability, through the real source, scoring and learner."""

import dataclasses

import pytest
import torch
from small_world import PROMPTS, V, gradient_of, learner_on, made_world, objective, scoring_on
from test_group_enumeration import every_pair

from assent.algorithms.rloo import RLOO
from assent.evals.toy_world import TableEngine, TableForward, Tables, prompts
from assent.functional.ratio import truncated_importance_weights
from assent.rollout.ahead import AheadSource
from assent.rollout.source import PromptSource
from assent.types import Sampling

FREE = 1e9
"""A cap that binds nowhere."""


@pytest.fixture
def world():
    return made_world()


def moved(policy: Tables, states: slice) -> Tables:
    """The policy as it was an update ago: other in some of its states."""
    before = Tables(PROMPTS, V, seed=1)
    with torch.no_grad():
        before.logits_XSV.copy_(policy.logits_XSV)
        shift = torch.randn(before.logits_XSV.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
        before.logits_XSV[:, states] += 0.8 * shift[:, states]
    return before


def corrected(experience, scored, cap):
    """The experience with each token weighed by what it is worth under the newer weights."""
    sampled = torch.tensor([r.sampler_logprobs for r in scored.rollouts], dtype=torch.float64)
    weights = truncated_importance_weights(scored.old_logprobs_BT, sampled, cap=cap)
    return dataclasses.replace(experience, weights_BT=experience.weights_BT * weights)


def expected_gradient(world, sampler, tmp_path, *, cap=None):
    policy, reference, rewards = world
    score, total = scoring_on(policy, reference, rewards), torch.zeros_like(policy.logits_XSV)
    learner, algorithm = learner_on(policy, tmp_path), RLOO()
    for probability, pair in every_pair(sampler):
        scored = score(pair)
        experience = algorithm.experience(scored)
        if cap is not None:
            experience = corrected(experience, scored, cap)
        total += probability * gradient_of(policy, lambda e=experience: learner.update(e, algorithm))
    return total


def exact_gradient(world):
    policy, reference, rewards = world
    return torch.autograd.grad(-objective(policy, reference, rewards), policy.logits_XSV)[0]


def test_without_a_lag_the_correction_changes_nothing(world, tmp_path):
    policy, _, _ = world
    exact = exact_gradient(world)
    for cap in (None, 2.0):
        got = expected_gradient(world, policy, tmp_path, cap=cap)
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("states", [slice(0, 1), slice(1, None)], ids=["first token", "second token"])
def test_the_correction_makes_the_gradient_right_where_the_weights_moved(world, tmp_path, states):
    """Each token's weight stands for that token alone: right where older and newer policy visit the same states."""
    sampler, exact = moved(world[0], states), exact_gradient(world)
    got = expected_gradient(world, sampler, tmp_path, cap=FREE)
    torch.testing.assert_close(got[:, states], exact[:, states], rtol=1e-5, atol=1e-7)
    without = expected_gradient(world, sampler, tmp_path)
    assert (without[:, states] - exact[:, states]).abs().max() > 0.01, "nothing had to be corrected here"


def test_the_weight_of_a_whole_response_would_be_right_everywhere_and_that_of_its_tokens_is_not(world, tmp_path):
    """With every state moved, a token's weight does not know that its state has become rarer, its future other."""
    policy, reference, rewards = world
    sampler, exact = moved(policy, slice(None)), exact_gradient(world)
    score, total = scoring_on(policy, reference, rewards), torch.zeros_like(exact)
    learner, algorithm = learner_on(policy, tmp_path), RLOO()
    for probability, pair in every_pair(sampler):
        scored = score(pair)
        experience = algorithm.experience(scored)
        sampled = torch.tensor([r.sampler_logprobs for r in pair], dtype=torch.float64)
        whole = (scored.old_logprobs_BT - sampled).sum(1, keepdim=True).exp()
        # The baseline is the other response, which the older policy drew as well.
        other = whole.flip(0) * experience.advantages_BT
        experience = dataclasses.replace(experience, advantages_BT=whole * other)
        total += probability * gradient_of(policy, lambda e=experience: learner.update(e, algorithm))
    torch.testing.assert_close(total, exact, rtol=1e-5, atol=1e-7)
    assert (expected_gradient(world, sampler, tmp_path, cap=FREE) - exact).norm() > 0.01


def test_a_cap_that_binds_is_the_truncated_sum_of_the_definition(world, tmp_path):
    policy, reference, rewards = world
    sampler, cap = moved(policy, slice(None)), 1.3
    log, ref, before = (t.logits_XSV.log_softmax(-1) for t in (policy, reference, sampler))
    surrogate, bound = torch.zeros((), dtype=torch.float64), 0
    for probability, pair in every_pair(sampler):
        rows = [(r.prompt.token_ids[0], *r.token_ids) for r in pair]
        paid = [sum((log - ref)[x, s, t].detach() for s, t in ((0, a), (1 + a, b))) for x, a, b in rows]
        reward = [rewards[row] - 0.3 * kl for row, kl in zip(rows, paid, strict=True)]
        for (x, a, b), advantage in zip(rows, (reward[0] - reward[1], reward[1] - reward[0]), strict=True):
            for s, t in ((0, a), (1 + a, b)):
                weight = (log[x, s, t] - before[x, s, t]).exp().item()
                bound += weight > cap
                surrogate = surrogate + probability * min(weight, cap) * advantage * log[x, s, t] / 2
    assert bound > 50
    (exact,) = torch.autograd.grad(-surrogate, policy.logits_XSV)
    got = expected_gradient(world, sampler, tmp_path, cap=cap)
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-7)


def test_the_source_that_runs_ahead_draws_from_the_older_weights_and_says_so(world):
    policy, _, _ = world
    before = TableForward(moved(policy, slice(None)))
    tables = before.tables
    plain = PromptSource(
        prompts(PROMPTS), TableEngine(tables), Sampling(2, ()), prompts_per_step=2, samples_per_prompt=8, steps=3,
        seed=0, decode=str,
    )  # fmt: skip
    source = AheadSource(plain, prompts(PROMPTS), str, lag=1)
    for step, rollouts in source:
        with torch.no_grad():
            drawn = torch.tensor([r.sampler_logprobs for r in rollouts], dtype=torch.float64)
            log = tables.logits_XSV.log_softmax(-1)
            now = torch.stack(
                [log[r.prompt.token_ids[0], [0, 1 + r.token_ids[0]], list(r.token_ids)] for r in rollouts]
            )
            gap = (drawn - now).abs().max()
            assert (gap < 1e-9) == (step == 0) and {r.version for r in rollouts} == {max(0, step - 1)}
            tables.logits_XSV.copy_(policy.logits_XSV * (0.7 + 0.2 * step))  # an update
        source.sync({}, version=step + 1)
