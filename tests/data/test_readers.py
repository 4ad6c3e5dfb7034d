"""Every format from a file written here, and every kind of bad row named by file and line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import Field

from assent.config import Tree, plain, validate
from assent.data.formats import ComparisonData, DemonstrationData, Pairs, Tasks, Text
from assent.data.readers import read_records
from assent.data.rows import BadRow, Row, read_rows
from assent.errors import DataError
from assent.records import Comparison, Degree, Demonstration, Document, Message, Preference

ROWS = [{"prompt": "Name a colour.", "response": "Blau, naïvely ☂"}, {"prompt": "And\na number?", "response": "7"}]


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., str]:
    """Write rows as JSON lines (a text is written as it stands) and give the path."""

    def write(*rows: Any, name: str = "data.jsonl") -> str:
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


AnyData = Annotated[Text | DemonstrationData | ComparisonData | Tasks, Field(discriminator="format")]


def spec(path: str, format: Any, **reading: Any) -> Any:
    """As a recipe gives it: through strict JSON."""
    said = {"format": format} if isinstance(format, str) else format
    made, problems = validate(AnyData, {"path": path, **said, "reading": reading}, Tree("recipe", {}))
    assert made is not None, problems
    return made


class TestFiles:
    def test_kinds_of_file_give_the_same_rows(self, tmp_path, lines):
        paths = [lines(*ROWS), lines(*ROWS, name="lines.json"), tmp_path / "a.json", tmp_path / "z.jsonl.gz"]
        paths += [tmp_path / "a.parquet", tmp_path / "a.csv", tmp_path / "a.tsv"]
        paths[2].write_text(json.dumps(ROWS, indent=2), encoding="utf-8")
        paths[3].write_bytes(gzip.compress(Path(paths[0]).read_bytes()))
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), paths[4])
        paths[5].write_text('prompt,response\nName a colour.,"Blau, naïvely ☂"\n"And\na number?",7\n', encoding="utf-8")
        paths[6].write_text(
            'prompt\tresponse\nName a colour.\tBlau, naïvely ☂\n"And\na number?"\t7\n', encoding="utf-8"
        )
        for path in paths:
            assert [dict(r.values) for r in read_rows(path)] == ROWS, path

    def test_rows_know_the_line_they_start_on(self, tmp_path, lines):
        assert [r.line for r in read_rows(lines(ROWS[0], "", ROWS[1]))] == [1, 3]
        path = tmp_path / "list.json"
        path.write_text('\n[\n {"a": [1,\n  2]}\n ,\n {"a": 3},{"a": 4}\n]\n')
        assert [(r.line, r.values["a"]) for r in read_rows(path)] == [(3, [1, 2]), (6, 3), (6, 4)]
        assert [r.where for r in read_rows(path)] == [f"{path}:3", f"{path}:6", f"{path}:6"]
        path = tmp_path / "table.csv"
        path.write_text('a,b\n1,"x\ny"\n2,z\n')
        assert [r.line for r in read_rows(path)] == [2, 4]

    def test_an_empty_list_and_a_byte_order_mark(self, tmp_path):
        path = tmp_path / "a.json"
        path.write_text(" [ ]\n")
        assert list(read_rows(path)) == []
        path.write_bytes(b"\xef\xbb\xbf[{}]")
        assert [r.values for r in read_rows(path)] == [{}]
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
        assert [r.values for r in read_rows(path)] == [{"a": 1}]

    def test_a_broken_line_spoils_only_itself(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"a": 1}\n{"a": \n\xff\xfe\n[1]\n{"a": "\\ud83d"}\n{"a": "\\ud83d\\ude00"}\n')
        rows = list(read_rows(path))
        assert [(r.line, isinstance(r, BadRow)) for r in rows] == [
            (1, False),
            (2, True),
            (3, True),
            (4, True),
            (5, True),
            (6, False),
        ]
        assert rows[5].values["a"] == "😀"
        assert str(rows[3]).startswith(f"{path}:4: a row must be a JSON object; got list '[1]'")

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("a.json", '[\n{"a": 1},\n{"a": ', ":3: the list breaks off"),
            ("a.json", '[\n{"a": 1}\n{"a": 2}]', ":3: the list breaks off"),
            ("a.json", '[{"a": 1}', ":1: the list breaks off"),
            ("a.json", "[]\n{}", "after the list's end"),
            ("a.json", '{\n"data": []}', "neither a list of objects nor JSON lines"),
            ("a.csv", 'a,b\n1,"x\n', "breaks off"),
            ("a.parquet", "PAR1 not at all", "not a whole Parquet file"),
            ("a.docx", "", "kind of the file is not known"),
        ],
    )
    def test_a_damaged_file_is_refused(self, tmp_path, name, text, said):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=said):
            list(read_rows(tmp_path / name))

    def test_a_table_row_of_another_width_is_bad(self, tmp_path):
        (tmp_path / "a.csv").write_text("a,b\n1,2\n1,2,3\n\n4,5\n")
        rows = list(read_rows(tmp_path / "a.csv"))
        assert [(r.line, isinstance(r, BadRow)) for r in rows] == [(2, False), (3, True), (5, False)]

    def test_nothing_there(self, tmp_path):
        for missing in (tmp_path / "none.jsonl", tmp_path / "none", "./none", "none.parquet"):
            with pytest.raises(DataError, match="no such file"):
                list(read_rows(missing))

    def test_a_file_has_no_split(self, lines):
        with pytest.raises(DataError, match="has no splits"):
            read_rows(lines(*ROWS), "train")


class TestHub:
    """The hub's code path, on a folder: `datasets.load_dataset` takes both, and no network is needed."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
        folder = tmp_path / "set"
        folder.mkdir()
        (folder / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
        return folder

    def test_one_split(self, folder):
        rows = list(read_rows(folder))
        assert [r.values for r in rows] == ROWS
        assert rows[1].where == f"{folder}[train]:2"

    def test_several_splits_want_a_name(self, folder):
        (folder / "test.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
        with pytest.raises(DataError, match=r"several splits\n  got: train, test"):
            list(read_rows(folder))
        assert [r.values for r in read_rows(folder, "test")] == ROWS[1:]
        with pytest.raises(DataError, match="cannot be loaded"):
            list(read_rows(folder, "validation"))

    def test_a_name_that_is_no_file_goes_to_the_hub(self, monkeypatch):
        import datasets

        asked = []

        def load(*args: Any, **settings: Any) -> Any:
            asked.append((args, settings))
            return [{"prompt": "p", "response": "r"}]

        monkeypatch.setattr(datasets, "load_dataset", load)
        made = spec("owner/name", "demonstrations", split="train", subset="main", revision="abc").read()
        assert asked == [(("owner/name", "main"), {"split": "train", "revision": "abc"})]
        assert made.train == [Demonstration("p", "r")]


class TestFormats:
    def test_text(self, tmp_path, lines):
        path = tmp_path / "book.txt"
        path.write_text("One line\nand another.\n\n\n  \nSecond.\n\n")
        whole = spec(str(path), "text").read()
        assert [d.text for d in whole.train] == ["One line\nand another.\n\n\n  \nSecond.\n\n"]
        parts = spec(str(path), {"format": "text", "cut_at": "blank_line"}).read()
        assert [d.text for d in parts.train] == ["One line\nand another.", "Second."]
        assert parts.report.records == 2 and parts.report.read == 1
        assert spec(lines({"body": "x"}), {"format": "text", "text": "body"}).read().train == [Document("x")]

    def test_demonstrations_from_nested_columns(self, lines):
        path = lines(
            {"instruction": "Add.", "instances": [{"input": "1 and 2", "output": "3"}]},
            {"instruction": "Greet.", "instances": [{"input": " \n", "output": "Hello"}]},
        )
        format = {
            "format": "demonstrations",
            "prompt": ["instruction", "instances.0.input"],
            "response": "instances.0.output",
        }
        made = spec(path, format).read()
        assert made.train == [Demonstration("Add.\n\n1 and 2", "3"), Demonstration("Greet.", "Hello")]

    def test_history_and_system_make_a_dialogue(self, lines):
        path = lines({"s": "Be kind.", "h": [["a", "b"]], "p": "c", "r": "d"}, {"s": "", "h": [], "p": "e", "r": "f"})
        format = {
            "format": "demonstrations",
            "prompt": {"columns": ["p"], "history": "h", "system": "s"},
            "response": "r",
        }
        made = spec(path, format).read().train
        first = (Message("system", "Be kind."), user("a"), assistant("b"), user("c"))
        assert made == [Demonstration(first, "d"), Demonstration((user("e"),), "f")]

    @pytest.mark.parametrize(
        "messages",
        [
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2,
            [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}] * 2,
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: a\n\nAssistant: b",
            "Human: a \n\nAssistant:  b\n\n\n\nHuman: a\n\nAssistant: b\n",
        ],
    )
    def test_messages(self, lines, messages):
        made = spec(lines({"messages": messages}), "messages").read()
        assert made.train == [Demonstration((user("a"), assistant("b"), user("a")), "b")]

    def test_pairs(self, lines):
        path = lines({"prompt": "p", "chosen": "good", "rejected": "", "how": "Slightly", "who": "ann", "n": 7})
        format = {"format": "pairs", "degree": "how", "annotator": "who", "id": "n"}
        (made,) = spec(path, format).read().train
        prefer = Preference(0, 1, degree=Degree.SLIGHTLY)
        assert made == Comparison("7", "p", ("good", ""), (prefer,), annotator="ann")

    @pytest.mark.parametrize(
        ("prompt", "chosen", "rejected"),
        [
            (None, "\n\nHuman: q\n\nAssistant: yes", "\n\nHuman: q\n\nAssistant: no"),
            (None, [("user", "q"), ("assistant", "yes")], [("user", "q"), ("assistant", "no")]),
            ("q", [("user", "q"), ("assistant", "yes")], [("user", "q"), ("assistant", "no")]),
            ([("user", "q")], [("assistant", "yes")], [("assistant", "no")]),
        ],
    )
    def test_pairs_of_dialogues(self, lines, prompt, chosen, rejected):
        def listed(value: Any) -> Any:
            return [{"role": r, "content": c} for r, c in value] if isinstance(value, list) else value

        row = {"chosen": listed(chosen), "rejected": listed(rejected)} | ({"prompt": listed(prompt)} if prompt else {})
        (made,) = spec(lines(row), {"format": "pairs"} if prompt else {"format": "pairs", "prompt": None}).read().train
        assert made.prompt == ("q" if isinstance(prompt, str) else (user("q"),))
        assert made.responses == ("yes", "no") and made.preferences == (Preference(0, 1),)
        assert made.id == "data.jsonl:1"

    @pytest.mark.parametrize(("order", "ranks"), [("rank", [2, 1, 2]), ("score", [0.5, 9.5, 0.5])])
    def test_rankings_with_ties(self, lines, order, ranks):
        path = lines({"prompt": "p", "responses": ["a", "b", "c"], "ranks": ranks})
        (made,) = spec(path, {"format": "rankings", "order": order}).read().train
        assert made.preferences == (Preference(1, 0), Preference(0, 2, tie=True), Preference(1, 2))

    def test_ranked_list(self, lines):
        path = lines({"prompt": "p", "responses": ["a", "b", "c"]})
        (made,) = spec(path, "ranked_list").read().train
        assert made.preferences == (Preference(0, 1), Preference(0, 2), Preference(1, 2))

    def test_qa_feedback(self, lines):
        row = {"question": "q", **{f"prediction {i}": f"r{i}" for i in range(1, 5)}, "preference": [0, 1, 2, 1, 0, 2]}
        (made,) = spec(lines(row), "qa_feedback").read().train
        assert made.responses == ("r1", "r2", "r3", "r4")
        assert made.preferences == (
            Preference(0, 1, tie=True),
            Preference(0, 2),
            Preference(3, 0),
            Preference(1, 2),
            Preference(1, 3, tie=True),
            Preference(3, 2),
        )

    def test_votes(self, lines):
        row = {"instruction": "i", "input": "", "response1": "a", "response2": "b", "idx": 3}
        path = lines(row | {"annotator1": 2, "annotator2": 0, "annotator3": None})
        made = spec(path, {"format": "votes", "id": "idx"}).read()
        assert made.train == [
            Comparison("3/annotator1", "i", ("a", "b"), (Preference(1, 0),), annotator="annotator1"),
            Comparison("3/annotator2", "i", ("a", "b"), (Preference(0, 1, tie=True),), annotator="annotator2"),
        ]
        assert made.report.left_out == {"no vote of an annotator": 1}

    def test_oasst_trees(self, lines):
        def node(text: str, role: str, *replies: Any, **more: Any) -> dict[str, Any]:
            return {"message_id": text, "text": text, "role": role, "replies": list(replies), **more}

        more = node("more", "prompter", *[node(f"m{r}", "assistant", rank=r) for r in (1, 0, 1)])
        removed = node("removed", "prompter", node("x", "assistant", rank=0), deleted=True)
        best, worst = node("best", "assistant", more, removed, rank=0), node("worst", "assistant", rank=2)
        root = node("root", "prompter", worst, best, node("unranked", "assistant"))
        made = spec(lines({"prompt": root}), "oasst_trees").read()
        assert [(c.id, c.prompt, c.responses) for c in made.train] == [
            ("root", (user("root"),), ("worst", "best")),
            ("more", (user("root"), assistant("best"), user("more")), ("m1", "m0", "m1")),
        ]
        assert made.train[0].preferences == (Preference(1, 0),)
        assert made.train[1].preferences == (Preference(1, 0), Preference(0, 2, tie=True), Preference(1, 2))
        assert made.report.left_out == {"a reply without a rank": 1, "a branch that begins with a deleted message": 1}

    def test_a_reference_answer_is_read_whole_or_after_a_mark(self, lines):
        path = lines({"prompt": "1 + 1", "a": "so #### 3, no: #### 2 "}, {"prompt": "2 + 1", "a": "#### 3"})
        marked = spec(path, {"format": "tasks", "answer": "a", "answer_after": "####"}).read().train
        assert [t.answer for t in marked] == ["2", "3"]
        whole = spec(path, {"format": "tasks", "answer": "a"}).read().train
        assert [t.answer for t in whole] == ["so #### 3, no: #### 2", "#### 3"]
        assert [t.answer for t in spec(path, {"format": "tasks"}).read().train] == ["", ""]

    def test_tasks_know_their_side(self, lines):
        path = lines(*[{"prompt": f"p{i}", "topic": "t"} for i in range(40)])
        made = spec(path, {"format": "tasks", "kind": "topic"}, held_out=0.5).read()
        assert {t.split for t in made.train} == {"train"} and {t.split for t in made.held_out} == {"held_out"}
        assert len(made.train) + len(made.held_out) == 40 and made.train[0].kind == "t"

    def test_lists_of_texts_are_documents_and_empty_ones_are_counted(self, lines):
        rows = [{"parts": [["A title.", "Its text."], ["Another."]]}, {"parts": []}, {"parts": ["One.", "Two.", " "]}]
        made = spec(lines(*rows), {"format": "text", "text": "parts"}).read()
        assert [d.text for d in made.train] == ["A title. Its text.", "Another.", "One.", "Two."]
        assert made.report.left_out == {"an empty list of texts": 1} and made.report.kept == 3

    def test_swapped_sides_are_each_other_s_rest(self, lines):
        path = lines(*({"prompt": f"task {i}"} for i in range(40)))
        one, other = (spec(path, {"format": "tasks"}, held_out=0.4, swap=swap).read() for swap in (False, True))
        sides = [{t.id for t in side} for side in (one.train, one.held_out, other.train, other.held_out)]
        assert sides[0] == sides[3] and sides[1] == sides[2] and not sides[0] & sides[1] and all(sides)
        assert {t.split for t in other.train} == {"train"} and {t.split for t in other.held_out} == {"held_out"}


OK = {"prompt": "p", "response": "r"}

PAIR = {"format": "pairs", "prompt": None}
BAD: dict[str, tuple[Any, Any, str]] = {
    "no column": (
        "demonstrations",
        {"prompt": "p"},
        "there is no column 'response'\n  got: columns prompt",
    ),
    "not text": ("demonstrations", OK | {"response": 7}, "must hold text\n  got: 7"),
    "empty response": ("demonstrations", OK | {"response": " "}, "must hold text\n  got: ' '"),
    "empty prompt": ("demonstrations", OK | {"prompt": ""}, "the prompt is empty"),
    "empty text": ("text", {"text": "\n"}, "must hold text"),
    "no dialogue": ("messages", {"messages": "hello"}, "must hold a dialogue"),
    "unknown role": (
        "messages",
        {"messages": [{"role": "robot", "content": "x"}]},
        r"message messages\[0\] is not one",
    ),
    "user last": (
        "messages",
        {"messages": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c"},
        "must end with a response of the assistant\n  got: turns user, assistant, user",
    ),
    "last turn empty": ("messages", {"messages": "\n\nHuman: a\n\nAssistant:"}, "is empty"),
    "prefixes differ": (
        PAIR,
        {"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: x"},
        r"differ before their last turn\n  got: turn 1, chosen: 'a'; rejected: 'b'",
    ),
    "one prefix longer": (
        PAIR,
        {
            "chosen": "\n\nHuman: a\n\nAssistant: x\n\nHuman: c\n\nAssistant: y",
            "rejected": "\n\nHuman: a\n\nAssistant: x",
        },
        "turn 2, chosen: 'x'; rejected: no turn",
    ),
    "prompt differs": (
        "pairs",
        {"prompt": "z", **dict.fromkeys(("chosen", "rejected"), "\n\nHuman: a\n\nAssistant: x")}
        | {"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}]},
        "prompt: 'z'; chosen: 'a'",
    ),
    "unknown degree": (
        {"format": "pairs", "degree": "d"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "d": "vastly"},
        "must name a degree\n  got: 'vastly'",
    ),
    "ranks missing": (
        "rankings",
        {"prompt": "p", "responses": ["a", "b"], "ranks": [1]},
        r"one number per response\n  got: \[1\] for 2",
    ),
    "rank is no number": (
        "rankings",
        {"prompt": "p", "responses": ["a", "b"], "ranks": [1, True]},
        "one number per response",
    ),
    "one response": ("ranked_list", {"prompt": "p", "responses": ["a"]}, "at least two texts"),
    "five of six": (
        "qa_feedback",
        {"question": "q", **{f"prediction {i}": "r" for i in range(1, 5)}, "preference": [1] * 5},
        "one judgement for each of 6 pairs",
    ),
    "odd vote": (
        {"format": "votes", "prompt": "prompt", "votes": ["v"]},
        {"prompt": "p", "response1": "a", "response2": "b", "v": 3},
        r"'v' must hold 0 \(tie\), 1 \(the first\) or 2 \(the second\)\n  got: 3",
    ),
    "no tree": ("oasst_trees", {"prompt": {"text": "x"}}, "lacks its text, role or replies"),
    "no mark": ({"format": "tasks", "answer": "a", "answer_after": "####"}, {"prompt": "p", "a": "7"}, "after '####'"),
    "no answer": ({"format": "tasks", "answer": "a", "answer_after": "#"}, {"prompt": "p", "a": "7 #"}, "an answer"),
    "no identity": ({"format": "tasks", "id": "n"}, {"prompt": "p", "n": None}, "must hold an identity"),
}


class TestBadRows:
    @pytest.mark.parametrize(("format", "row", "said"), BAD.values(), ids=BAD.keys())
    def test_refused_by_file_and_line(self, lines, format, row, said):
        path = lines(row)
        with pytest.raises(DataError, match=said) as caught:
            spec(path, format).read()
        assert str(caught.value).startswith(f"{path}:1: ")
        assert caught.value.fix.endswith("or set on_bad_row: skip")

    def test_all_bad_rows_are_named_at_once(self, lines):
        path = lines(OK, "{", OK, {"prompt": "p"}, *[{}] * 20)
        with pytest.raises(DataError, match="22 of 24 rows") as caught:
            spec(path, "demonstrations").read()
        assert f"{path}:2: the line is not JSON" in str(caught.value)
        assert f"{path}:4: there is no column 'response'" in str(caught.value)
        assert "and 12 more" in str(caught.value)

    def test_skipped_rows_are_counted_and_listed(self, lines):
        path = lines(OK, "{", OK | {"prompt": 1}, OK)
        made = spec(path, "demonstrations", on_bad_row="skip").read()
        assert len(made.train) == 2
        assert (made.report.read, made.report.kept, made.report.records) == (4, 2, 2)
        assert [(b.file, b.line) for b in made.report.bad] == [(path, 2), (path, 3)]
        assert "read 4 rows, kept 2, made 2 records\n  skipped 2 bad rows\n" in str(made.report)
        assert f"{path}:3: the column 'prompt' must hold text; got 1" in str(made.report)

    def test_a_row_that_is_bad_in_one_part_makes_nothing(self, lines):
        row = {"instruction": "i", "input": "", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": 1}
        path = lines(row | {"annotator3": 1}, row | {"annotator3": 9})
        made = spec(path, "votes", on_bad_row="skip").read()
        assert [c.id for c in made.train] == [f"data.jsonl:1/annotator{i}" for i in (1, 2, 3)]

    def test_nothing_left_is_refused(self, lines):
        with pytest.raises(DataError, match="gave no record"):
            spec(lines("{"), "demonstrations", on_bad_row="skip").read()

    def test_the_limit_takes_the_first_records_and_says_so(self, lines):
        made = spec(lines(*[{"prompt": f"p{i}"} for i in range(9)], "{"), "tasks", limit=3).read()
        assert [t.prompt for t in made.train] == ["p0", "p1", "p2"]
        assert made.report.limited and made.report.read == 3 and "stopped at the limit" in str(made.report)

    def test_the_limit_cuts_within_a_row_that_makes_several(self, lines):
        made = spec(lines({"text": "a\n\nb\n\nc"}), {"format": "text", "cut_at": "blank_line"}, limit=2).read()
        assert [d.text for d in made.train] == ["a", "b"] and made.report.records == 2

    def test_any_function_of_a_row_can_make_records(self):
        rows = [Row({"x": 1}, "f", 1), Row({"x": 2}, "f", 2)]
        records, report = read_records(rows, lambda row: [row.values["x"]], source="f")
        assert records == [1, 2] and report.kept == 2


class TestSpec:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"format": "pears"}, "pears"),
            ({"chosn": "x"}, "did you mean 'chosen'?"),
            ({"prompt": 3}, "prompt"),
            ({"reading": {"held_out": 1.0}}, "less than 1"),
            ({"reading": {"swap": True}}, "set held_out above 0"),
            ({"reading": {"limit": 0}}, "greater than or equal to 1"),
            ({"reading": {"on_bad_row": "ignore"}}, "refuse"),
            ({"reading": {"on_bad_rows": "skip"}}, "did you mean 'on_bad_row'?"),
        ],
    )
    def test_a_slip_is_refused(self, change, said):
        said_in_recipe = {"path": "x", "format": "pairs", **change}
        made, problems = validate(ComparisonData, said_in_recipe, Tree("recipe", {}), ("stages", "data"))
        assert made is None and len(problems) == 1 and said in str(problems[0])

    @pytest.mark.parametrize(
        "format", ["pairs", "votes", {"format": "demonstrations", "prompt": {"columns": ["p"], "history": "h"}}]
    )
    def test_a_resolved_spec_reads_back_as_itself(self, format):
        made = spec("x.jsonl", format, limit=3)
        assert validate(AnyData, plain(made), Tree("recipe", {})) == (made, [])

    def test_in_python(self, lines):
        path = lines({"q": "p", "good": "a", "bad": "b"})
        (made,) = Pairs(path=path, prompt="q", chosen="good", rejected="bad").read().train
        assert made.responses == ("a", "b")
