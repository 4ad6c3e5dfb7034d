"""Batches: what is trained on, how often, and whether a killed run sees exactly what an unbroken one sees."""

import io
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.data.batches import (
    ComparisonExample,
    PackedBatches,
    TokenBatches,
    TokenExample,
)
from assent.data.comparisons import ComparisonBatches, OrderedPairs
from assent.errors import ContractError, DataError
from assent.protocols import BatchSource, State
from assent.records import Degree, Preference
from assent.types import ComparisonBatch, TokenBatch

END = 99


def examples(count: int) -> list[TokenExample]:
    """Example i answers i with i + 1 tokens of 1000 + i, so that a row names its example."""
    return [TokenExample([7] * (1 + i % 3), [1000 + i] * (1 + i % 4)) for i in range(count)]


def token_source(count: int = 11, shard: tuple[int, int] = (0, 1), **changes: int) -> TokenBatches:
    return TokenBatches(examples(count), **{"batch_size": 4, "epochs": 3, "seed": 5, **changes}, shard=shard)


def packed_source(**changes: int) -> PackedBatches:
    chosen = {"end_id": END, "length": 5, "batch_size": 2, "epochs": 2, "seed": 3, **changes}
    return PackedBatches([[10 * d + i for i in range(1 + d % 4)] for d in range(1, 9)], **chosen)


def comparison(i: int, *preferences: Preference) -> ComparisonExample:
    return ComparisonExample([7, 8], [[100 * i + r] * (r + 1) for r in range(3)], preferences)


def comparison_source(count: int = 7, **changes: int) -> ComparisonBatches:
    made = [comparison(i, Preference(0, 1), Preference(1, 2, tie=True)) for i in range(1, count + 1)]
    return ComparisonBatches(made, **{"batch_size": 3, "epochs": 2, "seed": 1, **changes})


def named(batch: TokenBatch) -> list[int]:
    return [int(row[0]) - 1000 for row in batch.sequences.response_ids_BT]


def tensors(batch: TokenBatch | ComparisonBatch) -> list[torch.Tensor]:
    parts = [getattr(batch.sequences, name) for name in ("token_ids_BL", "prompt_lengths_B", "mask_BT")]
    if isinstance(batch, ComparisonBatch):
        parts += [batch.counts_G, batch.better_P, batch.worse_P, batch.group_P, batch.margin_P]
    return parts


SOURCES = {"token": token_source, "packed": packed_source, "comparison": comparison_source}


