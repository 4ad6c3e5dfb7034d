"""What was clicked comes back from every form that is written; what a form cannot hold is counted and named."""

import csv
import importlib.util
import io
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from assent.cli import app
from assent.data.formats import OasstTrees, Pairs
from assent.errors import DataError
from assent.feedback.answers import (
    Choice,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
    Remarks,
    StepsAnswer,
)
from assent.feedback.exchange import FORMS, bring_in, export, labelling_set_up
from assent.feedback.into_records import records
from assent.feedback.questions import (
    DemonstrationQuestion,
    EditQuestion,
    Origin,
    PairQuestion,
    RankingQuestion,
    RatingQuestion,
    StepsQuestion,
)
from assent.feedback.store import Store
from assent.records import Comparison, Degree, Judgement, Message, Rating

DIALOGUE = (Message("user", "Hi"), Message("assistant", "Hello\n\nthere"), Message("user", "=1+1?"))
FROM = Origin("sft-1a2b", round=2, slice="chat", ended=(True, False))
SAID = [
    (PairQuestion("p1", "Hi", ("x", "y"), origin=FROM), PairAnswer({"overall": Choice(0, Degree.BETTER)})),
    (PairQuestion("p2", DIALOGUE, ("=two", "你好\r\n,\"'")), PairAnswer({"overall": Choice(1)})),
    (PairQuestion("p3", "Tie", ("u", "v")), PairAnswer({"overall": Choice(None)})),
    (PairQuestion("p4", "Bad", ("u", "v")), PairAnswer({"overall": Choice(None, both_bad=True)}, None, Remarks((1,)))),
    (
        PairQuestion("p5", "Be good", ("'=a", "b"), ("helpful", "honest")),
        PairAnswer({"helpful": Choice(1, Degree.NEGLIGIBLY), "honest": Choice(0)}),
    ),
    (RankingQuestion("r1", "Order", ("one", "two", "three", "four")), RankingAnswer({"overall": (3, 1, 1, 4)})),
    (
        RankingQuestion("r2", "Order all", ("a", "b", "c"), ("helpful", "honest")),
        RankingAnswer({"helpful": (2, 3, 1), "honest": (1, 1, 1)}),
    ),
    (RatingQuestion("n1", "Hi", ("x",)), RatingAnswer({"overall": 6})),
    (RatingQuestion("n2", "Hi", ("bad",)), RatingAnswer({"overall": 1}, Remarks((), ("clear",), "no"))),
    (StepsQuestion("s1", "1+1?", ("1+1\n", "=3")), StepsAnswer((Rating.GOOD, Rating.BAD))),
    (EditQuestion("e1", "Greet", ("helo",)), EditAnswer("hello")),
    (DemonstrationQuestion("d1", "Write"), DemonstrationAnswer("-text\nof two lines")),
]
"""Places are those of the first order shown; `answered` shows each question to two annotators."""
ORDERS = {"label_studio", "argilla", "assent"}


def answered(path):
    store = Store.open(str(path), gold_every=0)
    store.add([question for question, _ in SAID], per_question=2)
    told = dict((question.id, answer) for question, answer in SAID)
    for name in ("ada", "ben"):
        while (shown := store.next(name)) is not None:
            store.answer(shown.token, told[shown.question.id], 3.5, annotator=name)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    opened = answered(tmp_path_factory.mktemp("exchange") / "s.db")
    yield opened
    opened.close()


@pytest.fixture
def answers(store):
    return list(store.answers())


@pytest.fixture
def other(tmp_path):
    opened = Store.open(str(tmp_path / "other.db"))
    yield opened
    opened.close()


def rows_of(text):
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    return [json.dumps(row, sort_keys=True) for row in rows]


def meant(answers):
    """What the answers teach, in texts alone, of the first dimension: ordered pairs, ties, thumbs, written texts."""
    said = Counter()
    for record in (r for a in answers for r in records(a)):
        if isinstance(record, Comparison):
            for p in record.preferences:
                pair = (record.responses[p.better], record.responses[p.worse])
                said[record.prompt, frozenset(pair) if p.tie else pair] += 1
        elif isinstance(record, Judgement):
            said[record.prompt, record.response, record.desirable] += 1
        else:
            said[record.prompt, type(record).__name__, record.response] += 1
    return said


