"""Labelled solutions as a recipe names them: see `data.formats` for what all formats have in common.

A response is the steps joined by newlines, and each newline belongs to the step before it. A prompt that is plain text
ends with a newline too, so that a response starts where a line starts.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from assent.config import Frozen
from assent.data.columns import get, text, texts
from assent.data.dialogue import brief
from assent.data.formats import DataPath
from assent.data.readers import LeftOut
from assent.data.reading import DataSet, Reading, read_data
from assent.data.rows import Row
from assent.errors import DataError
from assent.records import LabelledSolution, Rating, StepLabel, solution_from_json


class Solutions(Frozen):
    """Labelled solutions as Assent writes them, one `records.LabelledSolution` a line.

    `{"id": "7", "prompt": "Sum: 3+4\\n", "steps": ["3+4=7\\n", "Answer: 7"], "labels": ["good", "good"]}`; a label is
    bad, neutral, good, a number in [0, 1], or null. `correct`, `annotator`, `kind` and `ended` may be left out.
    """

    format: Literal["solutions"] = "solutions"
    path: DataPath
    reading: Reading = Reading()

    def read(self) -> DataSet[LabelledSolution]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[LabelledSolution]:
        whole = {"id": row.name, "correct": None, "annotator": "", "kind": "", "ended": True, **row.values}
        try:
            yield solution_from_json(whole)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "the row is no labelled solution",
                got=f"{type(error).__name__}: {error}",
                why="every step needs its text and a label, or null",
                fix='write {"prompt": ..., "steps": [...], "labels": [...]}',
            ) from error


class PrmBench(Frozen):
    """PRMBench (arXiv 2501.03124): a worked solution, and the same with errors that a model was asked to put in.

    The modified solution is one record, bad at `error_steps` (from 1) and good elsewhere. The original one, from
    PRM800K's test set, is another with all its steps good; it is the same in the files of all kinds of error, so
    take it from one of them.

    Args:
        originals: take the original solutions too.
    """

    format: Literal["prm_bench"] = "prm_bench"
    path: DataPath
    originals: bool = False
    reading: Reading = Reading()

    def read(self) -> DataSet[LabelledSolution]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[LabelledSolution]:
        kind, prompt = text(row, "classification"), _line(text(row, "original_question"))
        steps, wrong = texts(row, "modified_process"), get(row, "error_steps")
        known = range(1, len(steps) + 1)
        if not isinstance(wrong, list) or not wrong or not all(n in known for n in wrong):
            raise DataError(
                "error_steps must name steps of modified_process, counted from 1",
                got=f"{brief(wrong)} of {len(steps)} steps",
                why="the error would be looked for in another step",
                fix="mend the row, or skip it with on_bad_row: skip",
            )
        name = f"{kind}/{text(row, 'idx')}"
        labels = [Rating.BAD if n in wrong else Rating.GOOD for n in known]
        yield _solution(name, prompt, steps, labels, correct=False, kind=kind)
        if self.originals:
            first = texts(row, "original_process")
            good = [Rating.GOOD] * len(first)
            yield _solution(f"original/{text(row, 'idx')}", prompt, first, good, correct=True, kind="original")


class Prm800k(Frozen):
    """PRM800K (arXiv 2305.20050): `question.problem`, and under `label.steps` the completions that were shown.

    A solution is made of the completion that was chosen at each step, or written by the labeller, up to where
    labelling stopped; where it stopped at an error, the bad completion is its last step. Other completions that were
    shown are not read.
    """

    format: Literal["prm800k"] = "prm800k"
    path: DataPath
    reading: Reading = Reading()

    def read(self) -> DataSet[LabelledSolution]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[LabelledSolution | LeftOut]:
        question, label = get(row, "question"), get(row, "label")
        try:
            reason = label["finish_reason"]
            taken = [t for t in map(_taken, label["steps"]) if t is not None]
            prompt = _line(question["problem"])
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(
                "the row is not of PRM800K's shape",
                got=f"{type(error).__name__}: {error}",
                why="steps and ratings stand in question.problem and label.steps[].completions[]",
                fix="give a file of openai/prm800k, or write `solutions`",
            ) from error
        if not taken or reason in ("give_up", "bad_problem"):
            yield LeftOut(f"nothing labelled, or finish_reason {reason}")
            return
        correct = {"solution": True, "found_error": False}.get(reason)
        steps, labels = [s for s, _ in taken], [r for _, r in taken]
        yield _solution(row.name, prompt, steps, labels, correct=correct, kind="", ended=reason == "solution")


_RATINGS: Mapping[Any, StepLabel] = {-1: Rating.BAD, 0: Rating.NEUTRAL, 1: Rating.GOOD, None: None}


def _taken(step: Mapping[str, Any]) -> tuple[str, StepLabel] | None:
    """The text and rating of the completion that a solution went on with, or ended with."""
    shown, chosen = step.get("completions") or [], step["chosen_completion"]
    if chosen is not None:
        return shown[chosen]["text"], _RATINGS[shown[chosen]["rating"]]
    if step.get("human_completion"):
        return step["human_completion"]["text"], Rating.GOOD
    bad = [c for c in shown if c["rating"] == -1]
    return (bad[0]["text"], Rating.BAD) if bad else None


class GsmSolutions(Frozen):
    """Solutions of GSM8K by several models, of which it is known whether the answer is right (arXiv 2110.14168).

    Steps are lines. A line whose calculation `<<48/2=24>>` is wrong is bad. Of a solution with the right answer every
    other line is good; of one with a wrong answer only the last line is known to be bad.

    Args:
        columns: of the solutions.
    """

    format: Literal["gsm_solutions"] = "gsm_solutions"
    path: DataPath
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "6b_finetuning",
        "6b_verification",
        "175b_finetuning",
        "175b_verification",
    )
    reading: Reading = Reading()

    def read(self) -> DataSet[LabelledSolution]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[LabelledSolution | LeftOut]:
        prompt = _line(text(row, "question"))
        for column in self.columns:
            told = get(row, column)
            if not isinstance(told, dict) or not isinstance(told.get("is_correct"), bool):
                raise DataError(
                    f"the column {column!r} must hold a solution and whether it is correct",
                    got=brief(told),
                    why="its steps could not be labelled",
                    fix="mend the row or leave the column out",
                )
            lines = [line for line in str(told.get("solution", "")).split("\n") if line.strip()]
            if not lines:
                yield LeftOut("an empty solution")
                continue
            right = told["is_correct"]
            labels: list[StepLabel] = [Rating.GOOD if right else None] * len(lines)
            labels = [Rating.BAD if miscalculated(line) else x for line, x in zip(lines, labels, strict=True)]
            labels[-1] = labels[-1] if right else Rating.BAD
            yield _solution(f"{row.name}/{column}", prompt, lines, labels, correct=right, kind=column)


_CALCULATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def miscalculated(line: str) -> bool:
    """Whether a calculation between << and >> states a wrong result; one that cannot be read is not held against it."""
    for expression, stated in _CALCULATION.findall(line):
        try:
            value, said = _value(ast.parse(expression.strip(), mode="eval").body), float(stated)
        except (SyntaxError, ValueError, ZeroDivisionError):
            continue
        if not math.isclose(value, said, rel_tol=1e-3, abs_tol=0.01):
            return True
    return False


def _value(node: ast.expr) -> float:
    """Of sums, products and their like."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(f"only + - * / and numbers are calculated; got {type(node).__name__}; leave the line unmarked")


def _solution(
    id: str,
    prompt: str,
    steps: Sequence[str],
    labels: Sequence[StepLabel],
    *,
    correct: bool | None,
    kind: str,
    ended: bool = True,
) -> LabelledSolution:
    for step in steps:
        if not step.strip():
            raise DataError("a step is empty", got=id, why="nothing in it could be judged", fix="mend or skip the row")
    joined = [*(f"{s.strip()}\n" for s in steps[:-1]), steps[-1].strip()]
    return LabelledSolution(id, prompt, tuple(joined), tuple(labels), correct, kind=kind, ended=ended)


def _line(prompt: str) -> str:
    return prompt.rstrip() + "\n"
