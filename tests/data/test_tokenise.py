"""Budgets: nothing is cut, and what is dropped is counted."""

import pytest

from assent.data.tokenise import (
    Budget,
    tokenise_comparisons,
    tokenise_demonstrations,
    tokenise_documents,
    tokenise_tasks,
)
from assent.errors import DataError
from assent.records import Comparison, Demonstration, Document, Preference, PromptText, Task


def encode_prompt(prompt: PromptText) -> list[int]:
    return [1, *map(ord, str(prompt))]


def encode_response(text: str) -> list[int]:
    return [*map(ord, text), 2]


DEMONSTRATIONS = [Demonstration("ab", "c"), Demonstration("abcdef", "c"), Demonstration("a", "bcdefgh")]


def test_without_a_budget_everything_is_kept():
    made, report = tokenise_demonstrations(DEMONSTRATIONS, encode_prompt, encode_response, Budget())
    assert [(len(e.prompt_ids), len(e.response_ids)) for e in made] == [(3, 2), (7, 2), (2, 8)]
    assert made[0].response_ids == [ord("c"), 2]
    assert str(report) == ("tokenised 3 demonstrations: 12 prompt tokens, 12 response tokens; dropped 0 of 3, cut none")


def test_over_long_is_refused_by_default():
    with pytest.raises(DataError, match="1 of 3 demonstrations are over-long") as caught:
        tokenise_demonstrations(DEMONSTRATIONS, encode_prompt, encode_response, Budget(prompt_tokens=6))
    assert "1 for a prompt over 6 tokens, the longest 7; the first is number 1 (from 0)" in str(caught.value)


def test_dropped_records_are_counted_and_the_rest_is_whole():
    budget = Budget(prompt_tokens=6, response_tokens=2, over_long="drop")
    made, report = tokenise_demonstrations(DEMONSTRATIONS, encode_prompt, encode_response, budget)
    assert [e.prompt_ids for e in made] == [encode_prompt("ab")]
    assert [(o.index, o.part, o.tokens) for o in report.dropped] == [(1, "prompt", 7), (2, "response", 8)]
    assert str(report).endswith(
        "dropped 2 of 3, cut none (1 for a prompt over 6 tokens, the longest 7, "
        "1 for a response over 2 tokens, the longest 8)"
    )


def test_at_the_budget_is_within_it():
    budget = Budget(prompt_tokens=7, response_tokens=8)
    assert len(tokenise_demonstrations(DEMONSTRATIONS, encode_prompt, encode_response, budget)[0]) == 3


def test_dropping_everything_is_refused():
    with pytest.raises(DataError, match="3 of 3 demonstrations are over-long"):
        budget = Budget(prompt_tokens=1, over_long="drop")
        tokenise_demonstrations(DEMONSTRATIONS, encode_prompt, encode_response, budget)


def test_one_over_long_response_drops_its_comparison():
    comparisons = [
        Comparison("1", "p", ("a", "b", "c"), (Preference(2, 0),)),
        Comparison("2", "p", ("a", "bcd"), (Preference(1, 0),)),
    ]
    budget = Budget(response_tokens=3, over_long="drop")
    made, report = tokenise_comparisons(comparisons, encode_prompt, encode_response, budget)
    assert len(made) == 1 and made[0].preferences == (Preference(2, 0),)
    assert list(made[0].responses) == [encode_response(r) for r in "abc"]
    assert [(o.index, o.part, o.tokens, o.budget) for o in report.dropped] == [(1, "response", 4, 3)]


def test_tasks_become_prompts():
    made, report = tokenise_tasks([Task("t1", "ab", kind="k", answer="7"), Task("t2", "abcd")], encode_prompt, Budget())
    first = made[0]
    assert (first.id, first.source, first.token_ids, first.kind) == ("t1", "ab", (1, ord("a"), ord("b")), "k")
    assert (first.answer, made[1].answer) == ("7", "")
    assert report.prompt_tokens == 8 and report.response_tokens == 0


def test_documents():
    assert tokenise_documents([Document("a")], lambda text: [ord(c) for c in text]) == [[97]]


def test_an_encoder_that_gives_nothing_is_caught():
    with pytest.raises(DataError, match="at least one prompt token"):
        tokenise_demonstrations(DEMONSTRATIONS, lambda prompt: [], encode_response, Budget())
