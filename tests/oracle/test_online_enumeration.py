"""The oracle for the rest of the online algorithms: enumeration where a gradient is claimed, the definition elsewhere.

Definitions are written here on probabilities, response by response, and differentiated by autograd; nothing of
`functional` or `algorithms` is used to state them.
"""

import itertools

import pytest
import torch
from small_world import BETA, PROMPTS, V, gradient_of, learner_on, made_world, objective, scoring_on
from test_group_enumeration import every_pair, expected_gradient, token_divergences

from assent.algorithms.cispo import CISPO
from assent.algorithms.grpo import GRPO
from assent.algorithms.leash import ExactInLoss, K2InLoss, K3InLoss, KLInReward
from assent.algorithms.online_dpo import OnlineDPO
from assent.algorithms.ppo import PPO
from assent.algorithms.reinforce import Reinforce
from assent.algorithms.reinforce_pp import ReinforcePP
from assent.algorithms.reinforce_pp_baseline import ReinforcePPBaseline
from assent.algorithms.remax import ReMax
from assent.algorithms.rloo import RLOO
from assent.evals.toy_world import RESPONSE_LENGTH, TableEngine, TableForward, Tables, TableScorer, rollout
from assent.rollout.source import sample
from assent.train.greedy import GreedyScoring
from assent.train.scoring import KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer, this_batch
from assent.types import (
    ConstantLength,
    CriticScored,
    Prompt,
    Rollout,
    Sampling,
    Scored,
    SequenceMean,
    Sequences,
    TokenMean,
)

OUTCOMES = list(itertools.product(range(PROMPTS), range(V), range(V)))


@pytest.fixture
def world():
    return made_world()


@pytest.fixture
def moved():
    """The policy some steps into an update."""
    return Tables(PROMPTS, V, seed=9)


# ------------------------------------------------------------------------------------------------ ragged batches

ROWS = [(0, (0, 1)), (0, (2,)), (0, (1, 1)), (1, (0, 0)), (1, (2,)), (1, (2, 1)), (0, (2, 2))]
"""Prompts and responses of one and two tokens, so that reductions and per-token means part."""

SCORES = [0.7, -0.4, 0.1, 1.3, 0.2, -0.9, 0.5]


def states_of(response):
    """(state, token) of each token of a response in the tables."""
    return [(0, response[0]), *([(1 + response[0], response[1])] if len(response) == 2 else [])]


def scored_of(policy, reference, *, kl_coef, rows=ROWS, scores=SCORES, sampler=None):
    """What scoring would say of these responses, drawn from `sampler`."""
    sequences = Sequences.of([[x] for x, _ in rows], [list(r) for _, r in rows])
    log = (sampler or policy).logits_XSV.detach().log_softmax(-1)
    rollouts = tuple(
        Rollout(Prompt(f"{x}", f"{x}", (x,)), r, tuple(log[x, s, v].item() for s, v in states_of(r)), True, "", 0)
        for x, r in rows
    )
    events = torch.zeros(sequences.mask_BT.shape, dtype=torch.float64)
    for row, (_, response) in enumerate(rows):
        events[row, len(response) - 1] = scores[row]
    with torch.no_grad():
        old, ref = (
            torch.where(sequences.mask_BT, TableForward(t).logprobs(sequences), 0.0) for t in (policy, reference)
        )
    return Scored(rollouts, sequences, events, (), old, ref, kl_coef)


def logs(tables, rows=ROWS):
    """Log-probability of each token of each response."""
    log = tables.logits_XSV.log_softmax(-1)
    return [[log[x, s, v] for s, v in states_of(r)] for x, r in rows]


def gradient_at(tables, algorithm, scored, tmp_path, *, reference=None):
    """Through the learner, in micro-batches that cut the batch."""
    learner = learner_on(tables, tmp_path, token_budget=6)
    learner.forward = TableForward(tables, reference)
    return learner.gradients(algorithm.experience(scored), algorithm)["policy.logits_XSV"]


def minus(tables, wanted):
    return -torch.autograd.grad(wanted, tables.logits_XSV)[0]


def centred_in_groups(scores, rows=ROWS, *, scale):
    """Score minus the mean of its prompt's, over the sample deviation plus 1e-4 when `scale`."""
    found = []
    for (x, _), score in zip(rows, scores, strict=True):
        mine = torch.tensor([s for (y, _), s in zip(rows, scores, strict=True) if y == x], dtype=torch.float64)
        found.append((score - mine.mean().item()) / (mine.std().item() + 1e-4 if scale else 1.0))
    return found


