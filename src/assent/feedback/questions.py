"""The kinds of questions that people are asked, and what answers fit them.

Every kind is a frozen value with `responses`, the texts that are shown (in a random order where the kind is
`shuffled`), and `check(answer)`, which raises `DataError` where an answer does not fit. What is common to all is in
`Origin`.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NoReturn

from assent.errors import DataError
from assent.feedback.answers import (
    Answer,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
    StepsAnswer,
)
from assent.feedback.json_form import JsonForm
from assent.records import PromptText, Rating

OVERALL = ("overall",)
HELPFUL_HARMLESS_HONEST = ("helpful", "harmless", "honest")
"""The dimensions of Askell et al. 2021 (arXiv 2112.00861)."""
FEWEST_RANKED, MOST_RANKED = 3, 9
"""InstructGPT ranked 4 to 9 (Ouyang et al. 2022, section 3.5); three are allowed, two are a pair."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a question comes from.

    Args:
        policy: id of the artefact whose responses are judged; empty when unknown.
        policies: one for each response where they differ, as in an arena; empty otherwise.
        round: of the loop between people and training, from 0.
        slice: slice label of the prompt, empty when unknown.
        ended: whether each response came to its end by itself rather than at a length limit; empty when all did.
        why: why this is asked, in words for the annotator.
        task: id of the prompt in its data set; empty when unknown.
        names: what people call `policies`, in their order; empty when unknown.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    policy: str = ""
    policies: tuple[str, ...] = ()
    round: int = 0
    slice: str = ""
    ended: tuple[bool, ...] = ()
    why: str = ""
    task: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairQuestion:
    """Which of two responses is better, and how much: significantly, better, slightly, negligibly, tie, both bad.

    Args:
        id: unique in the store; the same question added twice is one.
        dimensions: what is asked of the pair, at once.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    id: str
    prompt: PromptText
    responses: tuple[str, ...]
    dimensions: tuple[str, ...] = OVERALL
    origin: Origin = field(default_factory=Origin)
    kind: Literal["pair"] = "pair"
    shuffled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _responses(self.id, self.responses, 2, 2)
        _dimensions(self.id, self.dimensions)

    def check(self, answer: Answer) -> None:
        if not isinstance(answer, PairAnswer):
            _other_kind(self.kind, answer)
        _asked(self.dimensions, answer.choices)
        for name, choice in answer.choices.items():
            if choice.preferred not in (None, 0, 1):
                _refuse(f"the preferred place of {name!r} is 0, 1 or null", choice.preferred, "send the place shown")
        _places(answer, 2)
        if answer.edited is not None:
            _written(answer.edited)
            if answer.choices[self.dimensions[0]].preferred is None:
                _refuse(
                    "an edit improves the preferred response",
                    f"no preference for {self.dimensions[0]!r}",
                    "choose one first",
                )


@dataclass(frozen=True, slots=True)
class RankingQuestion:
    """Order K responses, ties allowed."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    id: str
    prompt: PromptText
    responses: tuple[str, ...]
    dimensions: tuple[str, ...] = OVERALL
    origin: Origin = field(default_factory=Origin)
    kind: Literal["ranking"] = "ranking"
    shuffled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _responses(self.id, self.responses, FEWEST_RANKED, MOST_RANKED)
        _dimensions(self.id, self.dimensions)

    def check(self, answer: Answer) -> None:
        if not isinstance(answer, RankingAnswer):
            _other_kind(self.kind, answer)
        _asked(self.dimensions, answer.ranks)
        k = len(self.responses)
        for name, ranks in answer.ranks.items():
            if len(ranks) != k or min(ranks) != 1 or max(ranks) > k:
                _refuse(
                    f"{name!r} needs one rank for each of {k} places, the best being 1 and none above {k}",
                    list(ranks),
                    "send a rank for every place; equal numbers are ties",
                )
        _places(answer, k)


