"""KTO and BCO: gradients against autograd on the definitions, baselines that no split changes, what is carried on."""

import dataclasses
import math

import pytest
import torch
from small_world import gradient_of, learner_on
from test_pairs import RANKED, log_of, sigmoid

from assent.algorithms.bco import BCO
from assent.algorithms.kto import KTO
from assent.data.judged import (
    Called,
    Compared,
    JudgedBatches,
    Response,
    SingleJudgements,
    mismatched,
    mismatched_batch,
    row_ranges,
    rows_of,
    unpaired_batch,
)
from assent.evals.toy_world import TableForward, Tables
from assent.records import Preference
from assent.types import BaselinedBatch, MismatchedBatch, UnpairedBatch

CALLED = [((0,), (0, 0), True), ((0,), (2,), False), ((1,), (2, 1), True), ((1,), (0, 1), False), ((1,), (1, 2), False)]
BETA = 0.4


def judgements() -> SingleJudgements:
    """One ranking as pairs, and thumbs besides."""
    order = (Preference(0, 1), Preference(0, 2), Preference(1, 2))
    ranking = Compared((0,), tuple(Response.whole(r) for r in RANKED[0][:3]), order)
    return SingleJudgements.of([ranking], [Called(x, Response.whole(r), good) for x, r, good in CALLED])


def said() -> list[tuple[tuple[int, ...], bool]]:
    """Every judgement, written out."""
    first, second, third = ((0, *r) for r in RANKED[0][:3])
    pairs = [(first, second), (first, third), (second, third)]
    return [j for w, r in pairs for j in ((w, True), (r, False))] + [((*x, *r), good) for x, r, good in CALLED]


def known(reference: Tables, rows) -> torch.Tensor:
    with torch.no_grad():
        return torch.tensor([log_of(reference, (*x, *r.token_ids)).item() for x, r in rows], dtype=torch.float64)


def kto_batch(reference: Tables) -> MismatchedBatch:
    units = judgements().units
    others = mismatched(units, seed=3)
    return mismatched_batch(units, known(reference, rows_of(units)), others, known(reference, others))


def bco_batch(reference: Tables) -> UnpairedBatch:
    units = judgements().units
    return unpaired_batch(units, known(reference, rows_of(units)))


def moved(policy: Tables, reference: Tables, row: tuple[int, ...]) -> torch.Tensor:
    return log_of(policy, row) - log_of(reference, row)


def worlds(*, start: int = 1) -> tuple[Tables, Tables]:
    return Tables(2, 3, seed=start), Tables(2, 3, seed=2)


def baseline(policy: Tables, reference: Tables) -> float:
    rows = [(*x, *r.token_ids) for x, r in mismatched(judgements().units, seed=3)]
    return max(0.0, sum(moved(policy, reference, row).item() for row in rows) / len(rows))


def test_the_world_has_a_baseline_to_speak_of():
    assert [baseline(*worlds(start=s)) > 0.5 for s in (1, 3, 15)] == [False, True, True]
    assert baseline(*worlds()) == 0, "the mean is below 0, and the baseline is not"


@pytest.mark.parametrize("start", [1, 3, 15])
@pytest.mark.parametrize("token_budget", [1, 7, 1000])
def test_kto_is_its_definition_with_one_baseline_for_the_step(tmp_path, start, token_budget):
    policy, reference = worlds(start=start)
    z = baseline(policy, reference)
    losses = [
        1.4 * (1 - sigmoid(BETA * (moved(policy, reference, row) - z)))
        if good
        else 0.8 * (1 - sigmoid(BETA * (z - moved(policy, reference, row))))
        for row, good in said()
    ]
    (wanted,) = torch.autograd.grad(torch.stack(losses).mean(), policy.logits_XSV)
    algorithm = KTO(beta=BETA, desirable_weight=1.4, undesirable_weight=0.8)
    learner = learner_on(policy, tmp_path, token_budget=token_budget)
    metrics: dict = {}
    gradient = gradient_of(policy, lambda: metrics.update(learner.step(kto_batch(reference), algorithm)))
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-9)
    assert metrics["baseline/kl"].value == pytest.approx(z, abs=1e-12)
    assert metrics["loss/preference"].value == pytest.approx(torch.stack(losses).mean().item())
    liked = [moved(policy, reference, row).item() for row, good in said() if good]
    assert metrics["logprobs/desirable_shift"].value == pytest.approx(sum(liked) / len(liked))
    other = [moved(policy, reference, row).item() for row, good in said() if not good]
    assert metrics["logprobs/undesirable_shift"].value == pytest.approx(sum(other) / len(other))
    assert metrics["implicit_reward/desirable"].value == pytest.approx(BETA * sum(liked) / len(liked))