def clipped(log_ratio, advantage, low, high):
    rho = log_ratio.exp()
    return torch.minimum(rho * advantage, rho.clamp(1 - low, 1 + high) * advantage)


def whitened(rows_of_numbers):
    """The same lists of numbers with mean 0 and deviation 1 over all of them."""
    flat = torch.tensor([n for row in rows_of_numbers for n in row], dtype=torch.float64)
    scale = (flat.var(correction=0) + 1e-8).sqrt().item()
    return [[(n - flat.mean().item()) / scale for n in row] for row in rows_of_numbers]


def token_mean(rows):
    return sum(map(sum, rows)) / sum(map(len, rows))


# ------------------------------------------------------------------------------------------------ REINFORCE


@pytest.mark.parametrize("to_go", [False, True])
@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_gradient_is_the_gradient_of_the_kl_regularised_objective(world, tmp_path, baseline, to_go):
    """Over every batch of two; exactly, whatever the baseline: the response itself is not in it."""
    policy, reference, rewards = world
    algorithm = Reinforce(baseline=baseline, to_go=to_go)
    score, learner = scoring_on(policy, reference, rewards), learner_on(policy, tmp_path)
    probability = policy.distribution().detach() / PROMPTS
    total = torch.zeros_like(policy.logits_XSV)
    for a, b in itertools.product(OUTCOMES, OUTCOMES):
        experience = algorithm.experience(score([rollout(policy, *a), rollout(policy, *b)]))
        total += (
            probability[a] * probability[b] * gradient_of(policy, lambda e=experience: learner.update(e, algorithm))
        )
    (exact,) = torch.autograd.grad(-objective(policy, reference, rewards), policy.logits_XSV)
    torch.testing.assert_close(total, exact, rtol=1e-5, atol=1e-7)


def test_reinforce_baseline_is_the_mean_of_the_others_of_the_batch(world):
    policy, reference, _ = world
    scored = scored_of(policy, reference, kl_coef=0.0)
    got = Reinforce().experience(scored).advantages_BT[:, 0]
    others = [(sum(SCORES) - s) / (len(SCORES) - 1) for s in SCORES]
    torch.testing.assert_close(got, torch.tensor(SCORES).double() - torch.tensor(others).double())


def test_reinforce_to_go_forgives_what_came_before(world):
    """Without a baseline the last token earns the score less its own KL, the first all of it."""
    policy, reference, _ = world
    scored = scored_of(policy, reference, kl_coef=BETA)
    got = Reinforce(baseline=False, to_go=True).experience(scored).advantages_BT
    kl = scored.old_logprobs_BT - scored.ref_logprobs_BT
    assert got[0, 1].item() == pytest.approx(SCORES[0] - BETA * kl[0, 1].item())
    assert got[0, 0].item() == pytest.approx(SCORES[0] - BETA * kl[0].sum().item())
    assert got[1].tolist() == pytest.approx([SCORES[1] - BETA * kl[1, 0].item(), 0.0])


# ------------------------------------------------------------------------------------------------ ReMax


def greedy_scoring_on(policy, scoring):
    sampling = Sampling(RESPONSE_LENGTH, (), greedy=True)
    return GreedyScoring(scoring, lambda asked: sample(TableEngine(policy), asked, sampling, seed=0, decode=str))


def most_probable(policy, x):
    """Token by token, as a greedy engine goes."""
    first = int(policy.logits_XSV[x, 0].argmax())
    return x, first, int(policy.logits_XSV[x, 1 + first].argmax())


def test_remax_gradient_is_the_gradient_of_the_kl_regularised_objective(world, tmp_path):
    """Over every single response; the baseline is the true reward of the greedy one, and no KL is in it."""
    policy, reference, rewards = world
    score = greedy_scoring_on(policy, scoring_on(policy, reference, rewards))
    probability, total = policy.distribution().detach(), torch.zeros_like(policy.logits_XSV)
    for outcome in OUTCOMES:
        scored = score([rollout(policy, *outcome)])
        assert scored.baseline_B.item() == pytest.approx(rewards[most_probable(policy, outcome[0])].item(), rel=1e-6)
        experience = ReMax().experience(scored)
        gradient = gradient_of(policy, lambda e=experience: learner_on(policy, tmp_path).update(e, ReMax()))
        total += probability[outcome] / PROMPTS * gradient
    (exact,) = torch.autograd.grad(-objective(policy, reference, rewards), policy.logits_XSV)
    torch.testing.assert_close(total, exact, rtol=1e-5, atol=1e-7)


