"""PPO off-policy and with every option, against its equations written out token by token in plain numbers."""

import math

import pytest
import torch
from small_world import BETA, critic_scoring_on, gradient_of, learner_on, made_world

from assent.algorithms.ppo import PPO
from assent.evals.toy_world import TableForward, Tables, rollout
from assent.types import Mean

ROLLOUTS = [(0, 0, 1), (0, 2, 2), (1, 1, 0), (1, 2, 1), (1, 0, 0)]
"""Prompt and two tokens of each."""


def state(response: list[int], t: int) -> int:
    return 0 if t == 0 else 1 + response[t - 1]


def experience_by_hand(world, *, gamma: float, lam: float, whiten: bool, whiten_rewards: bool):
    """(advantage, return, old value, old log-probability) of each token, by the definition's double sum."""
    policy, reference, rewards = world
    rows = []
    for x, *response in ROLLOUTS:
        log = [policy.logits_XSV[x, state(response, t)].log_softmax(-1)[response[t]].item() for t in (0, 1)]
        ref = [reference.logits_XSV[x, state(response, t)].log_softmax(-1)[response[t]].item() for t in (0, 1)]
        given = [-BETA * (log[t] - ref[t]) + (rewards[(x, *response)].item() if t == 1 else 0.0) for t in (0, 1)]
        rows.append((given, [policy.values_XS[x, state(response, t)].item() for t in (0, 1)], log))
    if whiten_rewards:
        every = [r for given, *_ in rows for r in given]
        mean = sum(every) / len(every)
        deviation = math.sqrt(sum((r - mean) ** 2 for r in every) / len(every) + 1e-8)
        rows = [([(r - mean) / deviation + mean for r in given], v, log) for given, v, log in rows]
    advantages, returns = [], []
    for given, v, _ in rows:
        last = given[1] - v[1]
        first = given[0] + gamma * v[1] - v[0] + gamma * lam * last
        advantages.append([first, last])
        returns.append([first + v[0], last + v[1]])
    if whiten:
        every = [a for row in advantages for a in row]
        mean = sum(every) / len(every)
        deviation = math.sqrt(sum((a - mean) ** 2 for a in every) / len(every) + 1e-8)
        advantages = [[(a - mean) / deviation for a in row] for row in advantages]
    return advantages, returns, [v for _, v, _ in rows], [log for *_, log in rows]


@pytest.mark.parametrize(
    "ppo",
    [
        PPO(gamma=0.9, lam=0.7, whiten_advantages=False),
        PPO(gamma=0.8, lam=0.95),
        PPO(lam=0.5, whiten_rewards=True),
    ],
    ids=["plain", "whitened", "rewards whitened too"],
)
def test_experience_is_the_double_sum(ppo):
    world = made_world()
    scored = critic_scoring_on(*world)([rollout(world[0], *row) for row in ROLLOUTS])
    got = ppo.experience(scored)
    advantages, returns, values, log = experience_by_hand(
        world, gamma=ppo.gamma, lam=ppo.lam, whiten=ppo.whiten_advantages, whiten_rewards=ppo.whiten_rewards
    )
    for tensor, wanted in [
        (got.advantages_BT, advantages),
        (got.returns_BT, returns),
        (got.old_values_BT, values),
        (got.old_logprobs_BT, log),
    ]:
        torch.testing.assert_close(tensor.double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("token_budget", [4, 1000])
@pytest.mark.parametrize(
    "ppo",
    [
        PPO(epochs=1, clip_low=0.1, clip_high=0.4, value_clip=None, value_coef=0.5, whiten_advantages=False),
        PPO(epochs=1, clip_low=0.3, clip_high=0.05, value_clip=0.05, value_coef=0.3, entropy_coef=0.02),
        PPO(epochs=1, dual_clip=1.05, clip_low=0.05, clip_high=0.05, value_clip=0.1, value_coef=1.0),
    ],
    ids=["unclipped value", "entropy", "dual clip"],
)
def test_the_gradient_off_policy_is_that_of_the_equations(tmp_path, ppo, token_budget):
    """Samples of one policy, gradient at another: ratios stand on both sides of the clip."""
    world = made_world()
    scored = critic_scoring_on(*world)([rollout(world[0], *row) for row in ROLLOUTS])
    experience = ppo.experience(scored)
    moved = Tables(2, 3, seed=1)
    with torch.no_grad():
        moved.logits_XSV += 0.3 * Tables(2, 3, seed=9).logits_XSV
        moved.values_XS.copy_(world[0].values_XS + 0.2 * torch.randn(moved.values_XS.shape, dtype=torch.float64))
    total, clipped = 0.0, 0
    for i, (x, *response) in enumerate(ROLLOUTS):
        for t in (0, 1):
            log = moved.logits_XSV[x, state(response, t)].log_softmax(-1)
            a, r, old = experience.advantages_BT[i, t], experience.returns_BT[i, t], experience.old_values_BT[i, t]
            rho = (log[response[t]] - experience.old_logprobs_BT[i, t]).exp()
            clipped += not 1 - ppo.clip_low <= rho.item() <= 1 + ppo.clip_high
            surrogate = -torch.min(rho * a, rho.clamp(1 - ppo.clip_low, 1 + ppo.clip_high) * a)
            if ppo.dual_clip is not None and a < 0:
                surrogate = torch.min(surrogate, -a * ppo.dual_clip)
            value = moved.values_XS[x, state(response, t)]
            error = (value - r) ** 2
            if ppo.value_clip is not None:
                near = torch.min(torch.max(value, old - ppo.value_clip), old + ppo.value_clip)
                error = torch.max(error, (near - r) ** 2)
            entropy = -(log.exp() * log).sum()
            total = total + surrogate + ppo.value_coef * 0.5 * error - ppo.entropy_coef * entropy
    assert 0 < clipped < 2 * len(ROLLOUTS), "the clip must bite on some tokens and not on others"
    policy_gradient, value_gradient = torch.autograd.grad(
        total / (2 * len(ROLLOUTS)), [moved.logits_XSV, moved.values_XS]
    )
    values = moved.values_XS.detach().clone()
    found: dict[str, Mean] = {}

    def step() -> None:
        found.update(learner_on(moved, tmp_path, token_budget=token_budget).update(experience, ppo))
        found["moved"] = values - moved.values_XS.detach()

    gradient = gradient_of(moved, step)
    torch.testing.assert_close(gradient, policy_gradient, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found["moved"], value_gradient, rtol=1e-5, atol=1e-7)
    assert found["policy/clipfrac_avg"].value == pytest.approx(clipped / (2 * len(ROLLOUTS)))
    with torch.no_grad():
        log_ratio = TableForward(moved).logprobs(experience.sequences) - experience.old_logprobs_BT
    assert found["policy/approxkl_avg"].value == pytest.approx((log_ratio**2).mean().item() / 2)


def test_an_update_ends_once_it_has_moved_too_far_and_the_critic_warms_up_alone():
    limited = PPO(update_kl_limit=0.1)
    assert limited.stops({"policy/approxkl_avg": Mean(0.3, 2.0)}) and not limited.stops(
        {"policy/approxkl_avg": Mean(0.1, 2.0)}
    )
    assert not PPO().stops({"policy/approxkl_avg": Mean(9.0, 1.0)})
    warming = PPO(critic_warmup_steps=2)
    assert [warming.at(step).policy_coef for step in range(4)] == [0.0, 0.0, 1.0, 1.0]
