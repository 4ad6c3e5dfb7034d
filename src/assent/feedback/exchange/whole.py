"""Assent's own lines: every answer that stands, with its question, its order, its time and who gave it."""

import json
from collections.abc import Iterable, Iterator

from assent.errors import DataError
from assent.feedback.answers import answer_from_json, answer_to_json
from assent.feedback.exchange.given import EVERYTHING, Beyond, Form, Given, Line
from assent.feedback.questions import question_from_json, question_to_json
from assent.feedback.store.values import Answered


def write(answered: Answered, dimension: str | None) -> Iterator[Line | Beyond]:
    yield {
        "question": json.loads(question_to_json(answered.question)),
        "answer": json.loads(answer_to_json(answered.answer)),
        "order": list(answered.order) if answered.order_known else None,
        "annotator": answered.annotator,
        "seconds": answered.seconds,
        "at": answered.at,
        "batch": answered.batch,
        "by": dict(answered.by),
        "gold": None if answered.gold is None else json.loads(answer_to_json(answered.gold)),
    }


def read(rows: Iterable[Line]) -> Iterator[Given | Beyond]:
    for row in rows:
        try:
            question, answer, gold = row["question"], row["answer"], row["gold"]
            order, annotator, seconds, by = row["order"], row["annotator"], row["seconds"], row["by"]
        except KeyError as error:
            raise DataError(
                f"a line of Assent's own form lacks {error}",
                got=f"the keys {', '.join(row)}",
                why="what is imported must be what was exported, whole",
                fix="export it anew with --format assent, or name the form that it has",
            ) from error
        yield Given(
            question_from_json(question),
            answer_from_json(answer),
            annotator,
            None if order is None else tuple(order),
            seconds,
            None if gold is None else answer_from_json(gold),
            by,
        )


ASSENT = Form(write, read, EVERYTHING)