KEPT = {
    "assent": lambda of: True,
    "hh_rlhf": lambda of: isinstance(of[1], tuple),
    "trl_preference": lambda of: isinstance(of[1], tuple),
    "trl_unpaired": lambda of: isinstance(of[-1], bool),
    "ultrafeedback": lambda of: isinstance(of[1], (tuple, frozenset)) and of[0] != "Greet",
    "oasst_trees": lambda of: isinstance(of[1], (tuple, frozenset)) and of[0] != "Greet",
    "label_studio": lambda of: of[1] != "LabelledSolution",
    "argilla": lambda of: of[1] != "LabelledSolution",
}
"""Which of `meant` a form has room for; of a table, dialogues lose their turns, and edits stand as pairs."""


@pytest.mark.parametrize("form", KEPT)
def test_import_of_an_export_loses_nothing_that_the_form_can_hold(answers, other, form):
    written = export(answers, form)
    brought = bring_in(other, written.text, form, batch="back")
    assert brought.left_out == {} and brought.known == 0
    assert meant(other.answers()) == Counter({k: n for k, n in meant(answers).items() if KEPT[form](k)})
    again = export(other.answers(), form)
    assert again.rows == written.rows > 0
    if form not in ("assent", "ultrafeedback", "oasst_trees"):  # times of recording, ratings with gaps, ids of messages
        assert sorted(rows_of(again.text)) == sorted(rows_of(written.text))
    assert bring_in(other, written.text, form, batch="back").answers == 0, "the same file adds nothing"
    assert other.next("cleo") is None, "nobody is asked what was imported"


@pytest.mark.parametrize("form", sorted(FORMS))
def test_what_has_no_room_is_counted_and_named(answers, form):
    left = export(answers, form).left_out
    if form == "assent":
        assert left == {}
        return
    kept = FORMS[form].holds
    assert ("annotators' names" in left) == ("annotators' names" not in kept)
    assert left.get("degrees of preference", 0) == (
        0 if "degrees of preference" in kept or form == "trl_unpaired" else 4
    )
    if form in ("hh_rlhf", "trl_preference"):
        assert left["ties have no chosen and rejected"] == 2 * 2 + 2
    assert (
        left["comments"] == 2 if form in ("trl_unpaired", "label_studio", "argilla", "csv") else "comments" not in left
    )


def test_assents_own_lines_return_equal(answers, other):
    bring_in(other, export(answers, "assent").text, "assent", batch="default")
    back = {(a.question.id, a.annotator): a for a in other.answers()}
    assert len(back) == len(answers) == 2 * len(SAID)
    for a in answers:
        b = back[a.question.id, a.annotator]
        assert (a.question, a.answer, a.order, a.seconds, a.order_known) == (
            b.question, b.answer, b.order, b.seconds, b.order_known)  # fmt: skip


@pytest.mark.parametrize("form", ["label_studio", "argilla"])
def test_places_orders_and_degrees_return_equal(answers, other, form):
    bring_in(other, export(answers, form).text, form, batch="back")
    back = {(a.question.id, a.annotator): a for a in other.answers()}
    for a in answers:
        if a.question.kind == "steps":
            continue
        b = back[a.question.id, a.annotator]
        assert (a.question.responses, a.order) == (b.question.responses, b.order)
        for facet in ("choices", "ranks", "scores", "text"):
            assert getattr(a.answer, facet, None) == getattr(b.answer, facet, None)


def shown_in(row):
    """Of a tie, which stands first means nothing; ids are made anew."""
    texts = (row["better"], row["worse"])
    return (row["annotator"], row["prompt"], row["says"], *(sorted(texts) if row["says"] == "tie" else texts))


def test_a_table_returns_what_it_shows(answers, other):
    text = export(answers, "csv").text
    bring_in(other, text, "csv", batch="back")
    rows, again = (sorted(map(shown_in, csv.DictReader(io.StringIO(t, newline="")))) for t in (
        text, export(other.answers(), "csv").text))  # fmt: skip
    assert again == rows
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    degrees = Counter(c.degree for a in other.answers(kind="pair") for c in a.answer.choices.values())
    assert degrees[Degree.BETTER] == degrees[Degree.NEGLIGIBLY] == 2
    rankings = [a for a in other.answers(kind="ranking") if a.question.prompt == "Order"]
    assert [sorted(a.answer.ranks["overall"]) for a in rankings] == [[1, 1, 3, 4]] * 2


def test_trl_pairs_and_trees_are_read_by_the_readers_of_recipes(answers, tmp_path):
    for form, reader in (("trl_preference", Pairs), ("oasst_trees", OasstTrees)):
        path = tmp_path / f"{form}.jsonl"
        path.write_text(export(answers, form).text, encoding="utf-8")
        found = {
            (c.responses[p.better], c.responses[p.worse])
            for c in reader(path=str(path)).read().train
            for p in c.preferences
            if not p.tie
        }
        assert found == {k[1] for k in meant(answers) if KEPT[form](k) and isinstance(k[1], tuple)}


