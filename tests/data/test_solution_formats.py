"""Labelled solutions from files: by hand, and the real files with counts taken from them by other means."""

import json
from collections import Counter
from typing import Any

import pytest
from pydantic import TypeAdapter

from assent.data.solution_formats import GsmSolutions, Prm800k, PrmBench, Solutions, miscalculated
from assent.errors import DataError
from assent.records import Rating

G, N, B = Rating.GOOD, Rating.NEUTRAL, Rating.BAD
ANY: TypeAdapter = TypeAdapter(Solutions | PrmBench | Prm800k | GsmSolutions)


def read(path, rows, **named: Any):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ANY.validate_python({"path": str(path), **named}).read()


def test_our_own(tmp_path):
    rows = [
        {"prompt": "Sum: 3+4\n", "steps": ["3+4=7\n", "Answer: 7"], "labels": ["good", None], "correct": True},
        {"id": "x", "prompt": [{"role": "user", "content": "Hi"}], "steps": ["a"], "labels": [0.25], "ended": False},
    ]
    one, two = read(tmp_path / "own.jsonl", rows, format="solutions").train
    assert one.id == "own.jsonl:1" and one.labels == (G, None) and one.correct and one.response == "3+4=7\nAnswer: 7"
    assert two.labels == (0.25,) and two.correct is None and not two.ended and two.prompt[0].content == "Hi"
    for bad in ({"prompt": "p", "steps": ["a"], "labels": ["fine"]}, {"prompt": "p", "steps": ["a"], "labels": []}):
        with pytest.raises(DataError, match="no labelled solution"):
            read(tmp_path / "bad.jsonl", [bad], format="solutions")


PRMBENCH = {
    "original_question": "What is 2+2?", "original_process": ["Add.", "It is 4."], "idx": "7",
    "classification": "circular",
    "modified_process": ["Assume 4.", " Check it. ", "It is 4."], "error_steps": [1, 3],
}  # fmt: skip


def test_prmbench(tmp_path):
    made, original = read(tmp_path / "p.jsonl", [PRMBENCH], format="prm_bench", originals=True).train
    assert made.prompt == "What is 2+2?\n" and made.steps == ("Assume 4.\n", "Check it.\n", "It is 4.")
    assert made.labels == (B, G, B) and made.correct is False and made.kind == "circular" and made.first_error == 0
    assert original.labels == (G, G) and original.correct and original.prompt == made.prompt
    for wrong in ([0], [4], [], None):
        with pytest.raises(DataError, match="error_steps"):
            read(tmp_path / "p.jsonl", [{**PRMBENCH, "error_steps": wrong}], format="prm_bench")


def shown(text, rating):
    return {"text": text, "rating": rating, "flagged": None}


def test_prm800k(tmp_path):
    """A step that was chosen, one that the labeller wrote, and the error at which labelling stopped."""
    steps = [
        {"completions": [shown("no", -1), shown("First.", 1)], "human_completion": None, "chosen_completion": 1},
        {"completions": [shown("no", -1)], "human_completion": shown("Second.", None), "chosen_completion": None},
        {"completions": [shown("Third.", 0)], "human_completion": None, "chosen_completion": 0},
        {"completions": [shown("Wrong.", -1)], "human_completion": None, "chosen_completion": None},
    ]
    question = {"problem": "Q", "ground_truth_answer": "4"}
    (found,) = read(
        tmp_path / "p.jsonl",
        [{"question": question, "label": {"steps": steps, "finish_reason": "found_error"}}],
        format="prm800k",
    ).train
    assert found.steps == ("First.\n", "Second.\n", "Third.\n", "Wrong.") and found.labels == (G, G, N, B)
    assert found.correct is False and found.first_error == 3 and not found.ended
    rows = [{"question": question, "label": {"steps": steps[:3], "finish_reason": r}} for r in ("solution", "give_up")]
    made = read(tmp_path / "p.jsonl", rows, format="prm800k")
    assert len(made.train) == 1 and made.train[0].correct and made.train[0].ended and made.report.records == 1


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("so 16 - 3 = <<16-3=13>>13", False),
        ("so 16 - 3 = <<16-3=14>>14", True),
        ("<<60/100*5=3.0>>3", False),
        ("<<1/3=0.33>>", False),
        ("<<2+2=4>> and <<3*3=10>>", True),
        ("<<-(2+1)=-3>>", False),
        ("<<half of 4=2>>", False),
        ("<<1/0=7>>", False),
        ("no calculation", False),
    ],
)
def test_calculations_between_the_marks_are_checked(line, wrong):
    assert miscalculated(line) is wrong


def test_gsm_solutions(tmp_path):
    row = {
        "question": "Q",
        "6b_finetuning": {"is_correct": True, "solution": "a <<1+1=2>>2\nb\nA: 2"},
        "6b_verification": {"is_correct": False, "solution": "a <<1+1=3>>3\nb <<3+1=4>>4\n\nA: 4"},
        "175b_finetuning": {"is_correct": False, "solution": "\n"},
    }
    names = ["6b_finetuning", "6b_verification", "175b_finetuning"]
    made = read(tmp_path / "g.jsonl", [row], format="gsm_solutions", columns=names)
    right, wrong = made.train
    assert right.labels == (G, G, G) and right.correct and right.kind == "6b_finetuning"
    assert wrong.labels == (B, None, B) and wrong.steps[1] == "b <<3+1=4>>4\n" and wrong.correct is False
    assert len(made.train) == 2, "an empty solution is left out"


def test_the_real_prmbench(data_folder):
    """718 rows, 21 of which name a step that is not there (counted), and one has a blank step."""
    folder = data_folder / "prmbench-steps"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    kinds: Counter = Counter()
    labels: Counter = Counter()
    for path in sorted(folder.glob("*.jsonl")):
        made = ANY.validate_python({"format": "prm_bench", "path": str(path), "reading": {"on_bad_row": "skip"}}).read()
        kinds.update(s.kind for s in made.train)
        labels.update(x for s in made.train for x in s.labels)
        assert all(s.first_error is not None for s in made.train)
    assert sum(kinds.values()) in (718 - 21, 718 - 22) and len(kinds) == 8
    assert 1500 < labels[B] < 1675 and labels[G] > 8000


def test_the_real_gsm_solutions(data_folder):
    """1319 x 4 solutions, 2001 of them right (counted); 43 calculations of 16,692 differ from their result."""
    path = data_folder / "gsm8k-solutions" / "example_model_solutions.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    made = ANY.validate_python({"format": "gsm_solutions", "path": str(path)}).read().train
    assert len(made) == 5276 and sum(bool(s.correct) for s in made) == 2001
    assert all(s.labels[-1] is (G if s.correct else B) or s.labels[-1] is B for s in made)
    inside = sum(x is B for s in made for x in s.labels[:-1])
    assert 5 < inside < 80
