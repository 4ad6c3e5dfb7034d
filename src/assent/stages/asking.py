"""Asking people: fill the store with questions, wait or be resumed, hand on the answers that stand."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from assent.config import Frozen
from assent.errors import ArtefactError
from assent.feedback.questions import Origin, Question, identity, question_to_json
from assent.feedback.store import Answered, Progress
from assent.pipeline.artefact import write_text
from assent.pipeline.stage import StageContext
from assent.records import Record, to_json

if TYPE_CHECKING:
    from assent.feedback.store import Store

STORE_OF_A_RUN = "feedback.db"
"""Where the folder of a run keeps its store; `assent label RUN` opens it."""
LOOKS_EVERY = 1.0
"""Seconds between two looks into the store while the stage waits."""
SAYS_EVERY = 60.0
"""Seconds between two lines on how far people have come."""


class AwaitingPeople(ArtefactError):
    """The stage goes on when people have answered."""


class People(Frozen):
    """Where people are asked, and how many of them.

    Args:
        store: URL of the store: `sqlite:///feedback.db`, or `postgresql://...`; when None the run's own, which
            `assent label RUN` opens.
        per_question: annotators who answer each question.
        overlap: share of the questions, from 0 to 1, that `overlap_annotators` answer, for agreement and the noise
            ceiling.
        enough: share of the answers wanted with which the stage goes on.
        wait_minutes: how long the stage waits for them before it ends and is resumed by the same command; 0 ends it
            at once.
        round: of the loop between people and training, kept with every question.
    """

    store: str | None = None
    per_question: int = Field(1, ge=1)
    overlap: float = Field(0.0, ge=0, le=1)
    overlap_annotators: int = Field(3, ge=2)
    enough: float = Field(1.0, gt=0, le=1)
    wait_minutes: float = Field(0.0, ge=0)
    round: int = Field(0, ge=0)

    @field_validator("store")
    @classmethod
    def _url(cls, store: str | None) -> str | None:
        # A bare path that exists would count as an input of the stage, and every answer would change the artefact's id.
        return None if store is None else checked_url(store)

    def where(self, context: StageContext) -> str:
        """What `assent label` is to be given."""
        return str(run_folder(context)) if self.store is None else self.store

    def url(self, context: StageContext) -> str:
        return f"sqlite:///{run_folder(context) / STORE_OF_A_RUN}" if self.store is None else self.store


def checked_url(store: str) -> str:
    """The URL of a store as a recipe may name it.

    Raises:
        ValueError: it is a bare path, or it holds a password.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    if "://" not in store:
        raise ValueError(f"a store is named by its URL; got {store!r}; write sqlite:///{store}")
    try:
        password = make_url(store).password
    except ArgumentError as error:
        raise ValueError(
            f"this is not a URL: {store!r}; write sqlite:///path or postgresql://user@host/name"
        ) from error
    if password is not None:
        raise ValueError("a recipe and its artefacts are read by many: keep the password in PGPASSWORD or ~/.pgpass")
    return store


def run_folder(context: StageContext) -> Path:
    """The folder of the run, from that of the unfinished stage: RUN/.work/STAGE/out."""
    return context.out.parents[2]


def origin_of(context: StageContext, people: People, policy: str, **known: object) -> Origin:
    """Where a question comes from: the artefact judged, where the policy is a stage's."""
    made_by = context.inputs[policy].id if policy in context.inputs else policy
    return Origin(made_by, round=people.round, **known)  # type: ignore[arg-type]


def ask(people: People, questions: Sequence[Question], context: StageContext) -> tuple[list[Answered], Progress]:
    """The answers of people that stand to these questions, gold ones left out.

    A question asked in the same way is found again in the store, whatever has become of the stage meanwhile: it is
    named by its contents. Nobody answers twice because the code, or what is waited for, has changed, or more is asked.

    Raises:
        AwaitingPeople: not enough answers are in, and the stage has waited as long as it was told to.
        ArtefactError: there is nothing to ask, or every question was closed without an answer.
    """
    from assent.feedback.store import Store

    if not questions:
        raise ArtefactError(
            f"{context.name} has nothing to ask people",
            got="no question",
            why="equal responses cannot be compared, and blank ones have no steps",
            fix="look at what the policy samples, or sample more",
        )
    how = (people.per_question, people.overlap, people.overlap_annotators, people.round)
    contents = [question_to_json(replace(q, origin=Origin(ended=q.origin.ended))) for q in questions]
    named = [replace(q, id=identity(context.name, how, c)) for q, c in zip(questions, contents, strict=True)]
    asked = {q.id for q in named}
    batch = f"{context.name}-{identity(contents, how)[:8]}"
    store = Store.open(people.url(context))
    try:
        store.add(
            named,
            batch=batch,
            per_question=people.per_question,
            overlap=people.overlap,
            overlap_annotators=people.overlap_annotators,
        )
        progress = _waited(people, store, asked, context)
        return [a for a in store.answers_to(asked) if a.gold is None and not a.by_model], progress
    finally:
        store.close()


def _waited(people: People, store: "Store", asked: Collection[str], context: StageContext) -> Progress:
    until, said = time.monotonic() + 60 * people.wait_minutes, -SAYS_EVERY
    while True:
        progress = store.progress_on(asked)
        if progress.answers and progress.answered + progress.closed >= people.enough * progress.wanted:
            return progress
        if progress.left <= 0:
            raise ArtefactError(
                f"nobody could answer what {context.name} asks",
                got=f"{progress.closed:,} questions closed, {progress.flagged:,} times flagged, "
                f"{progress.skipped:,} times skipped, no answer",
                why="a question that is flagged, or skipped by several, is asked no more",
                fix="read the reasons on the admin page of the store, and sample anew with another seed",
            )
        now = time.monotonic()
        if now >= until:
            raise _awaiting(people, progress, context)
        if now - said >= SAYS_EVERY:
            said = now
            context.say(
                f"{context.name} waits for people: {progress.answered:,} of {progress.wanted:,} answers are in; "
                f"to give them: assent label {shlex.quote(people.where(context))}"
            )
        time.sleep(LOOKS_EVERY)


def _awaiting(people: People, progress: Progress, context: StageContext) -> AwaitingPeople:
    skipped = f", {progress.skipped:,} times skipped" if progress.skipped else ""
    return AwaitingPeople(
        f"{context.name} waits for people: {progress.left:,} of {progress.wanted:,} answers are to come",
        got=f"{progress.answered:,} answers, {progress.closed:,} questions closed{skipped}, in {people.url(context)}",
        why="what follows is trained on what people said, and on nothing else",
        fix="have them answered, then run the same command again, which goes on from here:\n"
        f"    assent label {shlex.quote(people.where(context))}\n"
        f"    {this_command(context)}",
    )


def this_command(context: StageContext) -> str:
    """What was typed; a program of one's own is known by its folder alone."""
    program = Path(sys.argv[0])
    ours = program.name == "assent" or (program.name == "__main__.py" and program.parent.name == "assent")
    folder = shlex.quote(str(run_folder(context)))
    return shlex.join(["assent", *sys.argv[1:]]) if ours else f"assent run RECIPE --folder {folder}"


def write_records(
    context: StageContext, name: str, answers: Iterable[Answered], made_of: Callable[[Answered], Iterable[Record]]
) -> int:
    """What the answers teach, one JSON line each, as a file of the artefact; how many there are."""
    rows = [to_json(record) for answered in answers for record in made_of(answered)]
    write_text(context.out / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)
