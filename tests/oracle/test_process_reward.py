"""Process reward models: the gradient against autograd on the definition, and dense events through PPO's experience
against the double sum that defines GAE."""

import math

import pytest
import torch
from small_world import BETA, learner_on, made_world

from assent.algorithms.ppo import PPO
from assent.algorithms.process_reward import ProcessReward
from assent.data.steps import StepExample, step_batch
from assent.evals.toy_world import TableForward, rollout
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping, WeightedScorer
from assent.types import ScoreEvent

SOLUTIONS = [((0, 1, 2), (1.0, 0.0)), ((0, 0, 1), (None, 0.3)), ((1, 2, 0), (0.7, None)), ((1, 1), (0.0,))]
"""Prompt and response tokens, and the label of each step: a step is one token here."""


@pytest.mark.parametrize("token_budget", [3, 1000])
def test_the_gradient_is_that_of_the_definition(tmp_path, token_budget):
    """In one micro-batch and in several: five labelled steps, one denominator."""
    tables, _, _ = made_world()
    with torch.no_grad():
        tables.scores_XVV.normal_(generator=torch.Generator().manual_seed(5))
    before = {n: p.detach().clone().requires_grad_() for n, p in tables.named_parameters()}
    batch = step_batch([StepExample(r[:1], r[1:], range(len(r) - 1), labels) for r, labels in SOLUTIONS])
    assert batch.denominator == 5.0
    learner_on(tables, tmp_path, token_budget=token_budget).step(batch, ProcessReward())

    def logit(row, t):
        return before["values_XS"][row[0], 1 + row[1]] if t == 0 else before["scores_XVV"][row]

    losses = [
        -y * logit(row, t).sigmoid().log() - (1 - y) * (1 - logit(row, t).sigmoid()).log()
        for row, labels in SOLUTIONS
        for t, y in enumerate(labels)
        if y is not None
    ]
    names = ("values_XS", "scores_XVV")
    wanted = torch.autograd.grad(torch.stack(losses).mean(), [before[n] for n in names])
    for name, exact in zip(names, wanted, strict=True):
        moved = before[name].detach() - dict(tables.named_parameters())[name].detach()
        torch.testing.assert_close(moved, exact, rtol=1e-6, atol=1e-7)
    assert torch.equal(tables.logits_XSV, before["logits_XSV"]), "the policy's table has no part in it"


class Dense:
    """An event on every token, as a process reward model gives them."""

    name = "dense"

    def __init__(self, values: dict[tuple[int, ...], tuple[float, ...]]) -> None:
        self.values = values

    def score(self, rollouts):
        return [
            tuple(ScoreEvent(t, v) for t, v in enumerate(self.values[(r.prompt.token_ids[0], *r.token_ids)]))
            for r in rollouts
        ]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0)])
def test_dense_events_reach_the_advantages_as_their_definition_says(gamma, lam):
    """reward_t = event_t - beta log(pi / ref), A_t = sum_k (gamma lam)^k delta_{t+k}, written out."""
    policy, reference, _ = made_world()
    given = {(0, 1, 2): (0.4, -0.3), (1, 2, 0): (-0.2, 0.9)}
    scoring = CriticScoring(
        RolloutScoring(
            TableForward(policy).logprobs,
            TableForward(reference).logprobs,
            [WeightedScorer(Dense(given))],
            shaping=Shaping(),
            kl_control=KLControl(BETA),
            token_budget=64,
        ),
        TableForward(policy).values,
    )
    scored = scoring([rollout(policy, *row) for row in given])
    made = PPO(gamma=gamma, lam=lam, whiten_advantages=False).experience(scored)
    log, ref = (t.logits_XSV.detach().log_softmax(-1) for t in (policy, reference))
    values = policy.values_XS.detach()
    for b, ((x, first, second), events) in enumerate(given.items()):
        states, tokens = (0, 1 + first), (first, second)
        gaps = [(log - ref)[x, s, a].item() for s, a in zip(states, tokens, strict=True)]
        rewards = [e - BETA * gap for e, gap in zip(events, gaps, strict=True)]
        v = [values[x, s].item() for s in states] + [0.0]
        deltas = [rewards[t] + gamma * v[t + 1] - v[t] for t in range(2)]
        wanted = [deltas[0] + gamma * lam * deltas[1], deltas[1]]
        assert made.advantages_BT[b].tolist() == pytest.approx(wanted, abs=1e-6)
        assert made.returns_BT[b].tolist() == pytest.approx([a + c for a, c in zip(wanted, v, strict=False)], abs=1e-6)


def test_loss_and_figures_are_those_of_the_labelled_steps():
    """By hand, at logits on both sides of 0; a step without a label counts nowhere."""
    tables, _, _ = made_world()
    with torch.no_grad():
        tables.scores_XVV.normal_(generator=torch.Generator().manual_seed(5))
        tables.values_XS.normal_(generator=torch.Generator().manual_seed(6))
    batch = step_batch([StepExample(r[:1], r[1:], range(len(r) - 1), labels) for r, labels in SOLUTIONS])
    loss = ProcessReward().loss(batch, TableForward(tables))
    told = [
        (tables.values_XS[r[0], 1 + r[1]].item() if t == 0 else tables.scores_XVV[r].item(), y)
        for r, labels in SOLUTIONS
        for t, y in enumerate(labels)
        if y is not None
    ]
    assert loss.sum().item() == pytest.approx(sum(math.log1p(math.exp(z)) - y * z for z, y in told))
    right = sum((z > 0) == (y > 0.5) for z, y in told) / len(told)
    assert loss.metrics["steps/accuracy"].value == pytest.approx(right) and right != 0.5
    assert loss.metrics["steps/probability"].value == pytest.approx(sum(1 / (1 + math.exp(-z)) for z, _ in told) / 5)


def test_a_model_that_knows_nothing_begins_at_ln_2():
    tables, _, _ = made_world()
    with torch.no_grad():
        tables.values_XS.zero_()
    batch = step_batch([StepExample(r[:1], r[1:], range(len(r) - 1), labels) for r, labels in SOLUTIONS])
    metrics = ProcessReward().loss(batch, TableForward(tables)).metrics
    assert metrics["loss/steps"].value == pytest.approx(math.log(2))
    assert metrics["steps/probability"].value == pytest.approx(0.5)
    assert metrics["steps/accuracy"].value == pytest.approx(3 / 5), "at a logit of 0 a step is found wrong"
