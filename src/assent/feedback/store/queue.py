"""Who is asked what next: claims, expiry, gold questions and overlap, on an open write transaction."""

import secrets
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from assent.feedback.store.tables import EventRow, ReaderRow, SeenRow, SlotRow, TallyRow

EVENT = EventRow.__table__  # type: ignore[attr-defined]
SLOT = SlotRow.__table__  # type: ignore[attr-defined]
SEEN = SeenRow.__table__  # type: ignore[attr-defined]
READER = ReaderRow.__table__  # type: ignore[attr-defined]
TALLY = TallyRow.__table__  # type: ignore[attr-defined]

NO_SLOT = "!"
"""Before a showing in `Reader.tokens` that has no slot, being of a gold question, or one answered by others; what
follows its colon is when it would expire if it had one."""
NEAR = 500
"""Places around the next question among which a gold one finds another to resemble."""
SKIPS_TO_CLOSE = 3
"""A question that this many annotators passed over is asked no more."""


# Statements of every showing and every answer. Made once: to put one together takes longer than to carry it out.
READER_OF = select(READER).where(READER.c.annotator == bindparam("annotator")).with_for_update()
SAVE_READER = update(READER).where(READER.c.annotator == bindparam("whose"))
CLAIMED_SLOT = update(SLOT).where(SLOT.c.token == bindparam("held"), SLOT.c.state == "claimed")
AT_PLACE = update(SLOT).where(SLOT.c.place == bindparam("where"))


def _first_slot(*where: Any) -> Any:
    seen = exists().where(SEEN.c.annotator == bindparam("annotator"), SEEN.c.question_id == SLOT.c.question_id)
    return select(SLOT).where(*where, ~seen).order_by(SLOT.c.place).limit(1).with_for_update(skip_locked=True)


GOLD_SLOT = _first_slot(SLOT.c.state == "gold")
EXPIRED_SLOT = _first_slot(SLOT.c.state == "claimed", SLOT.c.expires < bindparam("now"))
SLOT_BEYOND = _first_slot(SLOT.c.state == "open", SLOT.c.place > bindparam("after"))
SLOT_BEFORE = _first_slot(SLOT.c.state == "open", SLOT.c.place <= bindparam("after"))


@dataclass
class Reader:
    """Where an annotator stands, locked until the transaction ends."""

    annotator: str
    place: int
    tokens: list[str]
    shown: int


@cache
def _insert_once(dialect: str, table: Any) -> Any:
    """A row unless it is there, in the words of the database."""
    words = sqlite if dialect == "sqlite" else postgresql
    return words.insert(table).on_conflict_do_nothing()  # type: ignore[attr-defined]


def _insert_new(connection: Connection, table: Any, **values: Any) -> None:
    connection.execute(_insert_once(connection.dialect.name, table), values)


def lock_reader(connection: Connection, annotator: str) -> Reader:
    """The annotator's row, made when absent. Locked first in every transaction, so that two never wait in a ring."""
    _insert_new(connection, READER, annotator=annotator, place=0, token="", shown=0)
    row = connection.execute(READER_OF, {"annotator": annotator}).one()
    return Reader(annotator, row.place, row.token.split(), row.shown)


def save_reader(connection: Connection, reader: Reader) -> None:
    values = {"place": reader.place, "token": " ".join(reader.tokens), "shown": reader.shown}
    connection.execute(SAVE_READER, {"whose": reader.annotator, **values})


def before_them(connection: Connection, reader: Reader, now: float, expires: float) -> str | None:
    """The showing an annotator has before them, its claim renewed; one that was given away is dropped.

    One without a slot is nobody's to give away, and is dropped all the same when it would have been: what stays longer
    than the others would be known for a gold question.
    """
    while reader.tokens:
        token, _, until = reader.tokens[-1].removeprefix(NO_SLOT).partition(":")
        if reader.tokens[-1].startswith(NO_SLOT):
            if not until or now <= float(until) or not _others_came(connection, reader, token, float(until)):
                reader.tokens[-1] = f"{NO_SLOT}{token}:{expires}"
                return token
        else:
            if connection.execute(CLAIMED_SLOT, {"held": token, "expires": expires}).rowcount:
                return token
        reader.tokens.pop()
    return None


def _others_came(connection: Connection, reader: Reader, token: str, since: float) -> bool:
    """Whether anybody else was shown a question after that time, and so would have been given an expired one."""
    mine = select(EVENT.c.seq).where(EVENT.c.once == f"shown/{token}").scalar_subquery()
    theirs = (EVENT.c.seq > mine, EVENT.c.what == "shown", EVENT.c.annotator != reader.annotator, EVENT.c.at > since)
    return connection.execute(select(EVENT.c.seq).where(*theirs).limit(1)).first() is not None


def put_away(connection: Connection, reader: Reader, token: str) -> None:
    """The showing is no longer before the annotator."""
    reader.tokens = [t for t in reader.tokens if t.removeprefix(NO_SLOT).partition(":")[0] != token]
    save_reader(connection, reader)


