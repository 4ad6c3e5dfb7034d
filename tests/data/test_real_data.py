"""The real files, with the counts that were counted from them by other means (see each comment)."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from assent.data.audit import audit_comparisons, audit_demonstrations
from assent.data.batches import ComparisonExample
from assent.data.comparisons import ComparisonBatches
from assent.data.formats import ComparisonData, DemonstrationData, Tasks, Text
from assent.data.reading import DataSet
from assent.data.splits import check_disjoint
from assent.errors import DataError
from assent.records import Message

ANY: TypeAdapter = TypeAdapter(Text | DemonstrationData | ComparisonData | Tasks)


def read(folder: Path, file: str, format: Any, **reading: Any) -> DataSet:
    path = folder / file
    if not path.exists():
        pytest.skip(f"{path} is not there")
    said = {"format": format} if isinstance(format, str) else format
    return ANY.validate_python({"path": str(path), **said, "reading": reading}).read()


def test_qa_feedback(data_folder):
    """500 x 4 with all six pairs; 384 ties (counted: 384 zeros, 1577 ones, 1039 twos)."""
    made = read(data_folder, "finegrained-qa-feedback/dev_feedback.json", "qa_feedback").train
    assert Counter((len(c.responses), len(c.preferences)) for c in made) == {(4, 6): 500}
    assert sum(p.tie for c in made for p in c.preferences) == 384
    ordered = [(p.better < p.worse) for c in made for p in c.preferences if not p.tie]
    assert Counter(ordered) == {True: 1577, False: 1039}
    assert made[0].prompt == "When does bloom by troye sivan come out?"
    assert made[0].id == "dev_feedback.json:2"


def test_qa_feedback_in_batches(data_folder):
    """384 ties leave the pairs; 12 of the 500 lists of judgements are all zeros."""
    made = read(data_folder, "finegrained-qa-feedback/dev_feedback.json", "qa_feedback").train
    examples = [ComparisonExample([1], [[2]] * 4, c.preferences) for c in made]
    source = ComparisonBatches(examples, batch_size=32, epochs=1, seed=0)
    batches = [batch for _, batch in source]
    assert source.kept_out == sum(all(p.tie for p in c.preferences) for c in made) == 12
    assert source.ties == 384 and source.pairs == 2616
    assert sum(len(b) for b in batches) == 488 and sum(len(b.better_P) for b in batches) == 2616


def test_pandalm_refuses_its_six_responses_that_are_no_text(data_folder):
    """Six of 999 rows hold the JSON value true where a response should be."""
    with pytest.raises(DataError, match="6 of 999 rows"):
        read(data_folder, "pandalm-3annotators/testset-v1.json", "votes")


def test_pandalm(data_folder):
    """999 x 3 votes: 326 ties, 1255 and 1416; the six bad rows hold 4, 9 and 5 of them."""
    made = read(data_folder, "pandalm-3annotators/testset-v1.json", "votes", on_bad_row="skip")
    assert (made.report.read, made.report.kept, made.report.records) == (999, 993, 2979)
    assert [b.line for b in made.report.bad] == [1886, 1898, 1910, 1934, 1946, 1970]
    votes = Counter("tie" if c.preferences[0].tie else c.preferences[0].better for c in made.train)
    assert votes == {"tie": 326 - 4, 0: 1255 - 9, 1: 1416 - 5}
    assert Counter(c.annotator for c in made.train) == dict.fromkeys(("annotator1", "annotator2", "annotator3"), 993)
    found = audit_comparisons(made.train)
    assert (found.prompts, found.empty) == (170, 162)  # 54 of the pairs hold an empty response


def test_oasst_trees(data_folder):
    """100 trees of 1167 messages, 480 of them users'; 687 replies, 46 without a rank."""
    made = read(data_folder, "oasst-ranked-trees/en_100_tree.jsonl", "oasst_trees")
    assert made.report.left_out == {
        "a reply without a rank": 46,
        "a user turn with fewer than two ranked replies": 480 - 212,
    }
    sizes = Counter(len(c.responses) for c in made.train)
    assert sizes == {2: 57, 3: 117, 4: 27, 5: 3, 6: 6, 8: 1, 9: 1}
    assert Counter(len(c.prompt) for c in made.train).keys() == {1, 3, 5}
    assert all(c.prompt[-1].role == "user" for c in made.train)


