"""What a person says to a question, as clicked: responses are named by their place on the screen, 0 being the first.

`store.Answered` keeps the order that was shown beside it, and `into_records` turns places into responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from assent.feedback.json_form import JsonForm
from assent.records import Degree, Rating


@dataclass(frozen=True, slots=True)
class Remarks:
    """What can be said beside any answer.

    Args:
        unsafe: places of the responses that are called unsafe; None where it was not asked, empty where none is.
        reasons: why, in words from a list or one's own.
        comment: free text.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    unsafe: tuple[int, ...] | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One dimension of a pair.

    Args:
        preferred: place of the better response; None when neither is better.
        degree: how much better.
        both_bad: neither is better because neither is any good; without it None is a tie.

    Raises:
        ValueError: a preference that is none, or a degree of a tie.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    preferred: int | None
    degree: Degree = Degree.UNSTATED
    both_bad: bool = False

    def __post_init__(self) -> None:
        if self.both_bad and self.preferred is not None:
            raise ValueError("both_bad says that neither is preferred; got a preference as well; drop one of them")
        if self.preferred is None and self.degree is not Degree.UNSTATED:
            raise ValueError(f"a tie has no degree; got {self.degree.value!r}; leave `degree` out")


@dataclass(frozen=True, slots=True)
class PairAnswer:
    """Which of two is better, for every dimension asked.

    Args:
        choices: dimension to choice.
        edited: the preferred response of the first dimension, made better; None where it was left as it is.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    choices: Mapping[str, Choice]
    edited: str | None = None
    remarks: Remarks = field(default_factory=Remarks)
    kind: Literal["pair"] = "pair"


@dataclass(frozen=True, slots=True)
class RankingAnswer:
    """K responses in order; the numbers are ranks by place: 1 is best, equal numbers are ties.

    Args:
        ranks: dimension to one rank for each place.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    ranks: Mapping[str, tuple[int, ...]]
    remarks: Remarks = field(default_factory=Remarks)
    kind: Literal["ranking"] = "ranking"


@dataclass(frozen=True, slots=True)
class RatingAnswer:
    """A number on the question's scale for every dimension asked; the highest is best."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    scores: Mapping[str, int]
    remarks: Remarks = field(default_factory=Remarks)
    kind: Literal["rating"] = "rating"


@dataclass(frozen=True, slots=True)
class StepsAnswer:
    """A mark for each step.

    Args:
        marks: one for each step; None after the first bad one where labelling stopped there.
        correct: whether the final answer is right; None where it was not said.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    marks: tuple[Rating | None, ...]
    correct: bool | None = None
    remarks: Remarks = field(default_factory=Remarks)
    kind: Literal["steps"] = "steps"


@dataclass(frozen=True, slots=True)
class EditAnswer:
    """The response, made better by hand."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    text: str
    remarks: Remarks = field(default_factory=Remarks)
    kind: Literal["edit"] = "edit"


@dataclass(frozen=True, slots=True)
class DemonstrationAnswer:
    """A response written by hand."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    text: str
    remarks: Remarks = field(default_factory=Remarks)
    kind: Literal["demonstration"] = "demonstration"


Answer = PairAnswer | RankingAnswer | RatingAnswer | StepsAnswer | EditAnswer | DemonstrationAnswer

_FORM: JsonForm[Answer] = JsonForm(Answer, "an answer")


def answer_to_json(answer: Answer) -> str:
    """One line of JSON; `answer_from_json` brings it back equal."""
    return _FORM.write(answer)


def answer_from_json(value: str | bytes | Mapping[str, Any]) -> Answer:
    """An answer from JSON text, or from plain values such as a form's.

    Raises:
        DataError: it is not an answer; every fault is named.
    """
    return _FORM.read(value)