@pytest.mark.parametrize("token_budget", [1, 7, 1000])
def test_bco_is_its_definition_with_the_mean_of_the_steps_before(tmp_path, token_budget):
    policy, reference = worlds()
    algorithm, batch = BCO(beta=BETA), bco_batch(reference)
    learner = learner_on(policy, tmp_path, token_budget=token_budget)
    seen: dict[bool, list[float]] = {True: [], False: []}
    for step in range(3):
        kinds = [sum(x) / len(x) if x else 0.0 for x in seen.values()]
        delta = sum(kinds) / 2
        assert (delta == 0) == (step == 0)
        rewards = [(BETA * moved(policy, reference, row), good) for row, good in said()]
        losses = [-(sigmoid(r - delta) if good else sigmoid(delta - r)).log() for r, good in rewards]
        (wanted,) = torch.autograd.grad(torch.stack(losses).mean(), policy.logits_XSV)
        before = policy.logits_XSV.detach().clone()
        metrics = learner.step(batch, algorithm)
        torch.testing.assert_close(before - policy.logits_XSV.detach(), wanted, rtol=1e-6, atol=1e-9)
        assert metrics["baseline/reward"].value == pytest.approx(delta, abs=1e-12)
        for r, good in rewards:
            seen[good].append(r.item())


def test_what_bco_carries_is_saved_and_restored(tmp_path):
    """A run that is stopped between two steps goes on as if it had not been."""
    policy, reference = worlds()
    batch, algorithm = bco_batch(reference), BCO(beta=BETA)
    learner = learner_on(policy, tmp_path)
    learner.step(batch, algorithm)
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    expected = learner.step(batch, algorithm)
    other, _ = worlds()
    resumed = learner_on(other, tmp_path)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    found = resumed.step(batch, algorithm)
    assert found["baseline/reward"] == expected["baseline/reward"] and found["baseline/reward"].value != 0
    assert torch.equal(other.logits_XSV, policy.logits_XSV)


def test_looking_at_a_gradient_carries_nothing_on(tmp_path):
    policy, reference = worlds()
    learner = learner_on(policy, tmp_path)
    learner.step(bco_batch(reference), BCO(beta=BETA))
    carried = dict(learner.carried)
    learner.gradients(bco_batch(reference), BCO(beta=BETA), token_budget=1)
    assert learner.carried == carried and carried


@pytest.mark.parametrize("make", [kto_batch, bco_batch], ids=["kto", "bco"])
def test_a_split_keeps_rows_judgements_and_reference_together(make):
    batch = make(worlds()[1])
    whole = {(tuple(ids), good) for ids, good in _judged(batch)}
    parts = [batch.select(torch.tensor([i])) for i in torch.randperm(len(batch)).tolist()]
    assert {j for part in parts for j in _judged(part)} == whole
    assert sum(part.denominator for part in parts) == batch.denominator == len(said())
    for part in parts:
        with torch.no_grad():
            wanted = [log_of(worlds()[1], row).item() for row in _rows(part)]
        assert part.ref_logprobs_B.tolist() == pytest.approx(wanted)


def _rows(batch: UnpairedBatch) -> list[tuple[int, ...]]:
    s = batch.sequences
    return [tuple(ids[:n]) for ids, n in zip(s.token_ids_BL.tolist(), s.lengths_B.tolist(), strict=True)]


def _judged(batch: UnpairedBatch) -> list[tuple[tuple[int, ...], bool]]:
    rows = _rows(batch)
    return [(rows[i], good) for i, good in zip(batch.row_J.tolist(), batch.desirable_J.tolist(), strict=True)]