@dataclass(frozen=True, slots=True)
class RatingQuestion:
    """Rate one response on a scale of whole numbers.

    Args:
        lowest, highest: ends of the scale, both included; 1 to 7 as in InstructGPT (Ouyang et al. 2022, appendix B.2).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    id: str
    prompt: PromptText
    responses: tuple[str, ...]
    dimensions: tuple[str, ...] = OVERALL
    lowest: int = 1
    highest: int = 7
    origin: Origin = field(default_factory=Origin)
    kind: Literal["rating"] = "rating"
    shuffled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _responses(self.id, self.responses, 1, 1)
        _dimensions(self.id, self.dimensions)
        if self.lowest >= self.highest:
            raise ValueError(f"a scale rises; got {self.lowest} to {self.highest} in {self.id!r}; exchange them")

    def check(self, answer: Answer) -> None:
        if not isinstance(answer, RatingAnswer):
            _other_kind(self.kind, answer)
        _asked(self.dimensions, answer.scores)
        for name, score in answer.scores.items():
            if not self.lowest <= score <= self.highest:
                _refuse(f"{name!r} is rated from {self.lowest} to {self.highest}", score, "choose on the scale")
        _places(answer, 1)


@dataclass(frozen=True, slots=True)
class StepsQuestion:
    """Mark every step of a solution good, neutral or bad.

    Args:
        steps: their texts, delimiters included: joined they are the response.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    id: str
    prompt: PromptText
    steps: tuple[str, ...]
    origin: Origin = field(default_factory=Origin)
    kind: Literal["steps"] = "steps"
    shuffled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.steps or not all(self.steps):
            raise ValueError(f"a solution needs steps with text; got {list(self.steps)!r} in {self.id!r}; cut it anew")

    @property
    def responses(self) -> tuple[str, ...]:
        return ("".join(self.steps),)

    def check(self, answer: Answer) -> None:
        if not isinstance(answer, StepsAnswer):
            _other_kind(self.kind, answer)
        marks, last = answer.marks, -1
        if len(marks) != len(self.steps):
            _refuse(f"there are {len(self.steps)} steps to mark", f"{len(marks)} marks", "send one for each, or null")
        last = max((i for i, mark in enumerate(marks) if mark is not None), default=-1)
        if last < 0:
            _refuse("no step is marked", list(marks), "mark the steps up to the first bad one, or skip the question")
        if None in marks[:last] or (last + 1 < len(marks) and marks[last] is not Rating.BAD):
            _refuse(
                "marking may stop only after a bad step",
                [None if m is None else m.value for m in marks],
                "mark every step up to the first bad one",
            )
        _places(answer, 1)


@dataclass(frozen=True, slots=True)
class EditQuestion:
    """Make a response better.

    Args:
        responses: the response to edit; a second one, where there is one, is known to be worse than it.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    id: str
    prompt: PromptText
    responses: tuple[str, ...]
    origin: Origin = field(default_factory=Origin)
    kind: Literal["edit"] = "edit"
    shuffled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _responses(self.id, self.responses, 1, 2)

    def check(self, answer: Answer) -> None:
        if not isinstance(answer, EditAnswer):
            _other_kind(self.kind, answer)
        _written(answer.text)
        _places(answer, 1)


@dataclass(frozen=True, slots=True)
class DemonstrationQuestion:
    """Write a response."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    id: str
    prompt: PromptText
    origin: Origin = field(default_factory=Origin)
    kind: Literal["demonstration"] = "demonstration"
    shuffled: ClassVar[bool] = False

    @property
    def responses(self) -> tuple[str, ...]:
        return ()

    def check(self, answer: Answer) -> None:
        if not isinstance(answer, DemonstrationAnswer):
            _other_kind(self.kind, answer)
        _written(answer.text)
        _places(answer, 0)


Question = PairQuestion | RankingQuestion | RatingQuestion | StepsQuestion | EditQuestion | DemonstrationQuestion

_FORM: JsonForm[Question] = JsonForm(Question, "a question")


def question_to_json(question: Question) -> str:
    """One line of JSON; `question_from_json` brings it back equal."""
    return _FORM.write(question)


def question_from_json(value: str | bytes | Mapping[str, Any]) -> Question:
    """A question from JSON text, or from plain values.

    Raises:
        DataError: it is not a question; every fault is named.
    """
    return _FORM.read(value)


def identity(*parts: object) -> str:
    """A short id made of what a question is: the same parts give the same id, so that it is asked once."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _responses(id: str, responses: Collection[str], least: int, most: int) -> None:
    if not least <= len(responses) <= most:
        span = f"{least}" if least == most else f"{least} to {most}"
        raise ValueError(f"this kind of question has {span} responses; got {len(responses)} in {id!r}; choose another")


def _dimensions(id: str, dimensions: Collection[str]) -> None:
    if not dimensions or len(set(dimensions)) != len(dimensions) or not all(dimensions):
        raise ValueError(f"dimensions have names, each once; got {list(dimensions)} in {id!r}; name them")


def _asked(dimensions: Collection[str], said: Mapping[str, object]) -> None:
    if set(dimensions) != set(said):
        _refuse(f"every one of {', '.join(dimensions)} is to be answered", sorted(said), "answer these, and no others")


def _places(answer: Answer, count: int) -> None:
    unsafe = answer.remarks.unsafe or ()
    if not set(unsafe) <= set(range(count)) or len(set(unsafe)) != len(unsafe):
        _refuse(f"unsafe responses are named by place, of which there are {count}", list(unsafe), "send places shown")


def _written(text: str) -> None:
    if not text.strip():
        _refuse("a text is to be written", repr(text), "write it, or skip the question")


def _other_kind(kind: str, answer: Answer) -> NoReturn:
    _refuse(f"this is a question of the kind {kind!r}", f"an answer of the kind {answer.kind!r}", "reload the page")


def _refuse(what: str, got: object, fix: str) -> NoReturn:
    raise DataError(what, got=got, why="an answer that does not fit its question cannot be trained on", fix=fix)
