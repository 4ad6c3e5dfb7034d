"""Direct alignment: gradients against autograd on the definitions, optima at infinite data, and what a batch holds."""

import math
from collections.abc import Callable

import pytest
import torch
from test_enumeration import gradient_of, learner_on

from assent.algorithms.dpo import DPO
from assent.algorithms.ipo import IPO
from assent.algorithms.orpo import ORPO
from assent.algorithms.simpo import SimPO
from assent.data.batches import ComparisonExample, PairBatches, PairExample, Pairs, pair_batch
from assent.evals.toy_world import TableForward, Tables
from assent.records import Preference
from assent.stages.verify import pairs as claims
from assent.types import PairBatch, ReferencedPairBatch, Sequences

PAIRS = [((0, 1, 2), (0, 2)), ((0, 0), (0, 1, 1)), ((1, 2, 0), (1, 0, 0)), ((1, 1), (1, 2)), ((1, 0), (1, 2, 2))]
"""Prompt and response of the preferred and of the other side; responses of one and two tokens."""


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


CASES = {
    "dpo": (DPO(beta=0.4), dpo(0.4)),
    "cdpo": (DPO(beta=0.4, label_smoothing=0.2), dpo(0.4, 0.2)),
    "dpo with nll": (DPO(beta=0.4, nll_weight=0.7), dpo(0.4, nll=0.7)),
    "ipo": (IPO(beta=0.3), ipo),
    "simpo": (SimPO(beta=2.5, gamma=0.7), simpo),
    "orpo": (ORPO(weight=0.3), orpo),
}


def batch_of(reference: Tables | None) -> PairBatch:
    examples = [PairExample([w[0]], list(w[1:]), list(r[1:])) for w, r in PAIRS]
    if reference is None:
        return pair_batch(examples)
    with torch.no_grad():
        known = torch.tensor([[log_of(reference, side).item() for side in pair] for pair in PAIRS], dtype=torch.float64)
    return pair_batch(examples, known)


@pytest.mark.parametrize(("algorithm", "definition"), CASES.values(), ids=[c.replace(" ", "_") for c in CASES])
@pytest.mark.parametrize("token_budget", [5, 1000])
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


@pytest.mark.parametrize("claim", [claims.dpo, claims.ipo], ids=["dpo", "ipo"])
def test_every_pair_in_its_true_proportion_leads_to_the_known_optimum(claim):
    verdict = claim()
    assert verdict.start > 0.2
    assert verdict.distance < 2e-3, "nothing is sampled here, so that nothing but the optimiser's last step is left"
    assert verdict.arrived


def test_dpo_begins_at_ln_2_where_the_reference_is_the_policy():
    policy = Tables(2, 3, seed=1)
    metrics = DPO().loss(batch_of(policy), TableForward(policy)).metrics
    assert metrics["loss/preference"].value == pytest.approx(math.log(2), abs=1e-12)
    assert metrics["implicit_reward/accuracy"].value == pytest.approx(0.5, abs=0.5)
    assert metrics["logprobs/chosen_shift"].value == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo", "orpo"])
def test_the_metrics_are_those_of_the_implicit_rewards(name):
    algorithm, _ = CASES[name]
    policy, reference = Tables(2, 3, seed=1), Tables(2, 3, seed=2)
    batch = batch_of(reference if algorithm.uses_reference else None)
    metrics = algorithm.loss(batch, TableForward(policy)).metrics
    rewards = algorithm.implicit_rewards(batch, TableForward(policy)).detach().view(-1, 2)
    expected = {
        "dpo": lambda row: 0.4 * (log_of(policy, row) - log_of(reference, row)),
        "ipo": lambda row: 0.3 * (mean_of(policy, row) - mean_of(reference, row)),
        "simpo": lambda row: 2.5 * mean_of(policy, row),
        "orpo": lambda row: mean_of(policy, row),
    }[name]
    wanted = torch.tensor([[expected(side).item() for side in pair] for pair in PAIRS], dtype=torch.float64)
    torch.testing.assert_close(rewards, wanted)
    assert metrics["implicit_reward/margin"].value == pytest.approx((wanted[:, 0] - wanted[:, 1]).mean().item())
    accuracy = (wanted[:, 0] > wanted[:, 1]).double().mean().item()
    assert metrics["implicit_reward/accuracy"].value == pytest.approx(accuracy) and 0 < accuracy < 1
    chosen = sum(log_of(policy, w).item() for w, _ in PAIRS) / len(PAIRS)
    assert metrics["logprobs/chosen"].value == pytest.approx(chosen)


def test_every_strictly_ordered_pair_is_taken_and_the_rest_counted():
    comparison = ComparisonExample(
        [7],
        [[1], [2], [2], [3]],
        [Preference(0, 1), Preference(3, 0), Preference(1, 2), Preference(0, 2, tie=True), Preference(3, 2)],
    )
    pairs = Pairs.of([comparison])
    assert [(list(e.chosen_ids), list(e.rejected_ids)) for e in pairs.examples] == [([1], [2]), ([3], [1]), ([3], [2])]
    assert (pairs.ties, pairs.identical) == (1, 1)
    assert "3 ordered pairs; 1 ties and 1 pairs of identical responses left out" in str(pairs)


def test_reference_log_probabilities_stay_with_their_pair():
    examples = [PairExample([i], [i, 1], [i, 2, 3]) for i in range(9)]
    known = torch.tensor([[10.0 * i, 10.0 * i + 1] for i in range(9)])
    for _, batch in PairBatches(examples, known, batch_size=4, epochs=2, seed=3):
        assert isinstance(batch, ReferencedPairBatch)
        part = batch.select(torch.tensor([len(batch) - 1, 0]))
        for some in (batch, part):
            prompts = some.sequences.token_ids_BL[:, 0].view(-1, 2)
            assert torch.equal(some.ref_logprobs_B.view(-1, 2), known[prompts[:, 0]])
            assert torch.equal(some.sequences.response_lengths_B.view(-1, 2)[0], torch.tensor([2, 3]))


def test_what_is_no_pair_is_refused():
    three = Sequences.of([[0]] * 3, [[1]] * 3)
    with pytest.raises(ValueError, match="two rows each"):
        PairBatch(three)
    with pytest.raises(ValueError, match="one reference log-probability per row"):
        ReferencedPairBatch(three.select(torch.tensor([0, 1])), torch.zeros(1))
