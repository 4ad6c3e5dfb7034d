"""The tables of the store.

`question`, `event` and `invitation` are the truth and append-only: the database itself refuses to change or delete a
row of them. `slot`, `seen`, `reader` and `tally` hold nothing of their own: they say what follows from the events, so
that choosing the next question and counting take no longer in a store of a million.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, Text
from sqlmodel import Field, SQLModel

_BIG = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers its rows by itself only where the column is called INTEGER."""


class QuestionRow(SQLModel, table=True):
    """One question, whole, as it was added.

    Args:
        body: `questions.question_to_json`.
        gold: the expected answer in places of `responses` as stored, or None.
        wanted: how many annotators are to answer it; a gold question is for everyone and wants 0.
    """

    __tablename__ = "question"

    id: str = Field(primary_key=True)
    batch: str = Field(index=True)
    kind: str
    body: str = Field(sa_column=Column(Text, nullable=False))
    gold: str | None = Field(default=None, sa_column=Column(Text))
    wanted: int
    at: float


class EventRow(SQLModel, table=True):
    """One thing that happened, in the order of `seq`.

    Args:
        what: asked, shown, answered, skipped, flagged, edited or withdrawn.
        token: of the showing it belongs to; empty for `asked`.
        of: `seq` of the event it corrects or takes back.
        once: a text that no two events share, so that nothing is recorded twice.
        at: seconds since 1970.
    """

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_token", "token"), Index("ix_event_annotator", "annotator", "seq"))

    seq: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    what: str
    question_id: str = Field(index=True)
    batch: str
    token: str = ""
    annotator: str = ""
    of: int | None = Field(default=None, sa_column=Column(_BIG, unique=True, nullable=True))
    once: str | None = Field(default=None, sa_column=Column(Text, unique=True, nullable=True))
    body: str = Field(sa_column=Column(Text, nullable=False))
    at: float


class InvitationRow(SQLModel, table=True):
    """A link token made, or taken back; only its digest is kept."""

    __tablename__ = "invitation"

    seq: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    name: str = Field(index=True)
    digest: str = Field(index=True)
    revoked: bool = False
    at: float


class SlotRow(SQLModel, table=True):
    """One answer that is wanted: a question has as many as it wants annotators.

    Args:
        state: open, claimed, done or closed.
        token: of the showing that claims it or was answered.
        expires: when a claim ends, seconds since 1970.
        skips: annotators who passed it over.
    """

    __tablename__ = "slot"
    __table_args__ = (
        Index("ix_slot_state", "state", "place"),
        Index("ix_slot_expires", "state", "expires"),
        Index("ix_slot_question", "question_id"),
    )

    place: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    question_id: str
    batch: str
    state: str = "open"
    token: str = Field(default="", index=True)
    expires: float = 0.0
    skips: int = 0


class SeenRow(SQLModel, table=True):
    """An annotator was shown a question, and is not shown it again."""

    __tablename__ = "seen"

    annotator: str = Field(primary_key=True)
    question_id: str = Field(primary_key=True)


class ReaderRow(SQLModel, table=True):
    """Where an annotator stands.

    Args:
        place: of the last slot they were given; the next is looked for after it.
        token: the showings they have before them, the last one first in line, parted by spaces; see `queue.NO_SLOT`.
        shown: how many they were shown.
    """

    __tablename__ = "reader"

    annotator: str = Field(primary_key=True)
    place: int = Field(default=0, sa_column=Column(_BIG, nullable=False))
    token: str = ""
    shown: int = 0


class TallyRow(SQLModel, table=True):
    """A count, by batch and annotator; an empty annotator is all of them."""

    __tablename__ = "tally"

    batch: str = Field(primary_key=True)
    annotator: str = Field(primary_key=True)
    what: str = Field(primary_key=True)
    count: int = Field(default=0, sa_column=Column(_BIG, nullable=False))
