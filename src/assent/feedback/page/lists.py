"""Answers and progress in rows, for the lists of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import singledispatch

from assent.feedback.answers import (
    Answer,
    Choice,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
    StepsAnswer,
)
from assent.feedback.page.cards import LETTERS
from assent.feedback.page.text import visible
from assent.feedback.page.wording import Words
from assent.feedback.questions import OVERALL, Question
from assent.feedback.store import Answered, Store

MOST_ROWS = 100
"""Answers in a list, the latest first; a link leads to those before."""
LONGEST_CELL = 160
"""Characters of a text in a list."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answer in a list."""

    when: str
    who: str
    question: str
    what: str
    seconds: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A part of an annotator's answers.

    Args:
        rows: the last answer first.
        older: what `before` is to be for the next part; None at the end.
    """

    rows: tuple[Row, ...]
    older: int | None


@dataclass(frozen=True, slots=True)
class Person:
    """One annotator in the list of all; `pace` is the mean of seconds per answer."""

    name: str
    answered: int
    skipped: int
    flagged: int
    pace: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one annotator has come.

    Args:
        done: answers of theirs.
        total: with those that are still open to anyone.
        pace: mean seconds of an answer, rounded; 0 before the first.
        minutes_left: for what is open, alone and at that pace; 0 when unknown.
        waiting: nothing is left for them, but others have not finished.
    """

    done: int
    total: int
    pace: int
    minutes_left: int
    waiting: bool


def standing_of(store: Store, annotator: str, *, finished: bool) -> Standing:
    """The progress bar of one annotator.

    It moves by the same step after a gold question as after any other. What is left counts no gold ones, so the total
    is made of what does not change by answering (theirs and what is open, together), and of the gold ones that so many
    bring with them on average; where there were more than that, there always seems to be one to come.
    """
    own, left = store.progress(annotator=annotator), store.progress().left
    each = own.seconds / own.answers if own.answers else 0.0
    ordinary = own.answered + own.closed + left
    expected = ordinary + store.mixed_in(ordinary) - own.flagged
    total = own.answers if finished else max(expected, own.answers + 1)
    return Standing(own.answers, total, round(each), round((total - own.answers) * each / 60), finished and left > 0)


def people_of(store: Store) -> list[Person]:
    """Everyone who answered, skipped or reported anything."""
    return [
        Person(name, p.answers, p.skipped, p.flagged, f"{p.seconds / p.answers:.1f}" if p.answers else "–")
        for name, p in store.annotators().items()
    ]


def rows_of(store: Store, annotator: str, words: Words, before: int | None) -> Listed:
    """The latest answers of one annotator that stand, of those before an event where one is named."""
    found = store.latest(annotator, MOST_ROWS + 1, before=before)
    rows = tuple(_row(answered, words) for answered in found[:MOST_ROWS])
    return Listed(rows, found[MOST_ROWS - 1].seq if len(found) > MOST_ROWS else None)


def _row(answered: Answered, words: Words) -> Row:
    when = datetime.fromtimestamp(answered.at, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    said = summary(answered.answer, words)
    return Row(when, answered.annotator, _short(_prompt(answered.question)), said, f"{answered.seconds:.1f}")


@singledispatch
def summary(answer: Answer, words: Words) -> str:
    """The answer in a line; responses are named by the letter of their place."""
    raise TypeError(f"no summary of a {type(answer).__name__}; add one to page/lists.py")


@summary.register
def _(answer: PairAnswer, words: Words) -> str:
    return _by_dimension({name: _choice(choice, words) for name, choice in answer.choices.items()}, words)


@summary.register
def _(answer: RankingAnswer, words: Words) -> str:
    return _by_dimension({name: _order(ranks) for name, ranks in answer.ranks.items()}, words)


@summary.register
def _(answer: RatingAnswer, words: Words) -> str:
    return _by_dimension({name: str(score) for name, score in answer.scores.items()}, words)


@summary.register
def _(answer: StepsAnswer, words: Words) -> str:
    return " ".join("–" if mark is None else words(mark.value) for mark in answer.marks)


@summary.register(EditAnswer)
@summary.register(DemonstrationAnswer)
def _(answer: EditAnswer | DemonstrationAnswer, words: Words) -> str:
    return _short(answer.text)


def _by_dimension(said: dict[str, str], words: Words) -> str:
    if tuple(said) == OVERALL:
        return said[OVERALL[0]]
    return "; ".join(f"{words.of(name)}: {text}" for name, text in said.items())


def _choice(choice: Choice, words: Words) -> str:
    if choice.preferred is None:
        return words("both_bad" if choice.both_bad else "tie")
    return words("is_better", letter=LETTERS[choice.preferred], degree=words.of(choice.degree.value))


def _order(ranks: Sequence[int]) -> str:
    tiers = [[LETTERS[i] for i, rank in enumerate(ranks) if rank == tier] for tier in sorted(set(ranks))]
    return " > ".join(" = ".join(tier) for tier in tiers)


def _prompt(question: Question) -> str:
    return question.prompt if isinstance(question.prompt, str) else question.prompt[-1].content


def _short(text: str) -> str:
    line = visible(" ".join(text.split()))
    return line if len(line) <= LONGEST_CELL else f"{line[: LONGEST_CELL - 1]}…"
