"""What was clicked comes back from every form that is written, ties and left-out parts counted."""

import csv
import io
import json

import pytest

from assent.data.formats import Pairs
from assent.errors import DataError
from assent.feedback.answers import Choice, PairAnswer, RatingAnswer
from assent.feedback.exchange import FORMS, export
from assent.feedback.into_records import comparisons
from assent.feedback.questions import PairQuestion, RatingQuestion
from assent.feedback.store import Store
from assent.records import Degree, Message, comparison_from_json

DIALOGUE = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "=1+1?"))


@pytest.fixture
def answers(tmp_path):
    store = Store.open(f"{tmp_path}/s.db", gold_every=0)
    store.add([
        PairQuestion("p1", "Hi", ("x", "y")), PairQuestion("p2", DIALOGUE, ("=two", "你好")),
        PairQuestion("p3", "Tie", ("u", "v")), RatingQuestion("r1", "Hi", ("x",)),
    ])  # fmt: skip
    says = [PairAnswer({"overall": Choice(0, Degree.BETTER)}), PairAnswer({"overall": Choice(1)})]
    says += [PairAnswer({"overall": Choice(None)}), RatingAnswer({"overall": 6})]
    for answer in says:
        store.answer(store.next("ada").token, answer, 1, annotator="ada")
    yield list(store.answers())
    store.close()


def strict(answers):
    made = [c for a in answers for c in comparisons(a)]
    return [(c.prompt, c.responses[p.better], c.responses[p.worse]) for c in made for p in c.preferences if not p.tie]


def test_assents_own_lines_return_equal(answers):
    written = export(answers, "assent")
    rows = [json.loads(line) for line in written.text.splitlines()]
    back = [comparison_from_json(row) for row in rows if row["record"] == "comparison"]
    assert back == [c for a in answers for c in comparisons(a)] and written.left_out == {} and written.rows == 4


def test_trl_pairs_are_read_back_by_our_reader(answers, tmp_path):
    written = export(answers, "trl_preference")
    path = tmp_path / "pairs.jsonl"
    path.write_text(written.text, encoding="utf-8")
    read = Pairs(path=str(path)).read().train
    back = [(c.prompt, c.responses[p.better], c.responses[p.worse]) for c in read for p in c.preferences]
    assert [b[1:] for b in back] == [s[1:] for s in strict(answers)]
    assert written.left_out == {"ties have no chosen and rejected": 1, "judgements have no chosen and rejected": 1}


def test_hh_holds_whole_dialogues(answers):
    rows = [json.loads(line) for line in export(answers, "hh_rlhf").text.splitlines()]
    head = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: =1+1?\n\nAssistant: "
    assert rows[1] == {"chosen": head + strict(answers)[1][1], "rejected": head + strict(answers)[1][2]}


def test_unpaired_and_spreadsheets(answers):
    assert json.loads(export(answers, "trl_unpaired").text) == {"prompt": "Hi", "completion": "x", "label": True}
    rows = list(csv.DictReader(io.StringIO(export(answers, "csv").text)))
    assert [row["says"] for row in rows] == ["better", "unstated", "tie", "desirable"]
    assert not any(cell.startswith("=") for row in rows for cell in row.values())


def test_an_unknown_form_is_refused(answers):
    with pytest.raises(DataError, match=", ".join(FORMS)):
        export(answers, "parquet")
