"""The oracle for algorithms that compare the responses of one prompt: every group of two, with its probability."""

import dataclasses
import itertools

import pytest
import torch
from small_world import BETA, PROMPTS, V, gradient_of, learner_on, made_world, objective, scoring_on

from assent.algorithms.grpo import GRPO
from assent.algorithms.rloo import RLOO
from assent.dist.processes import Alone
from assent.evals.toy_world import RESPONSE_LENGTH, TableForward, Tables, myopic_optimum, rollout
from assent.train.learner import LocalLearner
from assent.train.schedule import Schedule
from assent.types import ConstantLength, PolicyExperience, SequenceMean, Sequences, TokenMean

RESPONSES = list(itertools.product(range(V), range(V)))
DR_GRPO = GRPO(scale_by_std=False, reduction=ConstantLength(RESPONSE_LENGTH))


@pytest.fixture
def world():
    return made_world()


def every_pair(policy: Tables):
    """(probability, two responses of one prompt), over all of them."""
    probability = policy.distribution().detach()
    for x, a, b in itertools.product(range(PROMPTS), RESPONSES, RESPONSES):
        yield probability[x][a] * probability[x][b] / PROMPTS, [rollout(policy, x, *a), rollout(policy, x, *b)]


def expected_gradient(algorithm, world, tmp_path, *, kl_coef=BETA, at=None):
    """Over every pair that the policy may sample, through scoring, experience and learner; taken at `at`."""
    policy, reference, rewards = world
    trained = policy if at is None else at
    score = scoring_on(policy, reference, rewards, kl_coef=kl_coef)
    learner, total = learner_on(trained, tmp_path), torch.zeros_like(policy.logits_XSV)
    for probability, pair in every_pair(policy):
        experience = algorithm.experience(score(pair))
        total += probability * gradient_of(trained, lambda e=experience: learner.update(e, algorithm))
    return total


def token_divergences(policy: Tables, reference: Tables, sampler: Tables) -> torch.Tensor:
    """Sum over the two tokens of KL(policy || reference) in the states that the sampler visits, mean over prompts."""
    p, q = policy.logits_XSV.log_softmax(-1), reference.logits_XSV.detach().log_softmax(-1)
    divergence_XS = (p.exp() * (p - q)).sum(-1)
    first_XV = sampler.logits_XSV.detach().softmax(-1)[:, 0]
    return (divergence_XS[:, 0] + (first_XV * divergence_XS[:, 1:]).sum(1)).mean()


# ------------------------------------------------------------------------------------------------ RLOO


def test_rloo_gradient_is_the_gradient_of_the_kl_regularised_objective(world, tmp_path):
    """Exactly, with nothing to scale away: the others of a prompt are an unbiased baseline."""
    policy, reference, rewards = world
    (exact,) = torch.autograd.grad(-objective(policy, reference, rewards), policy.logits_XSV)
    torch.testing.assert_close(expected_gradient(RLOO(), world, tmp_path), exact, rtol=1e-5, atol=1e-7)