def test_oasst_chinese_ranked_list(data_folder):
    """775 prompts, 392 with earlier turns; the pairs are the sum of K (K - 1) / 2."""
    format = {
        "format": "ranked_list",
        "prompt": {"columns": ["instruction", "input"], "history": "history"},
        "responses": "output",
    }
    made = read(data_folder, "oasst-ranked-trees/oaast_rm_zh.json", format).train
    assert Counter(len(c.responses) for c in made) == {2: 434, 3: 263, 4: 63, 5: 12, 6: 1, 8: 1, 10: 1}
    assert Counter(len(c.prompt) for c in made) == {1: 383, 3: 366, 5: 26}
    assert made[0].prompt == (Message("user", "布洛芬和对乙酰氨基酚的区别是？"),)
    assert sum(len(c.preferences) for c in made) == 434 + 3 * 263 + 6 * 63 + 10 * 12 + 15 + 28 + 45


def test_hhh(data_folder):
    made = read(data_folder, "hhh-dimensions/hhh_pairs.jsonl", {"format": "pairs", "kind": "dimension"}).train
    assert Counter(c.kind for c in made) == {"honest": 61, "helpful": 59, "harmless": 58, "other": 43}


def test_gsm8k(data_folder):
    format = {"format": "demonstrations", "prompt": "question", "response": "answer"}
    train = read(data_folder, "gsm8k/train.jsonl", format).train
    test = read(data_folder, "gsm8k/test.jsonl", format).train
    assert (len(train), len(test)) == (7473, 1319)
    assert audit_demonstrations(train).duplicates == 0
    check_disjoint(train, test)


def test_gsm8k_answers(data_folder):
    format = {"format": "tasks", "prompt": "question", "answer": "answer", "answer_after": "####"}
    made = read(data_folder, "gsm8k/train.jsonl", format).train
    assert made[0].answer == "72" and len(made) == 7473
    assert all(float(t.answer.replace(",", "")) > -1e9 for t in made), "every answer is a number"


def test_gsm8k_held_out_by_prompt(data_folder):
    made = read(data_folder, "gsm8k/train.jsonl", {"format": "tasks", "prompt": "question"}, held_out=0.1, seed=4)
    assert len(made.train) + len(made.held_out) == 7473 and 640 < len(made.held_out) < 860
    check_disjoint(made.train, made.held_out)


@pytest.mark.parametrize(("file", "count"), [("seed_tasks.jsonl", 175), ("user_oriented_instructions.jsonl", 252)])
def test_self_instruct(data_folder, file, count):
    format = {
        "format": "demonstrations",
        "prompt": ["instruction", "instances.0.input"],
        "response": "instances.0.output",
    }
    made = read(data_folder, f"self-instruct-252/{file}", format).train
    assert len(made) == count and audit_demonstrations(made).prompts == count


def test_human_answers(data_folder):
    format = {"format": "demonstrations", "prompt": "question", "response": "answers.0"}
    made = read(data_folder, "finegrained-qa-feedback/dev_sft.jsonl", format).train
    asked = read(data_folder, "finegrained-qa-feedback/dev_feedback.json", "qa_feedback").train
    assert len(made) == 500
    with pytest.raises(DataError, match="500 prompts in both"):  # the same questions, as its README says
        check_disjoint(made, asked, names=("demonstrations", "comparisons"))


def test_shakespeare(data_folder):
    whole = read(data_folder, "tinyshakespeare/input.txt", "text").train
    parts = read(data_folder, "tinyshakespeare/input.txt", {"format": "text", "cut_at": "blank_line"}).train
    assert len(whole) == 1 and len(whole[0].text) == 1_115_394
    assert len(parts) == 7222
    assert sum(len(d.text.split()) for d in parts) == len(whole[0].text.split())


def test_prompts(data_folder):
    format = {"format": "tasks", "prompt": "turns.0.content", "id": "question_id"}
    assert len(read(data_folder, "prompts/arena_hard_question.jsonl", format).train) == 500
    format = {"format": "tasks", "id": "id", "kind": "label"}
    made = read(data_folder, "xstest/xstest_prompts.csv", format).train
    assert Counter(t.kind for t in made) == {"safe": 250, "unsafe": 200}