class Unwilling(TableScorer):
    """Scores nothing to the second prompt that begins with the token 1."""

    def score(self, rollouts):
        refused = [(r.prompt.token_ids[0], r.token_ids[0]) == (1, 1) for r in rollouts]
        return [() if no else events for no, events in zip(refused, super().score(rollouts), strict=True)]


def test_a_prompt_without_a_greedy_score_is_left_out_and_counted(world):
    policy, reference, rewards = world
    with torch.no_grad():
        policy.logits_XSV[1, 0, 1] = 9.0
    scoring = RolloutScoring(
        TableForward(policy).logprobs, TableForward(reference).logprobs, [WeightedScorer(Unwilling(rewards))],
        shaping=Shaping(), kl_control=KLControl(BETA), token_budget=64,
    )  # fmt: skip
    scored = greedy_scoring_on(policy, scoring)([rollout(policy, *o) for o in [(0, 0, 0), (1, 0, 1), (1, 2, 2)]])
    assert len(scored.rollouts) == len(scored.baseline_B) == 1
    assert scored.metrics["greedy/unscored"].value == 2


def test_the_baseline_is_shaped_as_the_scores_and_leaves_the_moments_alone(world):
    """Normalised, clipped and docked for its missing end like any response; its score is not one of those averaged."""
    policy, reference, rewards = world
    shaping = Shaping(normalise=True, length_penalty=0.25)

    def scoring():
        return RolloutScoring(
            TableForward(policy).logprobs, TableForward(reference).logprobs, [WeightedScorer(TableScorer(rewards))],
            shaping=shaping, kl_control=KLControl(BETA), token_budget=64,
        )  # fmt: skip

    rollouts = [rollout(policy, *o) for o in [(0, 0, 0), (0, 1, 2), (1, 2, 2), (1, 0, 1)]]
    plain, beside = scoring(), greedy_scoring_on(policy, scoring())
    alone, scored = plain(rollouts), beside(rollouts)
    assert torch.equal(alone.score_events_BT, scored.score_events_BT)
    assert beside.state_dict() == plain.state_dict()
    raw = torch.tensor([r.item() for r in (rewards[0, 0, 0], rewards[0, 1, 2], rewards[1, 2, 2], rewards[1, 0, 1])])
    best = torch.tensor([rewards[most_probable(policy, x)].item() for x in (0, 1)])
    again = (best - raw.mean()) / raw.std(correction=0) - 0.25 * RESPONSE_LENGTH
    torch.testing.assert_close(scored.baseline_B, again[[0, 0, 1, 1]].double(), rtol=1e-5, atol=1e-5)