def test_rloo_advantages_are_dr_grpo_s_times_k_over_k_minus_1_without_kl(world, tmp_path):
    policy, reference, rewards = world
    rollouts = [rollout(policy, x, *r) for x, r in [(0, (0, 1)), (0, (2, 2)), (0, (1, 1)), (1, (0, 0)), (1, (2, 1))]]
    scored = scoring_on(policy, reference, rewards, kl_coef=0.0)(rollouts)
    factor = torch.tensor([3 / 2] * 3 + [2.0] * 2)[:, None]
    rloo, dr_grpo = RLOO().experience(scored), DR_GRPO.experience(scored)
    wanted = factor * dr_grpo.advantages_BT.double()
    torch.testing.assert_close(rloo.advantages_BT, wanted, rtol=1e-5, atol=1e-6)
    pair = scoring_on(policy, reference, rewards, kl_coef=0.0)(rollouts[3:])
    gradients = [
        gradient_of(policy, lambda a=a: learner_on(policy, tmp_path).update(a.experience(pair), a))
        for a in (RLOO(), GRPO(scale_by_std=False, reduction=ConstantLength(1)))
    ]
    torch.testing.assert_close(gradients[0], 2 * gradients[1], rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------------------------------ GRPO


def test_grpo_gradient_is_that_of_score_minus_each_token_s_own_divergence(world, tmp_path):
    """The group's mean holds the response itself, so the score counts (K - 1) / K; no token pays for those after it."""
    policy, reference, rewards = world
    score = (policy.distribution() * rewards).sum((1, 2)).mean()
    wanted = (0.5 * score - BETA * token_divergences(policy, reference, policy)) / RESPONSE_LENGTH
    (exact,) = torch.autograd.grad(-wanted, policy.logits_XSV)
    torch.testing.assert_close(expected_gradient(DR_GRPO, world, tmp_path), exact, rtol=1e-5, atol=1e-7)
    (sequence,) = torch.autograd.grad(-objective(policy, reference, rewards), policy.logits_XSV)
    assert (RESPONSE_LENGTH * exact - sequence).abs().max() > 0.01, "the two leashes could not be told apart here"


def test_at_the_myopic_optimum_grpo_stands_still(world):
    """What `assent verify` measures GRPO against: the gradient of the definition above is 0 there."""
    policy, reference, rewards = world

    def gradient() -> torch.Tensor:
        score = (policy.distribution() * rewards).sum((1, 2)).mean()
        wanted = 0.5 * score - BETA * token_divergences(policy, reference, policy)
        return torch.autograd.grad(wanted, policy.logits_XSV)[0].abs().max()

    assert gradient() > 0.01
    best = myopic_optimum(reference.distribution().detach(), rewards, kl_coef=2 * BETA)
    with torch.no_grad():
        policy.logits_XSV[:, 0] = best.sum(-1).log()
        policy.logits_XSV[:, 1:] = best.log()
    torch.testing.assert_close(policy.distribution().detach(), best)
    assert gradient() < 1e-9


def test_the_kl_of_grpo_keeps_its_gradient_off_policy(world, tmp_path):
    """Samples of one policy, gradient at another: with equal scores only the divergence is left."""
    policy, reference, rewards = world
    moved = Tables(PROMPTS, V, seed=9)
    (exact,) = torch.autograd.grad(token_divergences(moved, reference, policy) * BETA / 2, moved.logits_XSV)
    got = expected_gradient(DR_GRPO, (policy, reference, torch.zeros_like(rewards)), tmp_path, at=moved)
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale_by_std", [True, False])
def test_grpo_surrogate_off_policy_is_the_paper_s(world, tmp_path, scale_by_std):
    """Every pair against the formula, written on probabilities: mean over responses and tokens of min(rho A, clip)."""
    policy, _, rewards = world
    moved = Tables(PROMPTS, V, seed=9)
    algorithm = GRPO(scale_by_std=scale_by_std, clip_low=0.2, clip_high=0.3)
    objective_ = torch.zeros((), dtype=torch.float64)
    for probability, pair in every_pair(policy):
        scores = torch.stack([rewards[(r.prompt.token_ids[0], *r.token_ids)] for r in pair])
        deviation = scores.std() + 1e-4 if scale_by_std else 1.0
        for response, advantage in zip(pair, (scores - scores.mean()) / deviation, strict=True):
            x, (first, second) = response.prompt.token_ids[0], response.token_ids
            for state, token in ((0, first), (1 + first, second)):
                new, old = (t.logits_XSV[x, state].softmax(-1)[token] for t in (moved, policy))
                rho = new / old.detach()
                gain = torch.minimum(rho * advantage, rho.clamp(0.8, 1.3) * advantage)
                objective_ = objective_ + probability * gain / len(pair) / RESPONSE_LENGTH
    (exact,) = torch.autograd.grad(-objective_, moved.logits_XSV)
    got = expected_gradient(algorithm, world, tmp_path, kl_coef=0.0, at=moved)
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-7)


def test_gspo_is_the_clipped_geometric_mean_of_the_ratios(world, tmp_path):
    policy, _, rewards = world
    moved = Tables(PROMPTS, V, seed=9)
    algorithm = GRPO(sequence_ratio=True, clip_low=0.1, clip_high=0.15)
    gain = torch.zeros((), dtype=torch.float64)
    p, q = moved.distribution(), policy.distribution().detach()
    for probability, pair in every_pair(policy):
        rows = [(r.prompt.token_ids[0], *r.token_ids) for r in pair]
        scores = torch.stack([rewards[row] for row in rows])
        for row, advantage in zip(rows, (scores - scores.mean()) / (scores.std() + 1e-4), strict=True):
            s = (p[row] / q[row]).sqrt()
            gain = gain + probability * torch.minimum(s * advantage, s.clamp(0.9, 1.15) * advantage) / 2
    (exact,) = torch.autograd.grad(-gain, moved.logits_XSV)
    got = expected_gradient(algorithm, world, tmp_path, kl_coef=0.0, at=moved)
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------------------------------ reductions


