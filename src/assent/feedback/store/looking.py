"""What stands in a store, read a part at a time: answers, questions, events, counts. Nothing here writes or locks."""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select

from assent.feedback.questions import Question, question_from_json
from assent.feedback.store import rows
from assent.feedback.store.database import Database
from assent.feedback.store.rows import EVENT, QUESTION, SLOT
from assent.feedback.store.tables import TallyRow
from assent.feedback.store.values import Answered, Happened, Progress

TALLY = TallyRow.__table__  # type: ignore[attr-defined]
CHUNK = 500
"""Answers, questions or events read at a time."""


def _parts(database: Database, found: Select[Any], by: ColumnElement[Any], after: Any) -> Iterator[Any]:
    """The rows in the order of `by`, those after a value of it; each part in a transaction of its own."""
    while True:
        with database.read() as connection:
            part = connection.execute(found.where(by > after).order_by(by).limit(CHUNK)).all()
        if not part:
            return
        yield from part
        after = getattr(part[-1], by.key or "")


def _with_gold(as_of: int | None = None) -> Select[Any]:
    return rows.standing(as_of).join(QUESTION, QUESTION.c.id == EVENT.c.question_id).add_columns(QUESTION.c.gold)


def answers(
    database: Database, batch: str | None, annotator: str | None, kind: str | None, after: int, as_of: int | None
) -> Iterator[Answered]:
    """See `Store.answers`."""
    where = _with_gold(as_of)
    for column, value in ((EVENT.c.batch, batch), (EVENT.c.annotator, annotator), (QUESTION.c.kind, kind)):
        if value is not None:
            where = where.where(column == value)
    for row in _parts(database, where, EVENT.c.seq, after):
        yield rows.made(row, row.gold)


def latest(database: Database, annotator: str, count: int, before: int | None) -> list[Answered]:
    """See `Store.latest`."""
    mine = _with_gold().where(EVENT.c.annotator == annotator).order_by(EVENT.c.seq.desc()).limit(count)
    mine = mine if before is None else mine.where(EVENT.c.seq < before)
    with database.read() as connection:
        return [rows.made(row, row.gold) for row in connection.execute(mine)]


def questions(database: Database, batch: str | None) -> Iterator[Question]:
    """See `Store.questions`."""
    found = select(QUESTION) if batch is None else select(QUESTION).where(QUESTION.c.batch == batch)
    for row in _parts(database, found, QUESTION.c.id, ""):
        yield question_from_json(row.body)


def events(database: Database, after: int, annotator: str | None) -> Iterator[Happened]:
    """See `Store.events`."""
    found = select(EVENT) if annotator is None else select(EVENT).where(EVENT.c.annotator == annotator)
    for r in _parts(database, found, EVENT.c.seq, after):
        yield Happened(r.seq, r.what, r.question_id, r.batch, r.annotator, r.token, r.of, r.body, r.at)


def last_event(database: Database) -> int:
    """See `Store.last_event`."""
    with database.read() as connection:
        return int(connection.execute(select(func.max(EVENT.c.seq))).scalar() or 0)


def progress(database: Database, batch: str | None, annotator: str | None) -> Progress:
    """See `Store.progress`."""
    counts = select(TALLY.c.what, func.sum(TALLY.c.count)).where(TALLY.c.annotator == (annotator or ""))
    counts = counts if batch is None else counts.where(TALLY.c.batch == batch)
    with database.read() as connection:
        found = {what: int(n) for what, n in connection.execute(counts.group_by(TALLY.c.what))}
    return Progress(seconds=found.pop("milliseconds", 0) / 1000, **found)


def progress_on(database: Database, ids: Collection[str]) -> Progress:
    """See `Store.progress_on`."""
    found: Counter[str] = Counter()
    of_slots = select(SLOT.c.state, func.count()).group_by(SLOT.c.state)
    of_events = select(EVENT.c.what, func.count()).where(~rows.followed()).group_by(EVENT.c.what)
    for chunk in rows.chunks(ids, CHUNK):
        with database.read() as connection:
            for counts, column in ((of_slots, SLOT.c.question_id), (of_events, EVENT.c.question_id)):
                found.update({name: int(n) for name, n in connection.execute(counts.where(column.in_(chunk)))})
    return Progress(
        questions=len(ids),
        wanted=sum(found[state] for state in ("open", "claimed", "done", "closed")),
        answered=found["done"],
        closed=found["closed"],
        answers=found["answered"] + found["edited"],
        skipped=found["skipped"],
        flagged=found["flagged"],
    )


def answers_to(database: Database, ids: Collection[str]) -> list[Answered]:
    """See `Store.answers_to`."""
    found = []
    for chunk in rows.chunks(ids, CHUNK):
        with database.read() as connection:
            said = connection.execute(_with_gold().where(EVENT.c.question_id.in_(chunk)))
            found += [rows.made(row, row.gold) for row in said]
    return sorted(found, key=lambda a: a.seq)


def gold_questions(database: Database) -> int:
    """How many there are."""
    with database.read() as connection:
        return int(connection.execute(select(func.count()).where(SLOT.c.state == "gold")).scalar_one())


def annotators(database: Database, batch: str | None) -> list[str]:
    """Everyone who answered, skipped or flagged anything."""
    names = select(TALLY.c.annotator).where(TALLY.c.annotator != "").distinct().order_by(TALLY.c.annotator)
    with database.read() as connection:
        return list(connection.execute(names if batch is None else names.where(TALLY.c.batch == batch)).scalars())


def batches(database: Database) -> list[str]:
    """The names of all batches."""
    names = select(TALLY.c.batch).where(TALLY.c.annotator == "").distinct().order_by(TALLY.c.batch)
    with database.read() as connection:
        return list(connection.execute(names).scalars())
