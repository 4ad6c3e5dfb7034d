"""What was entered in a form, as an answer to its question."""

from collections.abc import Mapping
from functools import singledispatch

from assent.errors import DataError
from assent.feedback.answers import (
    Answer,
    Choice,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
    Remarks,
    StepsAnswer,
)
from assent.feedback.page.cards import BOTH_BAD, LONGEST_WRITTEN, REASONS, TIE
from assent.feedback.questions import (
    DemonstrationQuestion,
    EditQuestion,
    PairQuestion,
    Question,
    RankingQuestion,
    RatingQuestion,
    StepsQuestion,
)
from assent.records import Degree, Rating

LONGEST_COMMENT = 2_000
"""Characters of a comment."""

Fields = Mapping[str, str]


def answer_of(question: Question, fields: Fields) -> Answer:
    """The answer that the fields hold, already fit for the question.

    Raises:
        DataError: a field is missing, or holds what the page does not offer.
    """
    try:
        answer = _answer(question, fields)
    except (KeyError, ValueError) as error:
        raise _unfit(error) from error
    question.check(answer)
    return answer


@singledispatch
def _answer(question: Question, fields: Fields) -> Answer:
    raise TypeError(f"no form answers a {type(question).__name__}; add one to page/forms.py")


@_answer.register
def _(question: PairQuestion, fields: Fields) -> Answer:
    choices = {name: _choice(fields[f"choice-{i}"]) for i, name in enumerate(question.dimensions)}
    return PairAnswer(choices, remarks=_remarks(fields, 2))


@_answer.register
def _(question: RankingQuestion, fields: Fields) -> Answer:
    k = len(question.responses)
    ranks = {
        name: _from_one([int(fields[f"rank-{i}-{place}"]) for place in range(k)])
        for i, name in enumerate(question.dimensions)
    }
    return RankingAnswer(ranks, _remarks(fields, k))


@_answer.register
def _(question: RatingQuestion, fields: Fields) -> Answer:
    scores = {name: int(fields[f"rating-{i}"]) for i, name in enumerate(question.dimensions)}
    return RatingAnswer(scores, _remarks(fields, 1))


@_answer.register
def _(question: StepsQuestion, fields: Fields) -> Answer:
    said = [fields.get(f"step-{i}", "") for i in range(len(question.steps))]
    return StepsAnswer(tuple(Rating(mark) if mark else None for mark in said), remarks=_remarks(fields, 0))


@_answer.register
def _(question: EditQuestion, fields: Fields) -> Answer:
    return EditAnswer(_text(fields), _remarks(fields, 1))


@_answer.register
def _(question: DemonstrationQuestion, fields: Fields) -> Answer:
    return DemonstrationAnswer(_text(fields), _remarks(fields, 0))


def written_in(answer: Answer) -> dict[str, str]:
    """The fields of an answer that took writing: its text and its comment."""
    fields = {"comment": answer.remarks.comment} if answer.remarks.comment else {}
    return fields | ({"text": answer.text} if isinstance(answer, EditAnswer | DemonstrationAnswer) else {})


def _choice(value: str) -> Choice:
    if value in (TIE, BOTH_BAD):
        return Choice(None, both_bad=value == BOTH_BAD)
    place, _, degree = value.partition(":")
    return Choice(int(place), Degree(degree))


def _from_one(tiers: list[int]) -> tuple[int, ...]:
    """Tiers as ranks: empty tiers close up and the best is 1, so that 2, 4, 4 says the same as 1, 2, 2."""
    order = sorted(set(tiers))
    return tuple(order.index(tier) + 1 for tier in tiers)


def _text(fields: Fields) -> str:
    """Browsers send line ends as CR LF; the text written has LF."""
    text = fields["text"].replace("\r\n", "\n")
    if len(text) > LONGEST_WRITTEN:
        raise ValueError(f"a text has at most {LONGEST_WRITTEN} characters; got {len(text)}; shorten it")
    return text


def _remarks(fields: Fields, places: int) -> Remarks:
    """Safety is asked wherever responses are shown; where none is, nothing is said of it."""
    unsafe = tuple(i for i in range(places) if fields.get(f"unsafe-{i}")) if places else None
    reasons = tuple(reason for reason in REASONS if fields.get(f"reason-{reason}"))
    return Remarks(unsafe, reasons, fields.get("comment", "").replace("\r\n", "\n")[:LONGEST_COMMENT])


def _unfit(error: Exception) -> DataError:
    return DataError(
        "this form is not an answer to its question",
        got=f"{type(error).__name__}: {error}",
        why="what is stored must be what was clicked, whole",
        fix="answer what is still open and submit again",
    )
