"""Rows of the tables as values, and what is asked of them on an open connection."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, exists, insert, select
from sqlalchemy.orm import aliased

from assent.errors import DataError
from assent.feedback.answers import Answer, answer_from_json, answer_to_json
from assent.feedback.questions import Origin, Question, question_from_json, question_to_json
from assent.feedback.store import queue
from assent.feedback.store.tables import EventRow, QuestionRow, SlotRow
from assent.feedback.store.values import Answered, Shown

T = TypeVar("T")
QUESTION = QuestionRow.__table__  # type: ignore[attr-defined]
EVENT = EventRow.__table__  # type: ignore[attr-defined]
SLOT = SlotRow.__table__  # type: ignore[attr-defined]

# Made once, as those of `queue`.
_EVENT_BY_ONCE = select(EVENT).where(EVENT.c.once == bindparam("once"))
_EVENT_BY_SEQ = select(EVENT).where(EVENT.c.seq == bindparam("seq"))
_BODY = select(QUESTION.c.body).where(QUESTION.c.id == bindparam("id"))
_GOLD = select(QUESTION.c.gold).where(QUESTION.c.id == bindparam("id"))
_NEW_EVENT = insert(EVENT).returning(EVENT.c.seq)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def new_token() -> str:
    """Unguessable, and the same kind of text for every question."""
    return secrets.token_hex(12)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# ------------------------------------------------------------------------------------------------ questions


def insert_questions(connection: Connection, rows: Sequence[dict[str, Any]], batch: str) -> int:
    """Questions that are new, with their slots and `asked` events.

    Raises:
        DataError: an id stands for another question.
    """
    ids = [row["id"] for row in rows]
    there = {r.id: r.body for r in connection.execute(select(QUESTION.c.id, QUESTION.c.body).where(_in(ids)))}
    new: dict[str, dict[str, Any]] = {}
    for row in rows:
        before = there.get(row["id"]) or new.get(row["id"], row)["body"]
        if before != row["body"] and _asked(before) != _asked(row["body"]):
            raise DataError(
                f"the id {row['id']!r} stands for another question already",
                got=f"{row['body'][:120]} after {before[:120]}",
                why="answers name their question by id",
                fix="give it an id of its own; `questions.identity` makes one of its parts",
            )
        if row["id"] not in there:
            new[row["id"]] = row
    if not new:
        return 0
    connection.execute(insert(QUESTION), list(new.values()))
    asked = [
        {"what": "asked", "question_id": row["id"], "batch": batch, "token": "", "annotator": "", "of": None,
         "once": f"asked/{row['id']}", "body": "{}", "at": row["at"]}
        for row in new.values()
    ]  # fmt: skip
    connection.execute(insert(EVENT), asked)
    slots = [
        {"question_id": row["id"], "batch": batch, "state": state, "token": "", "expires": 0.0, "skips": 0}
        for row in new.values()
        for state in (["open"] * row["wanted"] if row["gold"] is None else ["gold"])
    ]
    if slots:
        connection.execute(insert(SLOT), slots)
    queue.count(connection, batch, "", questions=len(new), wanted=sum(row["wanted"] for row in new.values()))
    return len(new)


def _asked(body: str) -> dict[str, Any]:
    """What is asked, wherever it comes from: another artefact may have made the same texts."""
    return {name: value for name, value in json.loads(body).items() if name != "origin"}


def _in(ids: Sequence[str]) -> ColumnElement[bool]:
    return QUESTION.c.id.in_(ids)  # type: ignore[no-any-return]


def question_of(connection: Connection, id: str) -> Question:
    return question_from_json(connection.execute(_BODY, {"id": id}).scalar_one())


def known_question(connection: Connection, id: str) -> tuple[Question, str]:
    """A question and its batch.

    Raises:
        DataError: there is none of this id.
    """
    row = connection.execute(select(QUESTION.c.body, QUESTION.c.batch).where(QUESTION.c.id == id)).first()
    if row is None:
        raise DataError(
            f"there is no question {id!r}", got=id, why="an answer is to what was asked", fix="add the question first"
        )
    return question_from_json(row.body), row.batch


# ------------------------------------------------------------------------------------------------ showings and answers


def once(connection: Connection, name: str) -> Row[Any] | None:
    """The event of that name, `EventRow.once`."""
    return connection.execute(_EVENT_BY_ONCE, {"once": name}).first()


def event(connection: Connection, seq: int) -> Row[Any]:
    return connection.execute(_EVENT_BY_SEQ, {"seq": seq}).one()


def insert_event(connection: Connection, values: Mapping[str, Any]) -> int:
    """Its `seq`."""
    return int(connection.execute(_NEW_EVENT, values).scalar_one())


def showing_of(connection: Connection, token: str, annotator: str) -> Row[Any]:
    """The event of a showing.

    Raises:
        DataError: there is none, or it is somebody else's; the two are not told apart.
    """
    row = once(connection, f"shown/{token}")
    if row is None or row.annotator != annotator:
        raise DataError(
            f"{annotator!r} was not shown this question",
            got=f"token {token!r}",
            why="an answer is to what its annotator saw, in the order they saw it",
            fix="ask for the next question and answer that",
        )
    return row


def shown_of(connection: Connection, token: str, annotator: str, expires: float) -> Shown:
    row = showing_of(connection, token, annotator)
    body, question = json.loads(row.body), question_of(connection, row.question_id)
    if like := body.get("like"):
        question = disguised(question, question_of(connection, like).origin)
    return Shown(token, question, tuple(body["order"]), annotator, row.at, expires)


def disguised(question: Question, like: Origin) -> Question:
    """A gold question under the origin of an ordinary one: the page says why something is asked.

    Of two questions with a slice each keeps its own, because a wrong one would stand out against the prompt.
    """
    slice = (question.origin.slice or like.slice) if like.slice else ""
    return replace(question, origin=replace(question.origin, why=like.why, round=like.round, slice=slice))


def followed(as_of: int | None = None) -> ColumnElement[bool]:
    """Whether a later event, up to `as_of`, corrects or takes back this one."""
    later = aliased(EVENT)
    found = exists().where(later.c.of == EVENT.c.seq)
    return found if as_of is None else found.where(later.c.seq <= as_of)  # type: ignore[no-any-return]


def standing(as_of: int | None = None) -> Select[Any]:
    """The answers that stand, or stood when that event had happened and no later one."""
    found = select(EVENT).where(EVENT.c.what.in_(("answered", "edited")), ~followed(as_of))
    return found if as_of is None else found.where(EVENT.c.seq <= as_of)


def answered_of(connection: Connection, row: Row[Any]) -> Answered:
    return made(row, connection.execute(_GOLD, {"id": row.question_id}).scalar_one())


def made(row: Row[Any], gold: str | None) -> Answered:
    """The answer in an event, with the question and the texts that the event itself keeps."""
    body = json.loads(row.body)
    return Answered(
        seq=row.seq,
        token=row.token,
        annotator=row.annotator,
        question=question_from_json(body["question"]),
        answer=answer_from_json(body["answer"]),
        order=tuple(body["order"]),
        seconds=float(body["seconds"]),
        at=row.at,
        batch=row.batch,
        gold=None if gold is None else answer_from_json(gold),
        by=body.get("by", {}),
        order_known=body.get("order_known", True),
    )


def given_elsewhere(
    question: Question, answer: Answer, order: Sequence[int] | None, seconds: float, by: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of an answer that was not given on the page.

    Raises:
        DataError: it does not fit the question, or the order is none.
    """
    question.check(answer)
    places = list(range(len(question.responses)))
    if order is not None and sorted(order) != places:
        raise DataError(
            "an order names every response once",
            got=list(order),
            why="the answer's places are responses",
            fix=f"give {len(places)} numbers from 0, each once",
        )
    return {
        "answer": json.loads(answer_to_json(answer)),
        "order": places if order is None else list(order),
        "order_known": order is not None,
        "seconds": seconds,
        "question": json.loads(question_to_json(question)),
        "by": dict(by),
    }


def refuse_other(done: Row[Any], answer: Answer) -> None:
    """An answer sent again must be the one that was sent first.

    Raises:
        DataError: it is another, or the question was passed over.
    """
    if done.what != "answered" or answer_from_json(json.loads(done.body)["answer"]) != answer:
        raise done_before(done)


def done_before(done: Row[Any]) -> DataError:
    return DataError(
        f"this question was {done.what} before",
        got=f"event {done.seq}",
        why="nothing is changed in place",
        fix="undo first, or replace the answer with `edit`",
    )


def taken_back(last: Row[Any], was: str | None) -> dict[str, int]:
    """What the counts lose with a withdrawn event; `was` is the state its slot was in."""
    lost = {"answered": -1} if was == "done" else {"closed": -1} if was == "closed" else {}
    if last.what in ("answered", "edited"):
        return lost | {"answers": -1, "milliseconds": -round(json.loads(last.body)["seconds"] * 1000)}
    return lost | {last.what: -1}
