"""What goes over the border between the store and files: answers on the way in, and what has no room on either way."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from assent.feedback.answers import Answer, PairAnswer
from assent.feedback.questions import Question
from assent.feedback.store.values import Answered
from assent.records import Degree

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Beyond:
    """A part of an answer, or of a row, that the other side cannot hold."""

    reason: str


@dataclass(frozen=True, slots=True)
class Given:
    """An answer read from a file.

    Args:
        answer: places are those of `order`, or of `question.responses` where that is None.
        order: as in `store.Answered`; None where the file does not tell in which order the responses were shown.
        seconds: None where the file does not tell.
        gold: the expected answer, of a gold question.
        by: what else is known of whoever answered.
    """

    question: Question
    answer: Answer
    annotator: str = ""
    order: tuple[int, ...] | None = None
    seconds: float | None = None
    gold: Answer | None = None
    by: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Form:
    """A form of file.

    Args:
        write: an answer as rows; the dimension is None for the question's first.
        read: rows as answers.
        holds: facets, of those that `facets` names, that the form keeps.
        layout: JSON lines, one JSON array, or a table.
    """

    write: Callable[[Answered, str | None], Iterator[Line | Beyond]]
    read: Callable[[Iterable[Line]], Iterator[Given | Beyond]]
    holds: frozenset[str]
    layout: Literal["lines", "array", "table"] = "lines"


NAMES, ORDERS, TIMES = "annotators' names", "orders in which responses were shown", "times taken"
DEGREES, BOTH_BAD, DIMENSIONS = "degrees of preference", "ties because both are bad", "answers on further dimensions"
UNSAFE, REASONS, COMMENTS = "safety flags", "reasons", "comments"
ORIGINS, WHO, GOLD = "origins (policy, round, slice)", "judges' models and prompts", "answers to gold questions"
EVERYTHING = frozenset(
    {NAMES, ORDERS, TIMES, DEGREES, BOTH_BAD, DIMENSIONS, UNSAFE, REASONS, COMMENTS, ORIGINS, WHO, GOLD}
)


def facets(answered: Answered) -> Iterator[str]:
    """What an answer has beyond the bare judgement, in the words in which its loss is told."""
    answer, remarks, origin = answered.answer, answered.answer.remarks, answered.question.origin
    choices = answer.choices.values() if isinstance(answer, PairAnswer) else ()
    has = {
        NAMES: answered.annotator,
        ORDERS: answered.question.shuffled and answered.order_known,
        TIMES: answered.seconds,
        DEGREES: any(c.degree is not Degree.UNSTATED for c in choices),
        BOTH_BAD: any(c.both_bad for c in choices),
        DIMENSIONS: len(getattr(answered.question, "dimensions", ())) > 1,
        UNSAFE: remarks.unsafe is not None,
        REASONS: remarks.reasons,
        COMMENTS: remarks.comment,
        ORIGINS: origin.policy or origin.policies or origin.round or origin.slice,
        WHO: answered.by,
    }
    yield from (name for name, there in has.items() if there)