def test_every_prompt_meets_a_response_to_another_one():
    units = judgements().units
    rows, others = rows_of(units), mismatched(units, seed=0)
    assert [prompt for prompt, _ in others] == [prompt for prompt, _ in rows]
    to = {r: {prompt for prompt, s in rows if s == r} for _, r in rows}
    assert all(to[response] - {prompt} for prompt, response in others)
    assert others == mismatched(units, seed=0) != mismatched(units, seed=1)


def test_mates_stay_with_their_rows_in_a_batch():
    units = judgements().units
    others, ranges = mismatched(units, seed=3), row_ranges(units)
    marks, their_marks = torch.arange(100.0, 100 + len(others)), torch.arange(500.0, 500 + len(others))

    def collate(some):
        rows = [row for i in some for row in ranges[i]]
        return mismatched_batch([units[i] for i in some], marks[rows], [others[r] for r in rows], their_marks[rows])

    for _, batch in JudgedBatches(units, collate, batch_size=2, epochs=2, seed=5):
        for part in (batch, batch.select(torch.tensor([len(batch) - 1]))):
            assert torch.equal(
                part.mismatched_ref_logprobs_B - part.ref_logprobs_B, torch.full((len(part.sequences),), 400.0)
            )
            for i, mark in enumerate(part.ref_logprobs_B.tolist()):
                prompt, response = others[int(mark) - 100]
                n = int(part.mismatched.lengths_B[i])
                assert tuple(part.mismatched.token_ids_BL[i, :n].tolist()) == (*prompt, *response.token_ids)
            assert int(part.costs.max()) >= int(part.mismatched.lengths_B.max())


def test_at_infinite_data_kto_leaves_what_most_people_dislike():
    """Theorem of the paper: with equal weights all probability goes where more than half approve, however close the
    vote; DPO on the same preferences would keep the ratio. Approval of each of nine responses is known, none is 1/2."""
    policy, reference = Tables(1, 3, seed=1), Tables(1, 3, seed=2)
    approval = torch.tensor([0.9, 0.2, 0.3, 0.1, 0.55, 0.4, 0.2, 0.3, 0.45])
    rows = [(a, b) for a in range(3) for b in range(3)]
    calls = tuple((i, good) for i, share in enumerate(approval.tolist()) for good in (True, False)
                  for _ in range(round(20 * (share if good else 1 - share))))  # fmt: skip
    unit = dataclasses.replace(
        SingleJudgements.of([], [Called((0,), Response.whole(r), True) for r in rows]).units[0],
        responses=tuple(Response.whole(r) for r in rows),
        calls=calls,
    )
    batch = unpaired_batch([unit], known(reference, rows_of([unit]))).against(0.0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        KTO(beta=1.0).loss(batch, TableForward(policy)).sum().backward()
        optimizer.step()
    assert policy.distribution().detach().flatten()[approval > 0.5].sum() > 0.99


def test_the_loss_of_a_start_at_the_reference():
    reference = worlds()[1]
    metrics = BCO().loss(bco_batch(reference).against(0.0), TableForward(reference)).metrics
    assert metrics["loss/preference"].value == pytest.approx(math.log(2), abs=1e-12)
    metrics = KTO().loss(bco_batch(reference).against(0.0), TableForward(reference)).metrics
    assert metrics["loss/preference"].value == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("algorithm", [KTO(beta=BETA), BCO(beta=BETA)], ids=["kto", "bco"])
def test_implicit_rewards_are_log_ratios_times_beta(algorithm):
    policy, reference = worlds()
    batch = bco_batch(reference)
    wanted = [BETA * moved(policy, reference, row).item() for row in _rows(batch)]
    assert algorithm.implicit_rewards(batch, TableForward(policy)).tolist() == pytest.approx(wanted)


def test_what_is_no_judgement_is_refused():
    batch = bco_batch(worlds()[1])
    with pytest.raises(ValueError, match="one bool per judgement"):
        dataclasses.replace(batch, desirable_J=batch.desirable_J.long())
    with pytest.raises(ValueError, match="one reference log-probability per row"):
        dataclasses.replace(batch, ref_logprobs_B=batch.ref_logprobs_B[:-1])
    assert isinstance(batch.against(0.5), BaselinedBatch)
