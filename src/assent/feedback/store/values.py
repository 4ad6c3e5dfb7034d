"""What the store hands out: a showing, an answer, a count."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assent.feedback.answers import Answer
from assent.feedback.questions import Question

MODEL = "model"
"""The `kind` in what is known of an annotator that is a model."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A question as one annotator sees it. Whether it is a gold question or one of overlap does not show.

    Args:
        token: names this showing; an answer with it is recorded once, however often it is sent.
        order: for each place on the screen, the index of the response that stands there.
        at, expires: seconds since 1970; after the second, another annotator may be given the question.
    """

    token: str
    question: Question
    order: tuple[int, ...]
    annotator: str
    at: float
    expires: float

    @property
    def responses(self) -> tuple[str, ...]:
        """The texts from the first place to the last."""
        return tuple(self.question.responses[i] for i in self.order)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that stands: neither withdrawn nor replaced.

    Args:
        seq: of its event; later answers have higher ones.
        answer: as clicked; its places are those of `order`.
        order: for each place, the index into `question.responses`.
        seconds: from showing to answer, as the page measured them.
        batch: what the question was added with.
        gold: the answer that was expected, its places being indices into `question.responses`; None for the others.
        by: what is known of whoever answered beyond the name: of a model its name and prompt, of an import its form.
        order_known: the responses were shown in `order`; otherwise it only says which place is which response.
    """

    seq: int
    token: str
    annotator: str
    question: Question
    answer: Answer
    order: tuple[int, ...]
    seconds: float
    at: float
    batch: str
    gold: Answer | None = None
    by: Mapping[str, Any] = field(default_factory=dict)
    order_known: bool = True

    @property
    def by_model(self) -> bool:
        """Whether a model answered, not a person."""
        return self.by.get("kind") == MODEL


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch, or an annotator, has come.

    Args:
        questions: added, gold ones included.
        wanted: answers asked for, gold questions not counted.
        answered: of those wanted, how many are in.
        closed: of those wanted, how many nobody will be asked for again: flagged, or skipped too often.
        answers: all that stand, gold and extra ones included.
        skipped, flagged: how often that was done.
        seconds: spent on all answers.
    """

    questions: int = 0
    wanted: int = 0
    answered: int = 0
    closed: int = 0
    answers: int = 0
    skipped: int = 0
    flagged: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Answers still to come."""
        return self.wanted - self.answered - self.closed


@dataclass(frozen=True, slots=True)
class Happened:
    """One event, for those who look after the store.

    Args:
        what: asked, shown, answered, skipped, flagged, edited or withdrawn.
        of: `seq` of the event that it corrects or takes back.
        body: JSON.
    """

    seq: int
    what: str
    question_id: str
    batch: str
    annotator: str
    token: str
    of: int | None
    body: str
    at: float