def saved(state: State) -> State:
    """The state as a file gives it back, with nothing executable in it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class TestEverySource:
    @pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_killed_anywhere_and_resumed_is_the_unbroken_run(self, make, data):
        unbroken = list(make())
        kill = data.draw(st.integers(0, len(unbroken)))
        again = data.draw(st.integers(kill, len(unbroken)))
        seen, source = [], make()
        for until in (kill, again, len(unbroken)):
            walk = iter(source)
            while len(seen) < until:
                seen.append(next(walk))  # the state is saved inside the loop's body, as a checkpoint does
            state = saved(source.state_dict())
            source = make()
            source.load_state_dict(state)
        assert [step for step, _ in seen] == list(range(len(unbroken)))
        for (_, mine), (_, theirs) in zip(seen, unbroken, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(tensors(mine), tensors(theirs), strict=True))
        assert list(source) == []

    @pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
    def test_contract(self, make):
        source: BatchSource = make()
        steps = [step for step, _ in source]
        assert steps == list(range(len(source)))

    @pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
    @pytest.mark.parametrize("change", [{"batch_size": 1}, {"seed": 77}])
    def test_a_position_in_other_batches_is_refused(self, make, change):
        state = make().state_dict()
        with pytest.raises(ContractError, match=next(iter(change))):
            make(**change).load_state_dict(state)

    @pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
    def test_more_epochs_may_follow_a_finished_run(self, make):
        source = make(epochs=1)
        first = list(source)
        longer = make(epochs=2)
        longer.load_state_dict(source.state_dict())
        whole = list(make(epochs=2))
        for (s, mine), (t, theirs) in zip(first + list(longer), whole, strict=True):
            assert s == t and all(torch.equal(a, b) for a, b in zip(tensors(mine), tensors(theirs), strict=True))


class TestTokenBatches:
    def test_every_example_once_per_epoch_in_another_order(self):
        epochs = [[], [], []]
        for step, batch in token_source():
            epochs[step // 3] += named(batch)
        assert all(sorted(e) == list(range(11)) for e in epochs)
        assert len({tuple(e) for e in epochs}) == 3
        assert [len(b) for _, b in token_source()] == [4, 4, 3] * 3

    def test_tokens_are_those_of_the_example(self):
        for _, batch in token_source():
            for row, i in enumerate(named(batch)):
                example, s = examples(11)[i], batch.sequences
                prompt, response = int(s.prompt_lengths_B[row]), int(s.response_lengths_B[row])
                ids = s.token_ids_BL[row].tolist()
                assert ids[:prompt] == list(example.prompt_ids)
                assert ids[prompt : prompt + response] == list(example.response_ids)
                assert not any(ids[prompt + response :])
                assert int(s.mask_BT[row].sum()) == len(example.response_ids)

    def test_seed_decides_the_order(self):
        orders = [[i for _, b in token_source(seed=s) for i in named(b)] for s in (1, 1, 2)]
        assert orders[0] == orders[1] != orders[2]

    @given(count=st.integers(2, 30), batch_size=st.integers(2, 9), seed=st.integers(0, 3))
    @settings(max_examples=60, deadline=None)
    def test_ranks_partition_every_global_batch(self, count, batch_size, seed):
        if count % batch_size == 1:
            with pytest.raises(DataError, match="too small for 2 ranks"):
                token_source(count, (0, 2), batch_size=batch_size, seed=seed)
            return
        whole = token_source(count, batch_size=batch_size, seed=seed)
        shards = [token_source(count, (r, 2), batch_size=batch_size, seed=seed) for r in range(2)]
        for (_, batch), (_, a), (_, b) in zip(whole, *shards, strict=True):
            assert sorted(named(a) + named(b)) == sorted(named(batch))
            assert abs(len(a) - len(b)) <= 1
            assert a.denominator + b.denominator == batch.denominator

    def test_a_position_moves_to_another_number_of_ranks(self):
        source = token_source(12)
        walk = iter(source)
        next(walk)
        state = source.state_dict()
        rest = [sorted(named(b)) for _, b in walk]
        shards = [token_source(12, (r, 2)) for r in range(2)]
        for shard in shards:
            shard.load_state_dict(state)
        assert [sorted(named(a) + named(b)) for (_, a), (_, b) in zip(*shards, strict=True)] == rest

    def test_other_data_is_refused_on_resume(self):
        with pytest.raises(ContractError, match="data: saved"):
            token_source(12).load_state_dict(token_source(11).state_dict())

    def test_a_moved_boundary_between_prompt_and_response_is_other_data(self):
        setup = {"batch_size": 1, "epochs": 1, "seed": 0}
        a = TokenBatches([TokenExample([1], [2, 3])], **setup)
        b = TokenBatches([TokenExample([1, 2], [3])], **setup)
        with pytest.raises(ContractError):
            b.load_state_dict(a.state_dict())

    @pytest.mark.parametrize(
        ("change", "said"),
        [({"count": 0}, "nothing to train on"), ({"epochs": 0}, "at least 1"), ({"batch_size": 0}, "at least 1")],
    )
    def test_nothing_to_do_is_refused(self, change, said):
        with pytest.raises(DataError, match=said):
            token_source(**change)

    @pytest.mark.parametrize(("prompt", "response"), [([], [1]), ([1], [])])
    def test_an_empty_side_is_refused(self, prompt, response):
        with pytest.raises(DataError, match="at least one"):
            TokenExample(prompt, response)


class TestPackedBatches:
    DOCUMENTS = st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=12), min_size=1, max_size=9)

    @given(DOCUMENTS, st.integers(1, 9), st.integers(1, 4), st.integers(0, 5))
    @settings(max_examples=80, deadline=None)
    def test_every_token_is_predicted_exactly_once_per_epoch_from_its_own_past(self, documents, length, size, seed):
        source = PackedBatches(documents, end_id=END, length=length, batch_size=size, epochs=2, seed=seed)
        # A token with the one before it, as the documents have them: which order they come in does not matter.
        expected = Counter(pair for d in documents for pair in zip([END, *d], [*d, END], strict=True))
        seen, lengths = [Counter(), Counter()], [[], []]
        for step, batch in source:
            epoch, s = step // (len(source) // 2), batch.sequences
            for row in range(len(batch)):
                predicted = s.response_ids_BT[row][s.mask_BT[row]].tolist()
                seen[epoch].update(zip([int(s.token_ids_BL[row, 0]), *predicted], predicted, strict=False))
                lengths[epoch].append(len(predicted))
        assert seen == [expected, expected]
        assert [sorted(n) for n in lengths] == [[source.tail_tokens] + [length] * (source.rows - 1)] * 2

    def test_documents_change_places_between_epochs(self):
        source = packed_source(length=100, batch_size=1)
        first, second = (b.sequences.response_ids_BT.tolist() for _, b in source)
        assert first != second and sorted(first[0]) == sorted(second[0])

    def test_the_report_counts_the_short_row(self):
        source = packed_source()
        assert (source.tokens, source.rows, source.tail_tokens) == (28, 6, 3)
        assert source.report.startswith("packed 8 documents, 28 tokens with their end tokens, into 6 rows of 5;")
        assert sum(b.denominator for _, b in source) == 2 * 28

    def test_an_empty_document_is_named(self):
        with pytest.raises(DataError, match=r"1 empty of 2, the first is number 1"):
            PackedBatches([[1], []], end_id=END, length=4, batch_size=1, epochs=1, seed=0)

    def test_a_row_of_nothing_is_refused(self):
        with pytest.raises(DataError, match="length=0"):
            packed_source(length=0)


class TestComparisonBatches:
    def test_pairs_point_at_their_responses(self):
        prefer = [Preference(2, 0), Preference(0, 1, tie=True), Preference(1, 2, degree=Degree.SLIGHTLY)]
        source = ComparisonBatches(
            [comparison(1, *prefer), comparison(2, Preference(0, 1)), comparison(3, Preference(0, 1, tie=True))],
            batch_size=2,
            epochs=1,
            seed=0,
            labels=OrderedPairs({Degree.UNSTATED: 0.0, Degree.SLIGHTLY: 0.5}.__getitem__),
        )
        ((_, batch),) = source
        heads = batch.sequences.response_ids_BT[:, 0]
        pairs = list(zip(heads[batch.better_P].tolist(), heads[batch.worse_P].tolist(), strict=True))
        assert sorted(zip(pairs, batch.margin_P.tolist(), strict=True)) == [
            ((101, 102), 0.5),
            ((102, 100), 0.0),
            ((200, 201), 0.0),
        ]
        groups = {int(h) // 100 for h, g in zip(heads[batch.better_P], batch.group_P, strict=True) if g == 0}
        assert len(groups) == 1
        assert batch.counts_G.tolist() == [3, 3] and len(batch) == batch.denominator == 2
        assert (source.pairs, source.ties, source.kept_out) == (3, 2, 1)
        assert "1 comparisons kept out because all their pairs are ties" in source.report

    def test_nothing_but_ties_is_refused(self):
        with pytest.raises(DataError, match="nothing to train on"):
            ComparisonBatches([comparison(1, Preference(0, 1, tie=True))], batch_size=1, epochs=1, seed=0)

    def test_an_empty_response_is_refused(self):
        with pytest.raises(DataError, match=r"responses of \[1, 0\] tokens"):
            ComparisonExample([1], [[1], []], [Preference(0, 1)])

    def test_splitting_a_batch_keeps_pairs_together(self):
        ((_, batch), *_) = comparison_source()
        part = batch.select(torch.tensor([2, 0]))
        heads = part.sequences.response_ids_BT[:, 0]
        assert all(heads[part.better_P] % 100 == 0) and all(heads[part.worse_P] % 100 == 1)
