"""Direct alignment on pairs: gradients against autograd on the definitions, and optima at infinite data."""

import math
from collections.abc import Callable

import pytest
import torch
from small_world import gradient_of, learner_on

from assent.algorithms.apo_down import APODown
from assent.algorithms.apo_zero import APOZero
from assent.algorithms.cpo import CPO
from assent.algorithms.dpo import DPO
from assent.algorithms.hinge import Hinge
from assent.algorithms.ipo import IPO
from assent.algorithms.orpo import ORPO
from assent.algorithms.robust_dpo import RobustDPO
from assent.algorithms.simpo import SimPO
from assent.data.judged import Compared, Pairs, Response, pair_batch, rows_of
from assent.evals.toy_world import TableForward, Tables
from assent.records import Preference
from assent.stages.verify import pairs as claims
from assent.types import PairBatch

RANKED = {0: [(1, 2), (2,), (0, 1), (1,)], 1: [(2, 0), (0, 0), (1,)]}
"""The responses to each prompt, of one and two tokens, the best first."""

PAIRS = [((x, *w), (x, *r)) for x, listed in RANKED.items() for i, w in enumerate(listed) for r in listed[i + 1 :]]
"""Prompt and response of the preferred and of the other side: every pair of both rankings."""


def log_of(tables: Tables, row: tuple[int, ...]) -> torch.Tensor:
    """log P(response | prompt), from the tables alone."""
    states = [0, *(1 + token for token in row[1:-1])]
    log = tables.logits_XSV[row[0]].log_softmax(-1)
    return torch.stack([log[s, t] for s, t in zip(states, row[1:], strict=True)]).sum()


def mean_of(tables: Tables, row: tuple[int, ...]) -> torch.Tensor:
    return log_of(tables, row) / (len(row) - 1)


Definition = Callable[[Tables, Tables, tuple[int, ...], tuple[int, ...]], torch.Tensor]


def dpo(beta: float, smoothing: float = 0.0, nll: float = 0.0) -> Definition:
    def of(policy, reference, w, l):  # noqa: E741
        gap = beta * (log_of(policy, w) - log_of(reference, w) - log_of(policy, l) + log_of(reference, l))
        kept = (1 - smoothing) * (1 / (1 + (-gap).exp())).log() + smoothing * (1 / (1 + gap.exp())).log()
        return -kept - nll * mean_of(policy, w)

    return of


def ipo(policy, reference, w, l):  # noqa: E741
    gap = mean_of(policy, w) - mean_of(reference, w) - mean_of(policy, l) + mean_of(reference, l)
    return (gap - 1 / (2 * 0.3)) ** 2


def simpo(policy, reference, w, l):  # noqa: E741
    return (1 + (0.7 - 2.5 * (mean_of(policy, w) - mean_of(policy, l))).exp()).log()


def orpo(policy, reference, w, l):  # noqa: E741
    good, bad = mean_of(policy, w).exp(), mean_of(policy, l).exp()
    ratio = good / (1 - good) / (bad / (1 - bad))
    return -mean_of(policy, w) - 0.3 * (ratio / (1 + ratio)).log()


def gap(policy, reference, w, l):  # noqa: E741
    return log_of(policy, w) - log_of(reference, w) - log_of(policy, l) + log_of(reference, l)


def sigmoid(x):
    return 1 / (1 + (-x).exp())


def normalised(policy, reference, w, l):  # noqa: E741
    difference = mean_of(policy, w) - mean_of(reference, w) - mean_of(policy, l) + mean_of(reference, l)
    return -sigmoid(5 * difference).log()


def robust(policy, reference, w, l):  # noqa: E741
    d = 0.4 * gap(policy, reference, w, l)
    return (-0.7 * sigmoid(d).log() + 0.3 * sigmoid(-d).log()) / 0.4


def hinge(policy, reference, w, l):  # noqa: E741
    d = 1 - 0.4 * gap(policy, reference, w, l)
    return 0.9 * torch.clamp(d, min=0) + 0.1 * torch.clamp(2 - d, min=0)


def apo_zero(policy, reference, w, l):  # noqa: E741
    up, down = (0.4 * (log_of(policy, y) - log_of(reference, y)) for y in (w, l))
    return 1 - sigmoid(up) + sigmoid(down)


def apo_down(policy, reference, w, l):  # noqa: E741
    up = 0.4 * (log_of(policy, w) - log_of(reference, w))
    return sigmoid(up) + 1 - sigmoid(0.4 * gap(policy, reference, w, l))


def cpo(policy, reference, w, l):  # noqa: E741
    return -sigmoid(0.4 * (log_of(policy, w) - log_of(policy, l))).log() - 0.6 * mean_of(policy, w)


def simpo_held_up(policy, reference, w, l):  # noqa: E741
    return simpo(policy, reference, w, l) - 0.5 * mean_of(policy, w)


CASES = {
    "dpo": (DPO(beta=0.4), dpo(0.4)),
    "cdpo": (DPO(beta=0.4, label_smoothing=0.2), dpo(0.4, 0.2)),
    "dpo with nll": (DPO(beta=0.4, nll_weight=0.7), dpo(0.4, nll=0.7)),
    "dpo length-normalised": (DPO(beta=5.0, length_normalised=True), normalised),
    "robust dpo": (RobustDPO(beta=0.4, flip_probability=0.3), robust),
    "ipo": (IPO(beta=0.3), ipo),
    "hinge": (Hinge(beta=0.4, label_smoothing=0.1), hinge),
    "apo zero": (APOZero(beta=0.4), apo_zero),
    "apo down": (APODown(beta=0.4), apo_down),
    "simpo": (SimPO(beta=2.5, gamma=0.7), simpo),
    "simpo with nll": (SimPO(beta=2.5, gamma=0.7, nll_weight=0.5), simpo_held_up),
    "cpo": (CPO(beta=0.4, nll_weight=0.6), cpo),
    "orpo": (ORPO(weight=0.3), orpo),
}


