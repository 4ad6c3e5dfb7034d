"""Feedback in the forms of other tools, out of the store and into it.

A form writes what it has room for. What it has no room for is counted and said, never dropped in silence: a form of
chosen and rejected cannot hold a tie, and none but Assent's own holds everything.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from assent.errors import DataError
from assent.feedback.answers import Answer, answer_to_json
from assent.feedback.exchange.argilla import ARGILLA
from assent.feedback.exchange.given import GOLD, Beyond, Form, Given, Line, facets
from assent.feedback.exchange.graded import ULTRAFEEDBACK
from assent.feedback.exchange.label_studio import LABEL_STUDIO, labelling_set_up
from assent.feedback.exchange.pairs import HH_RLHF, TRL_PREFERENCE, TRL_UNPAIRED
from assent.feedback.exchange.table import COLUMNS, CSV
from assent.feedback.exchange.trees import OASST_TREES
from assent.feedback.exchange.whole import ASSENT
from assent.feedback.questions import identity, question_to_json
from assent.feedback.store import Store
from assent.feedback.store.values import Answered

__all__ = ["FORMS", "Exported", "Imported", "bring_in", "export", "labelling_set_up"]

FORMS: Mapping[str, Form] = {
    "assent": ASSENT,
    "hh_rlhf": HH_RLHF,
    "ultrafeedback": ULTRAFEEDBACK,
    "trl_preference": TRL_PREFERENCE,
    "trl_unpaired": TRL_UNPAIRED,
    "label_studio": LABEL_STUDIO,
    "argilla": ARGILLA,
    "oasst_trees": OASST_TREES,
    "csv": CSV,
}
T = TypeVar("T")
NOBODY = "imported"
"""Who answered where the file does not tell."""


def form_of(name: str) -> Form:
    """A form by its name.

    Raises:
        DataError: there is none.
    """
    if name not in FORMS:
        raise DataError(
            f"there is no form {name!r}", got=name, why="only known forms are read", fix=f"one of {', '.join(FORMS)}"
        )
    return FORMS[name]


# ------------------------------------------------------------------------------------------------ out


@dataclass(frozen=True, slots=True)
class Exported:
    """A written form.

    Args:
        text: the file's contents.
        rows: how many there are.
        left_out: what the form has no room for, counted by reason.
    """

    text: str
    rows: int
    left_out: Mapping[str, int]


def export(answers: Iterable[Answered], form: str, dimension: str | None = None) -> Exported:
    """The answers in a form of `FORMS`; answers to gold questions go into Assent's own alone.

    Args:
        dimension: whose choices are written, where a form has room for one; a question's first when None.

    Raises:
        DataError: there is no such form, or a prompt does not fit into it.
    """
    to = form_of(form)
    rows: list[Line] = []
    left_out: Counter[str] = Counter()
    for answered in answers:
        if answered.gold is not None and GOLD not in to.holds:
            left_out[GOLD] += 1
            continue
        wrote = len(rows)
        for made in to.write(answered, dimension):
            if isinstance(made, Beyond):
                left_out[made.reason] += 1
            else:
                rows.append(made)
        if len(rows) > wrote:
            left_out.update(name for name in facets(answered) if name not in to.holds)
    return Exported(_LAYOUTS[to.layout](rows), len(rows), dict(left_out))


def _lines(rows: Iterable[Line]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _array(rows: Iterable[Line]) -> str:
    return json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n"


def _table(rows: Iterable[Line]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


_LAYOUTS: Mapping[str, Callable[[Iterable[Line]], str]] = {"lines": _lines, "array": _array, "table": _table}


# ------------------------------------------------------------------------------------------------ in


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file.

    Args:
        answers: new in the store.
        known: that an import of the same brought before.
        questions: new in the store.
        left_out: what was not taken, counted by reason.
    """

    answers: int
    known: int
    questions: int
    left_out: Mapping[str, int]


def bring_in(store: Store, text: str, form: str, *, batch: str, annotator: str = NOBODY) -> Imported:
    """Read a form of `FORMS` into a store: its questions, which nobody is asked any more, and its answers.

    The same file read again adds nothing.

    Args:
        text: the file's contents.
        batch: what the questions are added with.
        annotator: who answered, where the file does not tell.

    Raises:
        DataError: there is no such form, or a row is not of it; nothing has been written then.
    """
    left_out: Counter[str] = Counter()
    given: list[Given] = []
    for made in form_of(form).read(_rows(text, form_of(form))):
        if isinstance(made, Beyond):
            left_out[made.reason] += 1
        else:
            made.question.check(made.answer)
            given.append(made)
    questions = {g.question.id: g.question for g in given}
    gold: dict[str, Answer] = {g.question.id: g.gold for g in given if g.gold is not None}
    new = store.add(questions.values(), batch=batch, per_question=0, gold=gold)
    before: Counter[str] = Counter()
    answers = sum(_record(store, g, form, annotator, before) for g in given)
    return Imported(answers, len(given) - answers, new, dict(left_out))


def _record(store: Store, given: Given, form: str, annotator: str, before: Counter[str]) -> bool:
    """Whether it was new. Equal answers of one file are told apart by their number."""
    who = given.annotator or annotator
    said = identity("import", question_to_json(given.question), answer_to_json(given.answer), who, given.order)
    before[said] += 1
    by = dict(given.by) if given.by else {"import": form}
    return store.give(
        given.question.id,
        given.answer,
        annotator=who,
        token=identity(said, before[said]),
        order=given.order,
        seconds=given.seconds or 0.0,
        by=by,
    )


def _rows(text: str, form: Form) -> Iterator[Line]:
    if form.layout == "table":
        yield from csv.DictReader(io.StringIO(text, newline=""))
    elif form.layout == "array":
        yield from _parsed(text, "the file", list)
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _parsed(line, f"line {number}", dict)


def _parsed(text: str, where: str, kind: type[T]) -> T:
    try:
        made = json.loads(text)
    except ValueError as error:
        made = error
    if not isinstance(made, kind):
        raise DataError(
            f"{where} is not a JSON {'array' if kind is list else 'object'}",
            got=str(made)[:200] if isinstance(made, ValueError) else type(made).__name__,
            why="the form is made of these",
            fix="name the form that the file has (--format)",
        )
    return made
