"""Principles files: the one that ships, and what is wrong with others."""

import random
from collections import Counter

import pytest

from assent.errors import DataError
from assent.feedback.principles import SHIPPED, drawn, read_principles

GOOD = "{name: a, critique: c, revision: r, choose: w}"


def test_sixteen_ship_with_what_each_looks_at():
    principles = read_principles()
    assert len(principles) == 16 and SHIPPED.exists()
    assert Counter(p.about for p in principles) == {"harm": 9, "manners": 3, "privacy": 2, "honesty": 2}


def test_one_of_ones_own(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"- {GOOD}\n")
    (principle,) = read_principles(mine)
    assert (principle.name, principle.critique, principle.about) == ("a", "c", "")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "No such file"),
        ("", "NoneType"),
        ("a: b", "dict"),
        ("- a", "str where"),
        ("- {name: a}", r"\['name'\] where"),
        (f"- {GOOD[:-1]}, chose: x}}", "chose"),
        ("- {name: a, critique: '', revision: r, choose: w}", "no text in critique"),
        ("- {name: 1, critique: c, revision: r, choose: w}", "no text in name"),
        (f"- {GOOD}\n- {GOOD}", "two principles of one name"),
        ("- [", "while parsing"),
    ],
)
def test_what_cannot_be_read_says_where_and_why(tmp_path, text, part):
    path = tmp_path / "p.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=part) as caught:
        read_principles(path)
    assert "p.yaml" in str(caught.value)


def test_each_is_drawn():
    rng = random.Random(0)
    assert {drawn(read_principles(), rng).name for _ in range(300)} == {p.name for p in read_principles()}