def units():
    """Both rankings, tokenised: a prompt is itself its token."""
    made = []
    for x, listed in RANKED.items():
        order = [Preference(i, j) for i in range(len(listed)) for j in range(i + 1, len(listed))]
        made.append(Compared((x,), tuple(Response.whole(r) for r in listed), tuple(order)))
    return Pairs.of(made).units


def batch_of(reference: Tables | None) -> PairBatch:
    if reference is None:
        return pair_batch(units())
    rows = [(*prompt, *response.token_ids) for prompt, response in rows_of(units())]
    with torch.no_grad():
        known = torch.tensor([log_of(reference, row).item() for row in rows], dtype=torch.float64)
    return pair_batch(units(), known)


@pytest.mark.parametrize(("algorithm", "definition"), CASES.values(), ids=[c.replace(" ", "_") for c in CASES])
@pytest.mark.parametrize("token_budget", [1, 1000])
def test_the_gradient_is_that_of_the_definition(tmp_path, algorithm, definition, token_budget):
    """Through the real learner, in one micro-batch and in several; the policy is not its reference."""
    policy, reference = Tables(2, 3, seed=1), Tables(2, 3, seed=2)
    batch = batch_of(reference if algorithm.uses_reference else None)
    exact = torch.stack([definition(policy, reference, w, r) for w, r in PAIRS]).mean()
    learner = learner_on(policy, tmp_path, token_budget=token_budget)
    gradient = gradient_of(policy, lambda: learner.step(batch, algorithm))
    (wanted,) = torch.autograd.grad(exact, policy.logits_XSV)
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-9)
    assert algorithm.loss(batch, TableForward(policy)).sum().item() / len(PAIRS) == pytest.approx(exact.item())


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda c: c.__name__)
def test_every_pair_in_its_true_proportion_leads_to_the_known_optimum(claim):
    verdict = claim()
    assert verdict.start > 0.2
    assert verdict.distance < verdict.tolerance / 10, (
        "nothing is sampled here, so that nothing but the optimiser's last step is left"
    )
    assert verdict.arrived


def test_cdpo_on_flipped_labels_does_not_arrive_where_robust_dpo_does():
    """What the smoothing is not: it aims at labels that are right and not believed, not at wrong ones."""
    fooled = claims.flipped(DPO(beta=claims.KL_COEF, label_smoothing=0.2))
    assert fooled.distance > 2 * fooled.tolerance
    plain = claims.flipped(DPO(beta=claims.KL_COEF))
    assert plain.distance > 2 * plain.tolerance


def test_dpo_begins_at_ln_2_where_the_reference_is_the_policy():
    policy = Tables(2, 3, seed=1)
    metrics = DPO().loss(batch_of(policy), TableForward(policy)).metrics
    assert metrics["loss/preference"].value == pytest.approx(math.log(2), abs=1e-12)
    assert metrics["implicit_reward/accuracy"].value == pytest.approx(0.5, abs=1e-12)
    assert metrics["logprobs/chosen_shift"].value == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_metrics_are_those_of_the_implicit_rewards(name):
    algorithm, definition = CASES[name]
    policy, reference = Tables(2, 3, seed=1), Tables(2, 3, seed=2)
    batch = batch_of(reference if algorithm.uses_reference else None)
    metrics = algorithm.loss(batch, TableForward(policy)).metrics
    rewards = torch.stack(batch.sides(algorithm.implicit_rewards(batch, TableForward(policy)).detach()), 1)
    expected = {
        "dpo length-normalised": lambda row: 5 * (mean_of(policy, row) - mean_of(reference, row)),
        "ipo": lambda row: 0.3 * (mean_of(policy, row) - mean_of(reference, row)),
        "simpo": lambda row: 2.5 * mean_of(policy, row),
        "simpo with nll": lambda row: 2.5 * mean_of(policy, row),
        "cpo": lambda row: 0.4 * log_of(policy, row),
        "orpo": lambda row: mean_of(policy, row),
    }.get(name, lambda row: 0.4 * (log_of(policy, row) - log_of(reference, row)))
    wanted = torch.tensor([[expected(side).item() for side in pair] for pair in PAIRS], dtype=torch.float64)
    torch.testing.assert_close(rewards, wanted)
    assert metrics["implicit_reward/margin"].value == pytest.approx((wanted[:, 0] - wanted[:, 1]).mean().item())
    assert metrics["implicit_reward/chosen"].value == pytest.approx(wanted[:, 0].mean().item())
    accuracy = (wanted[:, 0] > wanted[:, 1]).double().mean().item()
    assert metrics["implicit_reward/accuracy"].value == pytest.approx(accuracy) and accuracy not in (0, 0.5, 1)
    exact = torch.stack([definition(policy, reference, w, r) for w, r in PAIRS]).mean().item()
    assert metrics["loss/preference"].value == pytest.approx(exact)
    for side, name in enumerate(("chosen", "rejected")):
        logs = [log_of(policy, pair[side]).item() for pair in PAIRS]
        assert metrics[f"logprobs/{name}"].value == pytest.approx(sum(logs) / len(PAIRS))
        if algorithm.uses_reference:
            moved = [log - log_of(reference, pair[side]).item() for log, pair in zip(logs, PAIRS, strict=True)]
            assert metrics[f"logprobs/{name}_shift"].value == pytest.approx(sum(moved) / len(PAIRS))
