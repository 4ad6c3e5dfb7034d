"""Responses judged by themselves: TRL's unpaired format as it stands, dialogues, and rows that say nothing."""

import json

import pytest

from assent.data.unpaired import Unpaired
from assent.errors import DataError
from assent.records import Judgement, Message


def read(folder, rows, **settings):
    path = folder / "thumbs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(Unpaired(path=str(path), **settings).read().train)


def test_text_and_labels_as_bools_or_as_numbers(tmp_path):
    rows = [{"prompt": "Why?", "completion": " Because.", "label": said} for said in (True, False, 1, 0)]
    made = read(tmp_path, rows)
    assert [j.desirable for j in made] == [True, False, True, False]
    assert (made[0].prompt, made[0].response) == ("Why?", " Because.")
    assert len({j.id for j in made}) == 4 and isinstance(made[0], Judgement)


def test_turns_beside_a_prompt_and_whole_dialogues(tmp_path):
    asked, said = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
    (turn,) = read(tmp_path, [{"prompt": [asked], "completion": [said], "label": True}])
    (whole,) = read(tmp_path, [{"completion": [asked, said], "label": True}], prompt=None)
    assert turn.prompt == whole.prompt == (Message("user", "Why?"),) and turn.response == whole.response == "Because."


def test_columns_are_named(tmp_path):
    row = {"q": "Why?", "a": "No.", "thumb": False, "who": "Ann", "what": "test"}
    (made,) = read(tmp_path, [row], prompt="q", response="a", label="thumb", annotator="who", kind="what")
    assert (made.response, made.desirable, made.annotator, made.kind) == ("No.", False, "Ann", "test")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"label": 0.5}, "must hold true or false"),
        ({"label": "yes"}, "must hold true or false"),
        ({"label": 3}, "must hold true or false"),
        ({"completion": ""}, "must hold text"),
        ({"completion": [{"role": "user", "content": "x"}]}, "one turn of the assistant"),
        ({"label": None}, "must hold true or false"),
    ],
)
def test_what_says_nothing_is_refused(tmp_path, row, says):
    with pytest.raises(DataError, match=says):
        read(tmp_path, [{"prompt": "Why?", "completion": "Because.", "label": True} | row])


def test_the_same_prompt_is_on_one_side_of_the_split(tmp_path):
    rows = [{"prompt": f"Why {i % 10}?", "completion": f"{i}", "label": i % 3 == 0} for i in range(60)]
    path = tmp_path / "thumbs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = Unpaired(path=str(path), reading={"held_out": 0.3}).read()
    assert {j.prompt for j in data.train}.isdisjoint({j.prompt for j in data.held_out}) and data.held_out