def mean_of_means(rows):
    return sum(sum(row) / len(row) for row in rows) / len(rows)


REDUCTIONS = {
    "token": (TokenMean(), lambda rows: sum(map(sum, rows)) / sum(map(len, rows))),
    "sequence": (SequenceMean(), mean_of_means),
    "constant": (ConstantLength(7), lambda rows: sum(map(sum, rows)) / (7 * len(rows))),
}


@pytest.mark.parametrize("budget", [3, 7, 1000])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_each_reduction_is_its_definition_under_any_micro_batch(tmp_path, name, budget):
    """Responses of one and two tokens, so that the three part; with A = -1 the loss of a token is its ratio."""
    reduction, definition = REDUCTIONS[name]
    policy = Tables(PROMPTS, V, seed=1)
    rows = [(0, (1,)), (0, (2, 1)), (1, (0, 0)), (1, (2,)), (1, (1, 2))]
    sequences = Sequences.of([[x] for x, _ in rows], [list(r) for _, r in rows])
    old = TableForward(policy).logprobs(sequences).detach()
    weights_BT, units_B = reduction.weigh(sequences.mask_BT)
    batch = PolicyExperience(sequences, old, old, -torch.ones_like(old), weights_BT, units_B, 0.0)
    got = learner_on(policy, tmp_path).gradients(batch, GRPO(), token_budget=budget)["policy.logits_XSV"]
    log = policy.logits_XSV.log_softmax(-1)
    tokens = [[log[x, 0, r[0]], *([log[x, 1 + r[0], r[1]]] if len(r) == 2 else [])] for x, r in rows]
    (exact,) = torch.autograd.grad(definition(tokens), policy.logits_XSV)
    torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-9)


def test_minibatches_do_not_cut_groups(world, tmp_path):
    """Advantages belong to whole groups: four minibatches of one response each add up to the undivided step."""
    policy, reference, rewards = world
    rollouts = [rollout(policy, 0, *r) for r in [(0, 1), (2, 2), (1, 1), (0, 0)]]
    experience = DR_GRPO.experience(scoring_on(policy, reference, rewards)(rollouts))
    still = LocalLearner(
        TableForward(policy), {"policy": policy}, [torch.optim.SGD(policy.parameters(), lr=0.0)],
        schedule=Schedule("constant"), total_steps=10, token_budget=64, seed=0, quarantine=tmp_path, processes=Alone(),
    )  # fmt: skip
    whole = still.gradients(experience, DR_GRPO)["policy.logits_XSV"]
    parts = [still.gradients(experience.select(torch.tensor([i])), DR_GRPO)["policy.logits_XSV"] for i in range(4)]
    torch.testing.assert_close(torch.stack(parts).mean(0), whole, rtol=1e-6, atol=1e-9)
    cut = still.update(experience, dataclasses.replace(DR_GRPO, minibatches=4))
    assert cut["loss/policy_avg"].value == pytest.approx(still.update(experience, DR_GRPO)["loss/policy_avg"].value)


# ------------------------------------------------------------------------------------------------ groups


@pytest.mark.parametrize("algorithm", [RLOO(), GRPO()], ids=["rloo", "grpo"])
def test_lone_responses_teach_nothing_and_are_counted(world, algorithm):
    policy, reference, rewards = world
    rewards = rewards.clone()
    rewards[1] = 0.25
    score = scoring_on(policy, reference, rewards, kl_coef=0.0)
    alone, equal = [rollout(policy, 0, 0, 1)], [rollout(policy, 1, 0, 1), rollout(policy, 1, 2, 1)]
    experience = algorithm.experience(score(alone + equal))
    assert (experience.advantages_BT == 0).all()
    assert experience.metrics["group/no_signal"].value == 1.0
    assert experience.denominator == 3
    lively = [rollout(policy, 0, 1, 1), rollout(policy, 0, 2, 0)]
    mixed = algorithm.experience(score(alone + lively + equal))
    assert (mixed.advantages_BT[:3] != 0).all() and (mixed.advantages_BT[3:] == 0).all()
    assert mixed.metrics["group/no_signal"].value == 0.5
    with pytest.raises(ValueError, match="samples_per_prompt to at least 2"):
        algorithm.experience(score(alone))