@dataclass(frozen=True)
class Chosen:
    """The slot to show next. Where it is a gold one, `like` is an ordinary question whose origin it is shown with."""

    slot: Row[Any]
    like: str | None = None


def choose(connection: Connection, reader: Reader, now: float, gold_every: int) -> Chosen | None:
    """An expired claim, else the next open slot, locked; now and then a gold one in its place.

    Which showing brings a gold one is drawn anew, so that nobody can work it out from names and numbers; and none comes
    when there is nothing else, because what comes after the end is known for what it is.
    """
    ordinary = _ordinary(connection, reader, now)
    if ordinary is None:
        return None
    gold = _first(connection, GOLD_SLOT, reader) if gold_every else None
    if gold is None or secrets.randbelow(gold_every):
        return Chosen(ordinary)
    return Chosen(gold, _another(connection, ordinary))


def _ordinary(connection: Connection, reader: Reader, now: float) -> Row[Any] | None:
    expired = _first(connection, EXPIRED_SLOT, reader, now=now)
    if expired is not None:
        return expired
    beyond = _first(connection, SLOT_BEYOND, reader, after=reader.place)
    return beyond or _first(connection, SLOT_BEFORE, reader, after=reader.place)


def _another(connection: Connection, ordinary: Row[Any]) -> str:
    """An ordinary question of the same batch, not far from this one."""
    begin = ordinary.place + secrets.randbelow(2 * NEAR) - NEAR
    near = select(SLOT.c.question_id).where(SLOT.c.place >= begin, SLOT.c.place < begin + 2 * NEAR)
    found = near.where(SLOT.c.state != "gold", SLOT.c.batch == ordinary.batch).order_by(SLOT.c.place).limit(1)
    return str(connection.execute(found).scalar() or ordinary.question_id)


def _first(connection: Connection, found: Any, reader: Reader, **values: Any) -> Row[Any] | None:
    return connection.execute(found, {"annotator": reader.annotator, **values}).first()


def claim(connection: Connection, reader: Reader, slot: Row[Any], token: str, expires: float) -> None:
    """Give the slot to the annotator under a new showing."""
    mark_seen(connection, reader.annotator, slot.question_id)
    reader.shown += 1
    if slot.state == "gold":
        reader.tokens.append(f"{NO_SLOT}{token}:{expires}")
    else:
        reader.tokens.append(token)
        reader.place = slot.place
        _set(connection, slot.place, state="claimed", token=token, expires=expires)


def mark_seen(connection: Connection, annotator: str, question_id: str) -> None:
    _insert_new(connection, SEEN, annotator=annotator, question_id=question_id)


def _set(connection: Connection, place: int, **values: Any) -> None:
    connection.execute(AT_PLACE, {"where": place, **values})


def finish(connection: Connection, token: str) -> int:
    """The slot's answer is in; 0 where the slot is not the showing's, which then is an answer more than was wanted."""
    return connection.execute(CLAIMED_SLOT, {"held": token, "state": "done"}).rowcount


def close(connection: Connection, token: str) -> int:
    """Ask nobody again; 1 where there was a slot to close."""
    return connection.execute(CLAIMED_SLOT, {"held": token, "state": "closed"}).rowcount


def pass_on(connection: Connection, token: str) -> int:
    """Let others be asked, unless too many have passed; 1 where the slot was closed."""
    slot = connection.execute(select(SLOT).where(SLOT.c.token == token, SLOT.c.state == "claimed")).first()
    if slot is None:
        return 0
    if slot.skips + 1 >= SKIPS_TO_CLOSE:
        _set(connection, slot.place, state="closed", skips=slot.skips + 1)
        return 1
    _set(connection, slot.place, state="open", token="", expires=0.0, skips=slot.skips + 1)
    return 0


def reclaim(connection: Connection, token: str, question_id: str, new: str, expires: float) -> str | None:
    """Take back the slot of a showing whose answer is withdrawn, or another open one of the question.

    Returns:
        the state it was in; None where there is none, and the next answer is one more than was wanted.
    """
    mine = select(SLOT).where(SLOT.c.token == token, SLOT.c.state.in_(("done", "closed"))).with_for_update()
    free = select(SLOT).where(SLOT.c.question_id == question_id, SLOT.c.state == "open").limit(1)
    slot = connection.execute(mine).first() or connection.execute(free.with_for_update(skip_locked=True)).first()
    if slot is None:
        return None
    _set(connection, slot.place, state="claimed", token=new, expires=expires)
    return str(slot.state)


def count(connection: Connection, batch: str, annotator: str, **deltas: int) -> None:
    """Add to the counts of the batch and, where there is one, of the annotator in it."""
    add = text(
        "INSERT INTO tally (batch, annotator, what, count) VALUES (:batch, :annotator, :what, :count) "
        "ON CONFLICT (batch, annotator, what) DO UPDATE SET count = tally.count + excluded.count"
    )
    whose = ("", annotator) if annotator else ("",)
    rows = [
        {"batch": batch, "annotator": a, "what": what, "count": n}
        for a in whose
        for what, n in sorted(deltas.items())
        if n
    ]
    if rows:
        connection.execute(add, rows)