def test_hh_holds_whole_dialogues(answers):
    rows = [json.loads(line) for line in export(answers, "hh_rlhf").text.splitlines()]
    head = "\n\nHuman: Hi\n\nAssistant: Hello\n\nthere\n\nHuman: =1+1?\n\nAssistant: "
    (one, *_) = [a for a in answers if a.question.id == "p2"]
    chosen, rejected = (one.question.responses[one.order[place]] for place in (1, 0))
    assert {"chosen": head + chosen, "rejected": head + rejected} in rows


# ------------------------------------------------------------------------------------------------ Label Studio


def test_label_studio_ranks_from_the_top(other):
    """A ranker without buckets: the list's first is highest on the screen, and best."""
    items = [{"id": i, "title": i.upper()} for i in "abc"]
    ranker = {"from_name": "rank", "to_name": "responses", "type": "ranker"}
    task = {
        "data": {"prompt": "Order", "responses": items},
        "annotations": [{"completed_by": 7, "result": [
            ranker | {"value": {"ranker": {"rank": ["c", "a", "b"]}}},
        ]}],
    }  # fmt: skip
    bring_in(other, json.dumps([task]), "label_studio", batch="ls")
    (answer,) = other.answers()
    assert answer.annotator == "7" and answer.question.responses == ("A", "B", "C")
    assert answer.answer.ranks == {"rank": (2, 3, 1)} and not answer.order_known


@pytest.fixture
def label_studio(monkeypatch):
    """The SDK's own part that knows labelling set-ups, loaded without its HTTP client and its maker of samples.

    `import label_studio_sdk` runs the client, for which 26 packages are wanted; `make setup` installs the SDK without
    them. Two packages of it are therefore entered by their folders alone, and `jsf`, which it would draw made-up
    annotations with, is left empty; everything that is called here is theirs.
    """
    pytest.importorskip("jsonschema"), pytest.importorskip("lxml"), pytest.importorskip("xmljson")
    found = importlib.util.find_spec("label_studio_sdk")
    if found is None:
        pytest.skip("label-studio-sdk is not installed: pip install --no-deps label-studio-sdk")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("label_studio_sdk", "jsf")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("label_studio_sdk", "label_studio_sdk._legacy"):
        package = ModuleType(name)
        package.__path__ = [str(Path(p, *name.split(".")[1:])) for p in found.submodule_search_locations]
        monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setitem(sys.modules, "jsf", ModuleType("jsf"))
    sys.modules["jsf"].JSF = None
    yield importlib.import_module("label_studio_sdk.label_interface")
    for name in [name for name in sys.modules if name.startswith("label_studio_sdk.")]:
        sys.modules.pop(name)


def test_ranking_direction_against_the_label_studio_sdk(answers, label_studio):
    """Their own classes take our set-ups and annotations; left is their first text, and bucket 1 is called the best."""
    sdk = label_studio
    written = {t["data"]["id"]: t for t in json.loads(export(answers, "label_studio").text)}
    mine = {a.question.id: a for a in answers}
    for id, task in written.items():
        interface = sdk.LabelInterface(labelling_set_up(mine[id].question))
        assert interface.validate_task({"data": task["data"]}), id
        (annotation,) = task["annotations"]
        regions = annotation["result"]
        for region in (r for r in regions if r["type"] == "pairwise"):  # which their own validator does not take
            theirs = interface.get_control(region["from_name"]).label(region["value"]["selected"])._dict()
            assert {name: theirs[name] for name in region} == region
        others = {"result": [r for r in regions if r["type"] != "pairwise"]}
        assert interface.validate_annotation(others), interface.validate_prediction(others, return_errors=True)
    pair, task = mine["p1"], written["p1"]
    side = next(r["value"]["selected"] for r in task["annotations"][0]["result"] if r["type"] == "pairwise")
    control = sdk.LabelInterface(labelling_set_up(pair.question)).get_control("overall")
    said = control.to_json_schema()["description"]
    assert "left (left) and right (right)" in said
    assert task["data"][side] == pair.question.responses[pair.order[0]], "place 0, the first on our page, was preferred"
    (ranker,) = written["r1"]["annotations"][0]["result"]
    body = {item["id"]: item["body"] for item in written["r1"]["data"]["responses"]}
    best = {body[i] for i in ranker["value"]["ranker"]["1"]}
    assert best == {mine["r1"].question.responses[mine["r1"].order[place]] for place in (1, 2)}


