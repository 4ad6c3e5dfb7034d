"""Units of judged responses: each response once, every judgement kept, and the same gradient as with copies."""

import pytest
import torch

from assent.algorithms.dpo import DPO
from assent.data.judged import (
    Called,
    Compared,
    JudgedBatches,
    Pairs,
    PairUnit,
    Response,
    SingleJudgements,
    mismatched,
    pair_batch,
    row_ranges,
)
from assent.errors import DataError
from assent.evals.toy_world import TableForward, Tables
from assent.records import Preference
from assent.types import PairBatch, ReferencedPairBatch, Sequences, in_twos


def whole(*responses):
    return tuple(Response.whole(r) for r in responses)


def test_every_strictly_ordered_pair_is_taken_and_the_rest_counted():
    order = (Preference(0, 1), Preference(3, 0), Preference(1, 2), Preference(0, 2, tie=True), Preference(3, 2))
    pairs = Pairs.of([Compared((7,), whole([1], [2], [2], [3]), order)])
    (unit,) = pairs.units
    found = [(unit.responses[a].token_ids, unit.responses[b].token_ids) for a, b in unit.pairs]
    assert found == [((1,), (2,)), ((3,), (1,)), ((3,), (2,))]
    assert len(unit.responses) == 3, "two responses with the same tokens are one row"
    assert (pairs.count, pairs.left_out.ties, pairs.left_out.identical) == (3, 1, 1)
    assert "3 ordered pairs of 3 responses to 1 prompts; 1 ties, 1 pairs of identical responses left out" in str(pairs)


def test_several_votes_on_the_same_responses_are_one_unit_and_other_responses_another():
    votes = [Compared((7,), whole([1], [2]), (Preference(a, b),)) for a, b in ((0, 1), (1, 0), (0, 1))]
    pairs = Pairs.of([*votes, Compared((7,), whole([1], [3]), (Preference(0, 1),))])
    assert [len(u.pairs) for u in pairs.units] == [3, 1] and [len(u.responses) for u in pairs.units] == [2, 2]


def test_a_response_without_content_is_left_out_and_counted():
    blank = Response((5,), (False,))
    pairs = Pairs.of([Compared((7,), (*whole([1], [2]), blank), (Preference(0, 1), Preference(1, 2)))])
    assert pairs.count == 1 and pairs.left_out.blank == 1 and "1 judgements of responses without content" in str(pairs)
    assert SingleJudgements.of([], [Called((7,), blank, True)]).left_out.blank == 1


def test_a_pair_is_one_desirable_and_one_undesirable_response():
    ranking = Compared((7,), whole([1], [2], [3]), (Preference(0, 1), Preference(0, 2), Preference(2, 1)))
    judgements = SingleJudgements.of([ranking], [Called((8,), Response.whole([4]), False)])
    assert (judgements.desirable, judgements.undesirable) == (3, 4)
    unit = judgements.units[0]
    calls = [(unit.responses[i].token_ids, good) for i, good in unit.calls]
    assert calls == [((1,), True), ((2,), False), ((1,), True), ((3,), False), ((3,), True), ((2,), False)]


def test_one_prompt_alone_has_no_mismatched_response():
    with pytest.raises(DataError, match="at least two different prompts"):
        mismatched(Pairs.of([Compared((7,), whole([1], [2]), (Preference(0, 1),))]).units, seed=0)


def test_a_common_prompt_among_rare_ones_still_finds_mates():
    many = [PairUnit((7,), whole([i, 1], [i, 2]), ((0, 1),)) for i in range(50)]
    rare = PairUnit((8,), whole([3], [4]), ((0, 1),))
    for seed in range(5):
        for prompt, response in mismatched([*many, rare], seed=seed):
            assert (prompt == (8,)) != (response.token_ids in ((3,), (4,)))


# ------------------------------------------------------------------------------------------------ batches