def test_the_baseline_is_whitened_by_the_batch_and_not_by_itself(world):
    """By its own moments the greedy scores would have mean 0, whatever they are worth."""
    policy, reference, rewards = world
    scoring = RolloutScoring(
        TableForward(policy).logprobs, TableForward(reference).logprobs,
        [WeightedScorer(TableScorer(rewards), 2.0, this_batch)],
        shaping=Shaping(), kl_control=KLControl(BETA), token_budget=64,
    )  # fmt: skip
    outcomes = [(0, 0, 0), (0, 1, 2), (1, 2, 2), (1, 0, 1)]
    scored = greedy_scoring_on(policy, scoring)([rollout(policy, *o) for o in outcomes])
    raw = torch.stack([rewards[o] for o in outcomes])
    best = torch.stack([rewards[most_probable(policy, x)] for x in (0, 1)])
    wanted = 2.0 * (best - raw.mean()) / raw.std(correction=0)
    assert wanted.mean().abs() > 0.1
    torch.testing.assert_close(scored.baseline_B, wanted[[0, 0, 1, 1]].double(), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------ REINFORCE++


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_reinforce_pp_is_its_definition(world, moved, tmp_path, gamma):
    """Off-policy: returns-to-go of score and KL, one scale over the batch's tokens, PPO's clip, mean over tokens."""
    policy, reference, _ = world
    old, ref = logs(policy), logs(reference)
    earned = []
    for row, score in enumerate(SCORES):
        to_go, tokens = 0.0, []
        for t in reversed(range(len(old[row]))):
            last = t == len(old[row]) - 1
            to_go = (score if last else 0.0) - BETA * (old[row][t] - ref[row][t]).item() + gamma * to_go
            tokens.insert(0, to_go)
        earned.append(tokens)
    gains = [
        [clipped(n - o.detach(), a, 0.2, 0.8) for n, o, a in zip(*rows, strict=True)]
        for rows in zip(logs(moved), old, whitened(earned), strict=True)
    ]
    algorithm = ReinforcePP(gamma=gamma, clip_low=0.2, clip_high=0.8)
    got = gradient_at(moved, algorithm, scored_of(policy, reference, kl_coef=BETA), tmp_path)
    torch.testing.assert_close(got, minus(moved, token_mean(gains)), rtol=1e-5, atol=1e-7)


def test_reinforce_pp_with_baseline_is_its_definition(world, moved, tmp_path):
    """Group mean off, one scale over the tokens of the batch, PPO's clip, and k2 under the ratio as a constant."""
    policy, reference, _ = world
    old, ref, new = logs(policy), logs(reference), logs(moved)
    centred = centred_in_groups(SCORES, scale=False)
    spread = whitened([[a] * len(tokens) for a, tokens in zip(centred, old, strict=True)])
    gains = [
        [
            clipped(n - o.detach(), a, 0.2, 0.2) - BETA * (n - o).exp().detach() * (n - r.detach()).square() / 2
            for n, o, r, a in zip(*rows, strict=True)
        ]
        for rows in zip(new, old, ref, spread, strict=True)
    ]
    got = gradient_at(moved, ReinforcePPBaseline(), scored_of(policy, reference, kl_coef=BETA), tmp_path)
    torch.testing.assert_close(got, minus(moved, token_mean(gains)), rtol=1e-5, atol=1e-7)


def test_reinforce_pp_with_baseline_leaves_lone_responses_out_of_the_scale(world):
    policy, reference, _ = world
    alone = [(1, (0, 0)), *ROWS[:3]]
    scored = scored_of(policy, reference, kl_coef=0.0, rows=alone, scores=[5.0, *SCORES[:3]])
    experience = ReinforcePPBaseline().experience(scored)
    assert (experience.advantages_BT[0] == 0).all()
    others = ReinforcePPBaseline().experience(
        scored_of(policy, reference, kl_coef=0.0, rows=ROWS[:3], scores=SCORES[:3])
    )
    torch.testing.assert_close(experience.advantages_BT[1:], others.advantages_BT)
    assert experience.metrics["group/no_signal"].value == 0.5


# ------------------------------------------------------------------------------------------------ CISPO and GRPO


def test_cispo_is_its_definition(world, moved, tmp_path):
    """The weight is bounded on both sides and is a constant; tokens beyond the bound keep their gradient."""
    policy, reference, _ = world
    old, new = logs(policy), logs(moved)
    gains, bounded = [], 0
    for n_row, o_row, a in zip(new, old, centred_in_groups(SCORES, scale=True), strict=True):
        weights = [(n - o).exp().item() for n, o in zip(n_row, o_row, strict=True)]
        bounded += sum(not 0.7 < w < 1.4 for w in weights)
        gains.append([min(max(w, 0.7), 1.4) * a * n for w, n in zip(weights, n_row, strict=True)])
    assert 0 < bounded < sum(map(len, new)), "the clip must have something to do, and not everything"
    algorithm = CISPO(clip_low=0.3, clip_high=0.4)
    got = gradient_at(moved, algorithm, scored_of(policy, reference, kl_coef=0.0), tmp_path)
    torch.testing.assert_close(got, minus(moved, token_mean(gains)), rtol=1e-5, atol=1e-7)


def test_on_policy_cispo_is_grpo(world, tmp_path):
    policy, reference, _ = world
    scored = scored_of(policy, reference, kl_coef=BETA)
    cispo, grpo = (gradient_at(policy, a, scored, tmp_path) for a in (CISPO(), GRPO(reduction=TokenMean())))
    torch.testing.assert_close(cispo, grpo, rtol=1e-9, atol=1e-12)


def variant(name, new, old):
    """Gain of the whole batch as each paper writes it."""
    scale, low, high = {"dr_grpo": (False, 0.2, 0.2), "dapo": (True, 0.2, 0.28), "gspo": (True, 0.05, 0.08)}[name]
    gains = []
    for n_row, o_row, a in zip(new, old, centred_in_groups(SCORES, scale=scale), strict=True):
        ratios = [n - o.detach() for n, o in zip(n_row, o_row, strict=True)]
        if name == "gspo":
            gains.append([clipped(sum(ratios) / len(ratios), a, low, high)] * len(ratios))
        else:
            gains.append([clipped(r, a, low, high) for r in ratios])
    if name == "dapo":
        return token_mean(gains)
    if name == "dr_grpo":
        return sum(map(sum, gains)) / (len(gains) * 5)
    return sum(sum(g) / len(g) for g in gains) / len(gains)


VARIANTS = {
    "dr_grpo": GRPO(scale_by_std=False, reduction=ConstantLength(5)),
    "dapo": GRPO(clip_high=0.28, reduction=TokenMean()),
    "gspo": GRPO(sequence_ratio=True, clip_low=0.05, clip_high=0.08, reduction=SequenceMean()),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_of_grpo_is_its_paper_s(world, moved, tmp_path, name):
    """Off-policy, responses of unequal length, groups of unequal size."""
    policy, reference, _ = world
    wanted = minus(moved, variant(name, logs(moved), logs(policy)))
    scored = scored_of(policy, reference, kl_coef=0.0)
    got = gradient_at(moved, VARIANTS[name], scored, tmp_path)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)
    others = [gradient_at(moved, a, scored, tmp_path) for n, a in VARIANTS.items() if n != name]
    assert all((got - other).abs().max() > 1e-3 for other in others), "the variants could not be told apart here"


# ------------------------------------------------------------------------------------------------ leashes


@pytest.mark.parametrize("leash", [K2InLoss(), K3InLoss(), ExactInLoss()], ids=lambda leash: leash.name)
@pytest.mark.parametrize("on_policy", [True, False])
def test_in_the_loss_every_leash_has_the_gradient_of_the_divergence(world, moved, tmp_path, leash, on_policy):
    """Of KL(policy || reference) in the states that the sampler visits; with equal scores nothing else is left."""
    policy, reference, rewards = world
    at = policy if on_policy else moved
    algorithm = GRPO(scale_by_std=False, reduction=ConstantLength(RESPONSE_LENGTH), leash=leash)
    score = scoring_on(policy, reference, torch.zeros_like(rewards))
    learner, total = learner_on(at, tmp_path), torch.zeros_like(at.logits_XSV)
    learner.forward = TableForward(at, reference)
    for probability, pair in every_pair(policy):
        total += probability * learner.gradients(algorithm.experience(score(pair)), algorithm)["policy.logits_XSV"]
    divergences = token_divergences(at, reference, policy) * BETA / RESPONSE_LENGTH
    (exact,) = torch.autograd.grad(divergences, at.logits_XSV)
    torch.testing.assert_close(total, exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("algorithm", [GRPO, CISPO])
def test_in_the_reward_the_leash_is_that_of_the_sequence(world, tmp_path, algorithm):
    """The objective itself, (K - 1) / K of it since the group's mean holds the response: the same for score and KL."""
    policy, reference, rewards = world
    made = algorithm(scale_by_std=False, reduction=ConstantLength(1), leash=KLInReward())
    (exact,) = torch.autograd.grad(-0.5 * objective(policy, reference, rewards), policy.logits_XSV)
    torch.testing.assert_close(expected_gradient(made, world, tmp_path), exact, rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------------------------------ the sampler


def test_the_correction_weighs_each_token_s_loss_by_the_capped_ratio(world, moved, tmp_path):
    """Samples of another policy; the weight bounds from above alone, and the KL term has it too."""
    policy, reference, _ = world
    sampler, cap = Tables(PROMPTS, V, seed=11), 1.5
    scored = scored_of(policy, reference, kl_coef=BETA, sampler=sampler)
    old, ref, new, drawn = logs(policy), logs(reference), logs(moved), logs(sampler)
    gains, capped = [], 0
    for n_row, o_row, r_row, d_row, a in zip(new, old, ref, drawn, centred_in_groups(SCORES, scale=True), strict=True):
        row = []
        for n, o, r, d in zip(n_row, o_row, r_row, d_row, strict=True):
            weight = min((o - d).exp().item(), cap)
            capped += weight == cap
            rho, k3 = (n - o.detach()).exp(), (r.detach() - n).exp() - 1 + (n - r.detach())
            row.append(weight * (clipped(n - o.detach(), a, 0.2, 0.2) - BETA * rho * k3))
        gains.append(row)
    assert 0 < capped < sum(map(len, new))
    algorithm = GRPO(reduction=TokenMean(), importance_cap=cap)
    got = gradient_at(moved, algorithm, scored, tmp_path)
    torch.testing.assert_close(got, minus(moved, token_mean(gains)), rtol=1e-5, atol=1e-7)
    metrics = algorithm.experience(scored).metrics
    assert metrics["importance/capped"].value == pytest.approx(capped / sum(map(len, new)))


CORRECTED = [RLOO, GRPO, Reinforce, ReinforcePP, ReinforcePPBaseline, CISPO]


@pytest.mark.parametrize("algorithm", CORRECTED, ids=lambda a: a.__name__)
def test_every_policy_gradient_takes_the_correction(world, tmp_path, algorithm):
    """Weights of 1 where the sampler was the policy; elsewhere each token's part of the gradient times its weight."""
    policy, reference, _ = world
    same = scored_of(policy, reference, kl_coef=BETA)
    plain = gradient_at(policy, algorithm(), same, tmp_path)
    torch.testing.assert_close(gradient_at(policy, algorithm(importance_cap=2.0), same, tmp_path), plain)
    sampler = Tables(PROMPTS, V, seed=11)
    other = scored_of(policy, reference, kl_coef=BETA, sampler=sampler)
    corrected, uncorrected = algorithm(importance_cap=1.5).experience(other), algorithm().experience(other)
    drawn = [[n.item() for n in row] for row in logs(sampler)]
    losses, plain_losses = (algorithm().loss(e, TableForward(policy)).per_item for e in (corrected, uncorrected))
    for row, (old, tokens) in enumerate(zip(logs(policy), drawn, strict=True)):
        for t, (o, d) in enumerate(zip(old, tokens, strict=True)):
            weight = min((o - d).exp().item(), 1.5)
            expected = uncorrected.weights_BT[row, t].item() * weight
            assert corrected.weights_BT[row, t].item() == pytest.approx(expected)
            assert losses[row, t].item() == pytest.approx(weight * plain_losses[row, t].item())
    assert corrected.denominator == uncorrected.denominator


def test_ppo_corrects_the_surrogate_and_leaves_the_critic_alone(world, moved, tmp_path):
    policy, reference, _ = world
    sampler = Tables(PROMPTS, V, seed=11)
    plain = scored_of(policy, reference, kl_coef=BETA, sampler=sampler)
    values = torch.where(plain.mask_BT, torch.linspace(-1, 1, plain.mask_BT.numel()).view(plain.mask_BT.shape), 0.0)
    scored = CriticScored(**vars(plain), values_BT=values.double())
    corrected, uncorrected = (PPO(importance_cap=cap, dual_clip=3.0) for cap in (1.5, None))
    ours, theirs = corrected.experience(scored), uncorrected.experience(scored)
    assert torch.equal(ours.returns_BT, theirs.returns_BT)
    surrogate = [
        a.loss(e, TableForward(moved)).per_item
        - a.value_coef * a._value_loss(TableForward(moved).values(e.sequences), e)
        for a, e in ((corrected, ours), (uncorrected, theirs))
    ]
    drawn, old = logs(sampler), logs(policy)
    for row, tokens in enumerate(old):
        for t, o in enumerate(tokens):
            weight = min((o - drawn[row][t]).exp().item(), 1.5)
            assert surrogate[0][row, t].item() == pytest.approx(weight * surrogate[1][row, t].item(), rel=1e-5)


# ------------------------------------------------------------------------------------------------ online DPO


def log_ratios(tables, reference):
    """h of every response, [X, V, V]."""
    return tables.distribution().log() - reference.distribution().detach().log()


@pytest.mark.parametrize("soft", [False, True])
def test_online_dpo_gradient_over_every_pair_of_samples(world, tmp_path, soft):
    """Each pair that the policy may sample, ordered by the true rewards; sampling is held fixed."""
    policy, reference, rewards = world
    rewards = rewards.clone()
    rewards[0, 0, 0] = rewards[0, 2, 1] = 0.25
    algorithm, total, ties = OnlineDPO(soft_labels=soft), torch.zeros_like(policy.logits_XSV), 0
    score, learner = scoring_on(policy, reference, rewards), learner_on(policy, tmp_path)
    h, wanted = log_ratios(policy, reference), torch.zeros((), dtype=torch.float64)
    for probability, pair in every_pair(policy):
        a, b = ((r.prompt.token_ids[0], *r.token_ids) for r in pair)
        if rewards[a] == rewards[b]:
            ties += 1
            if not soft:
                with pytest.raises(ValueError, match="no prompt of this batch gives a pair; got 1 ties"):
                    algorithm.experience(score(pair))
                continue
        best, worst = (a, b) if rewards[a] >= rewards[b] else (b, a)
        target = torch.sigmoid(rewards[best] - rewards[worst]) if soft else 1.0
        apart = BETA * (h[best] - h[worst])
        wanted = wanted + probability * (target * apart.sigmoid().log() + (1 - target) * (-apart).sigmoid().log())
        experience = algorithm.experience(score(pair))
        total += probability * gradient_of(policy, lambda e=experience: learner.update(e, algorithm))
    assert ties == 2 * V * V + 2, "two of a kind, and the two that were made equal"
    torch.testing.assert_close(total, minus(policy, wanted), rtol=1e-5, atol=1e-7)


def test_online_dpo_pairs_the_best_with_the_worst(world):
    """Groups of four and of three; the pair carries its own reference and old log-probabilities, trimmed to length."""
    policy, reference, _ = world
    scored = scored_of(policy, reference, kl_coef=BETA)
    experience = OnlineDPO().experience(scored)
    ids = experience.sequences.response_ids_BT.tolist()
    lengths = experience.sequences.response_lengths_B.tolist()
    best_and_worst = [ROWS[i][1] for i in (0, 1, 3, 5)]
    assert [tuple(row[:n]) for row, n in zip(ids, lengths, strict=True)] == best_and_worst
    order = torch.tensor([0, 1, 3, 5])
    torch.testing.assert_close(experience.ref_logprobs_B, scored.ref_logprobs_BT[order].sum(1))
    assert torch.equal(experience.old_logprobs_BT, scored.old_logprobs_BT[order])
    assert experience.metrics["pair/score_gap"].value == pytest.approx((1.1 + 2.2) / 2)
    assert experience.metrics["group/no_signal"].value == 0.0
    second = experience.select(torch.tensor([1]))
    assert torch.equal(second.ref_logprobs_B, experience.ref_logprobs_B[2:])
    assert second.beta == BETA and second.denominator == 1


def test_online_dpo_counts_ties_and_lone_responses(world):
    policy, reference, _ = world
    scores = [0.5, 0.5, 0.5, 1.0, 0.0, 0.5, 0.5]
    mixed = OnlineDPO().experience(scored_of(policy, reference, kl_coef=BETA, scores=scores))
    assert len(mixed) == 1 and mixed.metrics["group/no_signal"].value == 0.5
    soft = OnlineDPO(soft_labels=True).experience(scored_of(policy, reference, kl_coef=BETA, scores=scores))
    assert soft.target_P.tolist() == pytest.approx([0.5, torch.sigmoid(torch.tensor(1.0)).item()])
    lone = scored_of(policy, reference, kl_coef=BETA, rows=ROWS[:4], scores=scores[1:5])
    assert OnlineDPO().experience(lone).metrics["group/no_signal"].value == 0.5
    with pytest.raises(ValueError, match="beta is the KL coefficient"):
        OnlineDPO().experience(scored_of(policy, reference, kl_coef=0.0))


def test_at_the_optimum_soft_labels_stand_still(world, tmp_path):
    """Every pair alone, so under any sampling: log-ratios that are the rewards over beta leave no gradient."""
    policy, reference, rewards = world
    best = (reference.distribution().detach().log() + rewards / BETA).flatten(1).softmax(-1).view_as(rewards)
    with torch.no_grad():
        policy.logits_XSV[:, 0] = best.sum(-1).log()
        policy.logits_XSV[:, 1:] = best.log()
    score, soft, hard = scoring_on(policy, reference, rewards), OnlineDPO(soft_labels=True), OnlineDPO()
    pair = [rollout(policy, 0, 0, 1), rollout(policy, 0, 2, 2)]
    assert (
        learner_on(policy, tmp_path).gradients(soft.experience(score(pair)), soft)["policy.logits_XSV"].abs().max()
        < 1e-6
    )
    assert (
        learner_on(policy, tmp_path).gradients(hard.experience(score(pair)), hard)["policy.logits_XSV"].abs().max()
        > 0.01
    )
