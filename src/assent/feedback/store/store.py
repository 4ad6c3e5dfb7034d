"""The store: what was asked, in which order it was shown, by whom it was answered and in what time."""

import json
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from assent.errors import DataError
from assent.feedback.answers import Answer, answer_to_json
from assent.feedback.questions import Question, question_to_json
from assent.feedback.store import looking, queue, rows
from assent.feedback.store.database import Database
from assent.feedback.store.rows import EVENT
from assent.feedback.store.tables import InvitationRow
from assent.feedback.store.values import Answered, Happened, Progress, Shown

INVITATION = InvitationRow.__table__  # type: ignore[attr-defined]
ADDED = 5000
"""Questions added at a time; others may write in between."""
LONGEST_NAME = 100


class Store:
    """Append-only feedback of people and models, in SQLite or PostgreSQL; safe for many threads and processes.

    Args:
        claim_seconds: how long a question is kept for an annotator who was shown it.
        gold_every: one showing in about this many is a gold question, while there are any; 0 for none.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        *,
        claim_seconds: float = 1800.0,
        gold_every: int = 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database, self.claim_seconds, self.gold_every, self.clock = database, claim_seconds, gold_every, clock

    @classmethod
    def open(cls, url: str, **settings: Any) -> "Store":
        """Open a store by path or URL, made or brought up to date where needed.

        Raises:
            DataError: the URL is of no such database, it cannot be reached, or a newer version wrote it.
        """
        return cls(Database(url), **settings)

    def close(self) -> None:
        self.database.close()

    # -------------------------------------------------------------------------------------------- asking

    def add(
        self,
        questions: Iterable[Question],
        *,
        batch: str = "default",
        per_question: int = 1,
        overlap: float = 0.0,
        overlap_annotators: int = 3,
        gold: Mapping[str, Answer] | None = None,
    ) -> int:
        """Have questions asked; those that are there already are left as they are.

        Args:
            batch: a name to find them by.
            per_question: annotators who answer each.
            overlap: share of the questions, from 0 to 1, that `overlap_annotators` answer instead, for agreement.
            gold: id of a question to its expected answer, places being indices into its `responses`. Gold questions
                are mixed in for everyone and are not counted among the answers wanted.

        Returns:
            how many were new.

        Raises:
            DataError: another question has the id, or a gold answer does not fit.
        """
        new, expected = 0, gold or {}
        for chunk in rows.chunks(questions, ADDED):
            made = []
            for question in chunk:
                if answer := expected.get(question.id):
                    question.check(answer)
                drawn = random.Random(f"overlap/{question.id}").random() < overlap
                wanted = 0 if answer else max(per_question, overlap_annotators) if drawn else per_question
                made.append(self._question_row(question, batch, wanted, answer))
            with self.database.write() as connection:
                new += rows.insert_questions(connection, made, batch)
        return new

    def _question_row(self, question: Question, batch: str, wanted: int, gold: Answer | None) -> dict[str, Any]:
        return {
            "id": question.id,
            "batch": batch,
            "kind": question.kind,
            "body": question_to_json(question),
            "gold": None if gold is None else answer_to_json(gold),
            "wanted": wanted,
            "at": self.clock(),
        }

    def next(self, annotator: str) -> Shown | None:
        """The question before the annotator, or else the next for them; None when nothing is left to ask them.

        Nobody else is given it until it expires, unless more than one answer to it is wanted.
        """
        _named(annotator)
        now = self.clock()
        expires = now + self.claim_seconds
        with self.database.write(durable=False) as connection:
            reader = queue.lock_reader(connection, annotator)
            token = queue.before_them(connection, reader, now, expires)
            if token is None:
                chosen = queue.choose(connection, reader, now, self.gold_every)
                if chosen is None:
                    queue.save_reader(connection, reader)
                    return None
                token = rows.new_token()
                queue.claim(connection, reader, chosen.slot, token, expires)
                body: dict[str, Any] = {"order": _drawn(rows.question_of(connection, chosen.slot.question_id))}
                body |= {"like": chosen.like} if chosen.like else {}
                self._show(connection, annotator, chosen.slot.question_id, chosen.slot.batch, token, body)
            queue.save_reader(connection, reader)
            return rows.shown_of(connection, token, annotator, expires)

    def present(self, question: Question, annotator: str, *, batch: str) -> Shown:
        """Show a question to somebody who waits for it, as in an arena; nobody else is asked it.

        Raises:
            DataError: another question has its id.
        """
        _named(annotator)
        token, expires = rows.new_token(), self.clock() + self.claim_seconds
        with self.database.write() as connection:
            queue.lock_reader(connection, annotator)
            rows.insert_questions(connection, [self._question_row(question, batch, 0, None)], batch)
            queue.mark_seen(connection, annotator, question.id)
            self._show(connection, annotator, question.id, batch, token, {"order": _drawn(question)})
            return rows.shown_of(connection, token, annotator, expires)

    def last_shown(self, annotator: str, batch: str) -> str | None:
        """The token of the last showing of a batch to an annotator."""
        theirs = (EVENT.c.annotator == annotator, EVENT.c.batch == batch, EVENT.c.what == "shown")
        last = select(EVENT.c.token).where(*theirs).order_by(EVENT.c.seq.desc()).limit(1)
        with self.database.read() as connection:
            return connection.execute(last).scalar()

    def said(self, token: str, annotator: str) -> Answered | None:
        """The answer that stands to a showing.

        Raises:
            DataError: there is no such showing, or it is not this annotator's.
        """
        with self.database.read() as connection:
            rows.showing_of(connection, token, annotator)
            row = connection.execute(rows.standing().where(EVENT.c.token == token)).first()
            return None if row is None else rows.answered_of(connection, row)

    def shown(self, token: str, annotator: str) -> Shown:
        """A showing again, as after a reload.

        Raises:
            DataError: there is none, or it is not this annotator's.
        """
        with self.database.read() as connection:
            return rows.shown_of(connection, token, annotator, self.clock() + self.claim_seconds)

    def _show(
        self, connection: Connection, annotator: str, question_id: str, batch: str, token: str, body: Mapping[str, Any]
    ) -> None:
        self._record(connection, "shown", question_id, batch, token, annotator, body, f"shown/{token}")

    # -------------------------------------------------------------------------------------------- answering

    def answer(self, token: str, answer: Answer, seconds: float, *, annotator: str) -> Answered:
        """Record an answer. When this returns it is on the disk; sent again, it is recorded once.

        Args:
            token: of the showing.
            answer: as clicked, responses named by place.
            seconds: from showing to answer.

        Raises:
            DataError: no such showing of this annotator, an answer that does not fit, or another answer than before.
        """
        _measured(seconds)
        for last in (False, True):
            try:
                with self.database.write() as connection:
                    return self._answer(connection, token, answer, seconds, annotator)
            except IntegrityError:  # the same answer was being recorded by another process: it is there now
                if last:
                    raise
        raise AssertionError("the loop returns or raises")

    def _answer(self, connection: Connection, token: str, answer: Answer, seconds: float, annotator: str) -> Answered:
        reader = queue.lock_reader(connection, annotator)
        showing = rows.showing_of(connection, token, annotator)
        question = rows.question_of(connection, showing.question_id)
        question.check(answer)
        done = rows.once(connection, f"done/{token}")
        if done is not None:
            rows.refuse_other(done, answer)
            return rows.answered_of(connection, done)
        body = {
            "answer": json.loads(answer_to_json(answer)),
            "order": json.loads(showing.body)["order"],
            "seconds": seconds,
            "question": json.loads(question_to_json(question)),
        }
        args = ("answered", showing.question_id, showing.batch, token, annotator, body)
        seq = self._record(connection, *args, once=f"done/{token}")
        wanted = queue.finish(connection, token)
        queue.count(
            connection, showing.batch, annotator, answered=wanted, answers=1, milliseconds=round(seconds * 1000)
        )
        queue.put_away(connection, reader, token)
        return rows.answered_of(connection, rows.event(connection, seq))

    def give(
        self,
        question_id: str,
        answer: Answer,
        *,
        annotator: str,
        token: str,
        order: Sequence[int] | None = None,
        seconds: float = 0.0,
        by: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record an answer from elsewhere than the page, by a model or another tool. It takes nobody's place in line.

        Args:
            token: names this answer; given again, it is recorded once.
            order: for each place, the index of its response; None where it is not known, and places are indices.
            by: what is known of whoever answered beyond the name.

        Returns:
            whether it was new.

        Raises:
            DataError: the answer does not fit, or there is no such question.
        """
        _named(annotator)
        _measured(seconds)
        with self.database.write() as connection:
            queue.lock_reader(connection, annotator)
            if rows.once(connection, f"done/{token}") is not None:
                return False
            question, batch = rows.known_question(connection, question_id)
            body = rows.given_elsewhere(question, answer, order, seconds, by or {})
            queue.mark_seen(connection, annotator, question_id)
            self._show(connection, annotator, question_id, batch, token, body["order"])
            self._record(connection, "answered", question_id, batch, token, annotator, body, once=f"done/{token}")
            queue.count(connection, batch, annotator, answers=1, milliseconds=round(seconds * 1000))
            return True

    def edit(self, token: str, answer: Answer, seconds: float, *, annotator: str) -> Answered:
        """Replace the answer that stands for a showing; both stay in the store.

        Raises:
            DataError: no answer stands, or the new one does not fit.
        """
        _measured(seconds)
        with self.database.write() as connection:
            queue.lock_reader(connection, annotator)
            showing = rows.showing_of(connection, token, annotator)
            stands = connection.execute(rows.standing().where(EVENT.c.token == token)).first()
            if stands is None:
                raise DataError(
                    "there is no answer to replace",
                    got=f"showing {token}",
                    why="it was withdrawn, or never given",
                    fix="answer it instead",
                )
            rows.question_of(connection, showing.question_id).check(answer)
            body = json.loads(stands.body) | {"answer": json.loads(answer_to_json(answer)), "seconds": seconds}
            args = ("edited", showing.question_id, showing.batch, token, annotator, body)
            seq = self._record(connection, *args, of=stands.seq)
            longer = round(seconds * 1000) - round(json.loads(stands.body)["seconds"] * 1000)
            queue.count(connection, showing.batch, annotator, milliseconds=longer)
            return rows.answered_of(connection, rows.event(connection, seq))

    def skip(self, token: str, reason: str = "", *, annotator: str) -> None:
        """Pass a question over: others are asked, until several have passed."""
        self._leave(token, annotator, "skipped", reason)

    def flag(self, token: str, reason: str, *, annotator: str) -> None:
        """Say that something is wrong with a question: nobody is asked it again."""
        self._leave(token, annotator, "flagged", reason)

    def _leave(self, token: str, annotator: str, what: str, reason: str) -> None:
        with self.database.write() as connection:
            reader = queue.lock_reader(connection, annotator)
            showing = rows.showing_of(connection, token, annotator)
            done = rows.once(connection, f"done/{token}")
            if done is not None:
                if done.what == what:
                    return
                raise rows.done_before(done)
            args = (what, showing.question_id, showing.batch, token, annotator, {"reason": reason})
            self._record(connection, *args, once=f"done/{token}")
            closed = queue.close(connection, token) if what == "flagged" else queue.pass_on(connection, token)
            queue.count(connection, showing.batch, annotator, closed=closed, **{what: 1})
            queue.put_away(connection, reader, token)

    def undo(self, annotator: str) -> Shown | None:
        """Withdraw the annotator's last answer, skip or flag and show its question again, in the same order.

        What was before them comes back afterwards. None when there is nothing left to take back.
        """
        with self.database.write() as connection:
            reader = queue.lock_reader(connection, annotator)
            said = EVENT.c.what.in_(("answered", "edited", "skipped", "flagged"))
            mine = select(EVENT).where(EVENT.c.annotator == annotator, said, ~rows.followed())
            last = connection.execute(mine.order_by(EVENT.c.seq.desc()).limit(1)).first()
            if last is None:
                return None
            self._record(connection, "withdrawn", last.question_id, last.batch, last.token, annotator, {}, of=last.seq)
            expires, new = self.clock() + self.claim_seconds, rows.new_token()
            was = queue.reclaim(connection, last.token, last.question_id, new, expires)
            same = json.loads(rows.showing_of(connection, last.token, annotator).body)
            self._show(connection, annotator, last.question_id, last.batch, new, same)
            queue.count(connection, last.batch, annotator, **rows.taken_back(last, was))
            reader.tokens.append(new if was else f"{queue.NO_SLOT}{new}:{expires}")
            queue.save_reader(connection, reader)
            return rows.shown_of(connection, new, annotator, expires)

    def _record(
        self,
        connection: Connection,
        what: str,
        question_id: str,
        batch: str,
        token: str,
        annotator: str,
        body: Mapping[str, Any],
        once: str | None = None,
        of: int | None = None,
    ) -> int:
        values = {
            "what": what,
            "question_id": question_id,
            "batch": batch,
            "token": token,
            "annotator": annotator,
            "of": of,
            "once": once,
            "body": json.dumps(body, ensure_ascii=False),
            "at": self.clock(),
        }
        return rows.insert_event(connection, values)

    # -------------------------------------------------------------------------------------------- looking

    def answers(
        self,
        *,
        batch: str | None = None,
        annotator: str | None = None,
        kind: str | None = None,
        after: int = 0,
        as_of: int | None = None,
    ) -> Iterator[Answered]:
        """Every answer that stands, in the order given, read a part at a time.

        Args:
            kind: of the question, such as `pair`.
            after: only those with a higher `seq`.
            as_of: `seq` of the last event that counts: the same answers today and in a year, whatever came later.
        """
        return looking.answers(self.database, batch, annotator, kind, after, as_of)

    def latest(self, annotator: str, count: int, *, before: int | None = None) -> list[Answered]:
        """The last answers of an annotator that stand, the last first; as fast in a store of a million.

        Args:
            before: only those with a lower `seq`.
        """
        return looking.latest(self.database, annotator, count, before)

    def last_event(self) -> int:
        """`seq` of what happened last; 0 where nothing has."""
        return looking.last_event(self.database)

    def progress(self, *, batch: str | None = None, annotator: str | None = None) -> Progress:
        """The counts of a batch, or of all; of an annotator, or of all of them."""
        return looking.progress(self.database, batch, annotator)

    def answers_to(self, ids: Collection[str]) -> list[Answered]:
        """Every answer that stands to these questions, whatever batches they came in, in the order given."""
        return looking.answers_to(self.database, ids)

    def progress_on(self, ids: Collection[str]) -> Progress:
        """How far these questions have come, whatever batches they came in; seconds are not counted."""
        return looking.progress_on(self.database, ids)

    def mixed_in(self, ordinary: int) -> int:
        """Gold questions that somebody who is shown so many others will have met, about."""
        if not self.gold_every:
            return 0
        there = looking.gold_questions(self.database)
        return there if self.gold_every == 1 else min(there, round(ordinary / (self.gold_every - 1)))

    def annotators(self, *, batch: str | None = None) -> dict[str, Progress]:
        """The progress of everyone who answered, skipped or flagged anything, by name."""
        names = looking.annotators(self.database, batch)
        return {name: self.progress(batch=batch, annotator=name) for name in names}

    def batches(self) -> list[str]:
        """The names of all batches."""
        return looking.batches(self.database)

    def questions(self, *, batch: str | None = None) -> Iterator[Question]:
        """The questions, by id; gold ones included."""
        return looking.questions(self.database, batch)

    def events(self, *, after: int = 0, annotator: str | None = None) -> Iterator[Happened]:
        """Everything that happened, withdrawn or not, in order."""
        return looking.events(self.database, after, annotator)

    # -------------------------------------------------------------------------------------------- people

    def invite(self, name: str) -> str:
        """A new token that signs `name` in. It is told once; the store keeps its digest."""
        _named(name)
        token = secrets.token_urlsafe(24)
        self._invitation(name, rows.digest(token), revoked=False)
        return token

    def revoke(self, token: str) -> None:
        """Have a token sign nobody in any more."""
        if name := self.who(token):
            self._invitation(name, rows.digest(token), revoked=True)

    def who(self, token: str) -> str | None:
        """Whom a token signs in; None for one that was never made, or was taken back."""
        last = select(INVITATION).where(INVITATION.c.digest == rows.digest(token)).order_by(INVITATION.c.seq.desc())
        with self.database.read() as connection:
            row = connection.execute(last.limit(1)).first()
        return None if row is None or row.revoked else str(row.name)

    def _invitation(self, name: str, digest: str, *, revoked: bool) -> None:
        values = {"name": name, "digest": digest, "revoked": revoked, "at": self.clock()}
        with self.database.write() as connection:
            connection.execute(insert(INVITATION).values(values))


def _drawn(question: Question) -> list[int]:
    """The order to show the responses in."""
    places = range(len(question.responses))
    return secrets.SystemRandom().sample(places, len(places)) if question.shuffled else list(places)


def _named(name: str) -> None:
    if not name.strip() or len(name) > LONGEST_NAME or any(not c.isprintable() for c in name):
        raise DataError(
            f"an annotator has a name of 1 to {LONGEST_NAME} printable characters",
            got=repr(name[: 2 * LONGEST_NAME]),
            why="every answer is kept with who gave it",
            fix="give a name",
        )


def _measured(seconds: float) -> None:
    if not 0 <= seconds < float("inf"):
        raise DataError("seconds are a number, 0 or more", got=seconds, why="pace is reported", fix="measure them")