def ranking(x: int, k: int, seed: int) -> Compared:
    """K responses to a prompt and all their pairs."""
    ids = torch.randperm(12, generator=torch.Generator().manual_seed(seed))[:k].tolist()
    responses = [[i % 3, i // 3 % 3] if i < 9 else [i % 3] for i in ids]
    order = tuple(Preference(i, j) for i in range(k) for j in range(i + 1, k))
    return Compared((x,), whole(*responses), order)


def test_each_response_once_gives_the_gradient_of_each_pair_by_itself():
    """The old layout, two rows a pair, as the definition; and a quarter of its tokens for K = 4 and one row in six of
    K = 7."""
    rankings = [ranking(i % 2, k, i) for i, k in enumerate((4, 2, 7, 3))]
    units = Pairs.of(rankings).units
    policy, reference = Tables(2, 3, seed=1), Tables(2, 3, seed=2)
    rows = [(u.prompt_ids, r) for u in units for r in u.responses]
    sequences = Sequences.of([p for p, _ in rows], [r.token_ids for _, r in rows])
    pairs = [(u.prompt_ids, u.responses[a], u.responses[b]) for u in units for a, b in u.pairs]
    copies = Sequences.of(
        [p for p, _, _ in pairs for _ in range(2)], [side.token_ids for _, a, b in pairs for side in (a, b)]
    )

    def known(s):
        with torch.no_grad():
            return torch.where(s.mask_BT, TableForward(reference).logprobs(s), 0.0).sum(1)

    once = pair_batch(units, known(sequences))
    twice = ReferencedPairBatch(copies, *in_twos(len(copies)), known(copies))
    assert once.denominator == twice.denominator == 6 + 1 + 21 + 3
    assert len(once.sequences) == 4 + 2 + 7 + 3 and len(twice.sequences) == 2 * 31
    gradients, losses = [], []
    for batch in (once, twice):
        loss = DPO(beta=0.4, nll_weight=0.3).loss(batch, TableForward(policy))
        gradients.append(torch.autograd.grad(loss.sum(), policy.logits_XSV)[0])
        losses.append(loss)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)
    for name, mean in losses[1].metrics.items():
        assert losses[0].metrics[name].total == pytest.approx(mean.total), name
        assert losses[0].metrics[name].count == mean.count


def test_reference_log_probabilities_stay_with_their_rows():
    units = Pairs.of([ranking(i % 2, 2 + i % 3, i) for i in range(9)]).units
    ranges, known = row_ranges(units), torch.arange(100.0)
    rows = [(u.prompt_ids, r) for u in units for r in u.responses]

    def collate(some):
        return pair_batch([units[i] for i in some], known[[row for i in some for row in ranges[i]]])

    seen: list[int] = []
    for _, batch in JudgedBatches(units, collate, batch_size=4, epochs=2, seed=3):
        assert isinstance(batch, ReferencedPairBatch)
        for some in (batch, batch.select(torch.tensor([len(batch) - 1, 0]))):
            for i, mark in enumerate(some.ref_logprobs_B.tolist()):
                prompt, response = rows[int(mark)]
                n = int(some.sequences.lengths_B[i])
                assert tuple(some.sequences.token_ids_BL[i, :n].tolist()) == (*prompt, *response.token_ids)
        seen += [int(m) for m in batch.ref_logprobs_B.tolist()]
    assert sorted(seen) == sorted([*range(len(rows))] * 2)


def test_a_hole_in_a_response_is_left_out_of_its_sum_and_of_its_length():
    policy = Tables(2, 3, seed=1)
    masked = Pairs.of([Compared((0,), (Response((1, 2), (True, False)), *whole([2])), (Preference(0, 1),))]).units
    plain = Pairs.of([Compared((0,), whole([1], [2]), (Preference(0, 1),))]).units
    forward = TableForward(policy)
    for algorithm in (DPO(), DPO(length_normalised=True)):
        one, other = (
            algorithm.loss(pair_batch(u, torch.tensor([-1.0, -1.5]).double()), forward) for u in (masked, plain)
        )
        assert one.sum().item() == pytest.approx(other.sum().item())


def test_what_is_no_pair_is_refused():
    three = Sequences.of([[0]] * 3, [[1]] * 3)
    with pytest.raises(ValueError, match="two rows each"):
        in_twos(3)
    with pytest.raises(ValueError, match="add up"):
        PairBatch(three, torch.tensor([2]), torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(ValueError, match="of one unit"):
        PairBatch(three, torch.tensor([2, 1]), torch.tensor([0]), torch.tensor([2]))
    two = three.select(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="one reference log-probability per row"):
        ReferencedPairBatch(two, *in_twos(2), torch.zeros(1))
    with pytest.raises(DataError, match="needs a token"):
        Response((), ())