# ------------------------------------------------------------------------------------------------ others' files


def test_argilla_names_without_ranks_are_best_first(other):
    row = {
        "id": "x", "fields": {"prompt": "P", "response-1": "A", "response-2": "B", "response-3": "C"},
        "responses": {"quality": [
            {"value": ["response-2", "response-3", "response-1"], "user_id": "u1"},
            {"value": [{"value": "response-1", "rank": 1}], "user_id": "u2"},
            {"value": [], "user_id": "u3", "status": "draft"},
        ]},
    }  # fmt: skip
    brought = bring_in(other, json.dumps([row]), "argilla", batch="a")
    (answer,) = other.answers()
    assert answer.answer.ranks == {"quality": (3, 1, 2)} and answer.annotator == "u1"
    assert brought.left_out == {"rankings of only some of the responses": 1, "responses that were not submitted": 1}


def test_ultrafeedback_as_it_is_published(other):
    def completion(text, helpful, honest, overall):
        ratings = {"helpfulness": {"Rating": helpful, "Rationale": "r"}, "honesty": {"Rating": honest}}
        return {"model": "m", "response": text, "annotations": ratings, "overall_score": overall, "critique": "c"}

    row = {
        "source": "flan", "instruction": "Do", "models": ["m"] * 3, "correct_answers": ["None"],
        "completions": [completion("A", "4", "N/A", 7.5), completion("B", "5", "2", 8.0), completion("C", "4", "3", 2)],
    }  # fmt: skip
    brought = bring_in(other, json.dumps(row), "ultrafeedback", batch="u", annotator="gpt-4")
    (answer,) = other.answers()
    assert answer.answer.ranks == {"overall": (2, 1, 3), "helpfulness": (2, 1, 2)} and answer.annotator == "gpt-4"
    assert brought.left_out == {"ratings of honesty, which not every completion has": 1}


def test_an_order_that_was_not_told_is_not_made_up(other):
    bring_in(other, json.dumps({"prompt": "P", "chosen": "good", "rejected": "bad"}), "trl_preference", batch="t")
    (answer,) = other.answers()
    (comparison,) = records(answer)
    assert comparison.shown == () and answer.by == {"import": "trl_preference"}
    assert comparison.responses[comparison.preferences[0].better] == "good"


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        ("trl_preference", '{"prompt": "P", "chosen": "x"}', "'rejected' must hold str"),
        ("label_studio", "{}", "not a JSON array"),
        ("assent", "nonsense", "line 1 is not a JSON object"),
        ("csv", "id,annotator,prompt,better,worse,says\n1,a,P,x,y,much\n", "'says' holds one of"),
        ("assent", "{}", "lacks 'question'"),
    ],
)
def test_a_file_of_another_form_is_refused_whole(other, form, text, says):
    with pytest.raises(DataError, match=says):
        bring_in(other, text, form, batch="b")
    assert not list(other.questions())


def test_an_unknown_form_is_refused(answers):
    with pytest.raises(DataError, match=", ".join(FORMS)):
        export(answers, "parquet")


# ------------------------------------------------------------------------------------------------ the commands


def command(*args):
    return CliRunner().invoke(app, ["label", *map(str, args)])


def test_the_commands_say_what_was_left_out_and_bring_it_back(store, answers, tmp_path):
    url, file = store.database.url, tmp_path / "out.json"
    done = command("export", url, "--format", "trl_preference", "--out", file)
    assert done.exit_code == 0 and "left out 6: ties have no chosen and rejected" in done.output, done.output
    done = command("export", url, "--out", file)
    assert "24 rows; nothing was left out" in done.output
    for said in ("24 answers to 12 new questions", "0 answers to 0 new questions, 24 were there before"):
        done = command("import", file, "--format", "assent", "--store", tmp_path / "new.db")
        assert done.exit_code == 0 and said in done.output, done.output
    done = command("import", tmp_path / "none.csv", "--format", "csv", "--store", tmp_path / "new.db")
    assert done.exit_code == 1 and "cannot be read" in done.output


def test_an_empty_export_is_refused(tmp_path):
    Store.open(str(tmp_path / "s.db")).close()
    done = command("export", tmp_path / "s.db", "--out", tmp_path / "x")
    assert done.exit_code == 1 and "there is nothing to export" in done.output and not (tmp_path / "x").exists()
