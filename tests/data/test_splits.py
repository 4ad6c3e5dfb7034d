"""Held-out prompts never leak, and the audit counts what was planted."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.data.audit import audit_comparisons, audit_demonstrations
from assent.data.splits import check_disjoint, hold_out, overlap, prompt_key
from assent.errors import DataError
from assent.records import Comparison, Demonstration, Document, Message, Preference


def demonstrations(count: int, answers: int = 3) -> list[Demonstration]:
    return [Demonstration(f"Question {i}", f"Answer {a}") for a in range(answers) for i in range(count)]


class TestHoldOut:
    @given(count=st.integers(20, 120), share=st.sampled_from([0.3, 0.5, 0.7]), seed=st.integers(0, 50))
    @settings(max_examples=40, deadline=None)
    def test_a_partition_by_prompt(self, count, share, seed):
        records = demonstrations(count)
        train, held_out = hold_out(records, share, seed)
        assert sorted(map(repr, train + held_out)) == sorted(map(repr, records))
        assert not {d.prompt for d in train} & {d.prompt for d in held_out}
        assert (train, held_out) == hold_out(records, share, seed)

    def test_the_share_is_kept_on_average(self):
        held_out = hold_out(demonstrations(10_000, 1), 0.1, 3)[1]
        assert abs(len(held_out) - 1000) < 4 * math.sqrt(10_000 * 0.1 * 0.9)

    def test_a_prompt_keeps_its_side_as_data_grows_and_in_any_order(self):
        small, large = (hold_out(demonstrations(n, 1)[::step], 0.3, 1)[1] for n, step in ((50, 1), (200, -1)))
        assert set(small) == {d for d in large if d in demonstrations(50, 1)}

    def test_another_seed_holds_out_others(self):
        a, b = (hold_out(demonstrations(60, 1), 0.3, seed)[1] for seed in (1, 2))
        assert a != b

    def test_spacing_case_and_plain_text_are_the_same_prompt(self):
        plain, spaced, turn = "Say  hi", " say hi\n", (Message("user", "Say hi"),)
        assert len({prompt_key(p) for p in (plain, spaced, turn)}) == 1
        others = (Message("system", "Say hi"),), (*turn, Message("assistant", "hi")), "Sayhi"
        assert len({prompt_key(p) for p in (plain, *others)}) == 4

    def test_nothing_held_out_and_impossible_shares(self):
        records = demonstrations(5)
        assert hold_out(records, 0.0, 1) == (records, [])
        for share in (-0.1, 1.0, math.nan):
            with pytest.raises(DataError, match=r"in \[0, 1\)"):
                hold_out(records, share, 1)
        with pytest.raises(DataError, match="left one side empty"):
            hold_out(demonstrations(1), 0.5, 1)


class TestOverlap:
    def test_shared_prompts_are_shown_once_each(self):
        train = [Demonstration("A b", "x"), Demonstration("c", "x")]
        other = [Comparison(str(i), p, ("x", "y"), ()) for i, p in enumerate(("a  B", "a B", "d"))]
        assert [r.id for r in overlap(train, other).values()] == ["0"]
        with pytest.raises(DataError, match=r"train and test share prompts\n  got: 1 prompts in both.*'a B'"):
            check_disjoint(train, other, names=("train", "test"))

    def test_disjoint_passes(self):
        check_disjoint([Document("a")], [Document("b")])


class TestAudit:
    def test_counts_what_was_planted(self):
        def one(id: str, a: str, b: str, *prefer: Preference, prompt: str = "p", who: str = "") -> Comparison:
            return Comparison(id, prompt, (a, b), prefer, annotator=who)

        first, second, tie = Preference(0, 1), Preference(1, 0), Preference(0, 1, tie=True)
        found = audit_comparisons(
            [
                one("1", "long one", "short", first, who="ann"),
                one("2", "long one", "short", first, who="ann"),  # duplicate
                one("3", "long one", "short", second, who="bob"),  # contradicts, by another
                one("4", "same", " same", first, prompt="q"),  # identical
                one("5", "text", "  ", first, prompt="r", who="ann"),  # empty
                one("6", "  ", "text", first, prompt="r", who="ann"),  # contradicts itself, in swapped places
                one("7", "x", "y", tie, prompt="s"),
            ]
        )
        assert (found.comparisons, found.prompts, found.pairs, found.ties) == (7, 4, 6, 1)
        assert (found.duplicates, found.identical, found.empty) == (1, 1, 2)
        assert (found.contradictory, found.self_contradictory) == (2, 1)
        assert found.longer_preferred == 3 / 5
        assert found.mean_length_gap == (3 + 3 - 3 + 0 + 4 - 4) / 6
        assert "1 duplicates, 1 pairs of identical texts, 2 empty responses" in str(found)

    def test_nothing_ordered_is_nan(self):
        found = audit_comparisons([Comparison("1", "p", ("a", "b"), ())])
        assert math.isnan(found.longer_preferred) and math.isnan(found.mean_length_gap)

    def test_demonstrations(self):
        found = audit_demonstrations([Demonstration(*d) for d in (("p", "a"), ("P ", "a"), ("p", "b"), ("q", " "))])
        assert (found.demonstrations, found.prompts, found.duplicates, found.empty) == (4, 2, 1, 1)
