"""What people and files hand in, before any tokenizer: plain values, no torch.

`data` reads these from files, `feedback` collects and simulates them, the stages turn them into token batches.
They live outside `types` because `feedback` must never import torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    content: str


PromptText = str | tuple[Message, ...]
"""A prompt as people write it: plain text, or a dialogue that a chat template will render."""


@dataclass(frozen=True, slots=True)
class Document:
    """Text to learn the language of a domain from; every token is trained on."""

    text: str


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and a response worth imitating; only the response is trained on."""

    prompt: PromptText
    response: str


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt to answer, with the identity that makes it traceable.

    Args:
        id: unique within its data set.
        prompt: what the policy is given.
        split: `train` or `held_out`; the two never share a prompt.
        kind: a label for slices of the report, such as `summary` or `refusal`; empty when unknown.
        answer: the reference answer that a response can be checked against; empty when there is none.
    """

    id: str
    prompt: PromptText
    split: str = "train"
    kind: str = ""
    answer: str = ""


class Degree(StrEnum):
    """How much better the preferred response is (Llama 2, table 1 of its appendix names the same four)."""

    SIGNIFICANTLY = "significantly"
    BETTER = "better"
    SLIGHTLY = "slightly"
    NEGLIGIBLY = "negligibly"
    UNSTATED = "unstated"


EVEN = 1e-9
"""Probabilities this close to one half are a tie."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One judged pair within a comparison.

    Args:
        better: index of the preferred response; for a tie, the lower of the two indices.
        worse: index of the other response.
        tie: the annotator saw no difference; `better` and `worse` then carry no order.
        degree: how much better, `UNSTATED` where nobody asked.
        probability: P(`better` is preferred) where more than one plain choice is known: a share of votes, or what a
            judge gave; from 0.5, which is a tie, to 1. None for one plain choice.

    Raises:
        ValueError: the probability is out of its range, or does not fit `tie`.
    """

    better: int
    worse: int
    tie: bool = False
    degree: Degree = Degree.UNSTATED
    probability: float | None = None

    def __post_init__(self) -> None:
        p = self.probability
        if p is not None and not (0.5 <= p <= 1 and (p == 0.5) == self.tie):
            raise ValueError(
                f"the preferred response has a probability above 0.5 and at most 1, and a tie 0.5; got {p} with "
                f"tie={self.tie}; exchange the two responses, or mend the number"
            )

    @classmethod
    def likely(cls, first: int, second: int, probability: float) -> "Preference":
        """From P(`first` is preferred to `second`), from 0 to 1."""
        if abs(probability - 0.5) < EVEN:
            return cls(first, second, tie=True, probability=0.5)
        if probability > 0.5:
            return cls(first, second, probability=probability)
        return cls(second, first, probability=1 - probability)

    @property
    def target(self) -> float:
        """P(`better` is preferred), as far as it is known: 1 for a plain choice, 0.5 for a tie."""
        return (0.5 if self.tie else 1.0) if self.probability is None else self.probability


@dataclass(frozen=True, slots=True)
class Comparison:
    """K responses to one prompt and what one annotator said of their pairs.

    A K-way ranking is the comparison that holds all its pairs (see `from_ranks`). Pairs may be fewer than C(K, 2),
    and human pairs may contradict each other: both are kept as they are.

    Args:
        id: unique within its data set.
        prompt: what was answered.
        responses: the K texts, in the order of their indices.
        preferences: the judged pairs.
        annotator: who judged; empty when unknown.
        shown: the order in which the responses were shown, as indices into `responses`; empty when unknown.
        kind: slice label of the prompt, empty when unknown.
        ended: whether each response came to its end by itself rather than at a length limit; empty when all did.
        unsafe: whether the annotator called each response unsafe; empty where nobody was asked.

    Raises:
        ValueError: an index is out of range, a pair compares a response with itself, K < 2, or safety labels for
            some only.
    """

    id: str
    prompt: PromptText
    responses: tuple[str, ...]
    preferences: tuple[Preference, ...]
    annotator: str = ""
    shown: tuple[int, ...] = ()
    kind: str = ""
    ended: tuple[bool, ...] = ()
    unsafe: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        k = len(self.responses)
        if k < 2:
            raise ValueError(
                f"a comparison needs at least 2 responses; got {k} in {self.id!r}; drop the row or add one"
            )
        if len(self.unsafe) not in (0, k):
            raise ValueError(
                f"a safety label is needed for each response or for none; got {len(self.unsafe)} for {k} in "
                f"{self.id!r}; mend the row"
            )
        for p in self.preferences:
            if not (0 <= p.better < k and 0 <= p.worse < k) or p.better == p.worse:
                raise ValueError(
                    f"a preference must name two different responses among 0..{k - 1}; got ({p.better}, {p.worse}) "
                    f"in {self.id!r}; mend the indices"
                )

    @classmethod
    def from_ranks(
        cls,
        id: str,
        prompt: PromptText,
        responses: Sequence[str],
        ranks: Sequence[int],
        *,
        annotator: str = "",
        shown: Sequence[int] = (),
        kind: str = "",
    ) -> "Comparison":
        """All C(K, 2) pairs of a ranking; 1 is best, equal ranks are ties.

        Raises:
            ValueError: `ranks` and `responses` differ in length.
        """
        if len(ranks) != len(responses):
            raise ValueError(f"one rank per response is needed; got {len(ranks)} ranks for {len(responses)} in {id!r}")
        pairs = []
        for i in range(len(ranks)):
            for j in range(i + 1, len(ranks)):
                better, worse = (i, j) if ranks[i] <= ranks[j] else (j, i)
                pairs.append(Preference(better, worse, tie=ranks[i] == ranks[j]))
        return cls(id, prompt, tuple(responses), tuple(pairs), annotator, tuple(shown), kind)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One response that somebody called desirable or not, by itself: a thumb up or down.

    Args:
        id: unique within its data set.
        prompt: what was answered.
        response: the answer.
        desirable: what was said of it.
        annotator: who said it; empty when unknown.
        kind: slice label of the prompt, empty when unknown.
        ended: whether the response came to its end by itself rather than at a length limit.
    """

    id: str
    prompt: PromptText
    response: str
    desirable: bool
    annotator: str = ""
    kind: str = ""
    ended: bool = True


class Rating(StrEnum):
    """What an annotator says of one step (Lightman et al., arXiv 2305.20050: -1, 0 and +1)."""

    BAD = "bad"
    NEUTRAL = "neutral"
    GOOD = "good"


StepLabel = Rating | float | None
"""A rating, a share of completions that ended right (0 to 1), or None where nobody said."""


@dataclass(frozen=True, slots=True)
class LabelledSolution:
    """A solution cut into steps, and what is known of each of them.

    Args:
        id: unique within its data set.
        prompt: what was asked.
        steps: the texts of the steps, delimiters included: joined together they are the response, to the character.
        labels: one for each step; None where nobody said, as after the first error where labelling stops there.
        correct: whether the final answer is right; None when unknown.
        annotator: who labelled; empty when unknown.
        kind: slice label of the prompt, empty when unknown.
        ended: whether the response came to its end by itself rather than at a length limit.

    Raises:
        ValueError: there is no step, a step is empty, labels and steps differ in number, or a share is outside [0, 1].
    """

    id: str
    prompt: PromptText
    steps: tuple[str, ...]
    labels: tuple[StepLabel, ...]
    correct: bool | None = None
    annotator: str = ""
    kind: str = ""
    ended: bool = True

    def __post_init__(self) -> None:
        if not self.steps or not all(self.steps) or len(self.labels) != len(self.steps):
            raise ValueError(
                f"a solution needs steps with text and one label for each; got {len(self.steps)} steps, "
                f"{len(self.labels)} labels in {self.id!r}; mark a step without a label as None"
            )
        for label in self.labels:
            if isinstance(label, float) and not 0 <= label <= 1:
                raise ValueError(f"a share must be in [0, 1]; got {label} in {self.id!r}; mend the label")

    @property
    def response(self) -> str:
        return "".join(self.steps)

    @property
    def first_error(self) -> int | None:
        """Index of the first step that is bad, or of which no completion ended right; None where there is none."""
        return next((i for i, label in enumerate(self.labels) if label is Rating.BAD or label == 0.0), None)


Record = Document | Demonstration | Task | Comparison | Judgement | LabelledSolution
"""What a data artefact holds, one JSON line each."""


def to_json(record: Record) -> dict[str, object]:
    """The record as plain JSON values; `from_json` of the same class brings it back equal."""
    return asdict(record)


def prompt_from_json(value: object) -> PromptText:
    """Text stays text; a list of turns becomes messages."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return tuple(Message(m["role"], m["content"]) for m in value)
    raise ValueError(f"a prompt is text or a list of messages; got {type(value).__name__}; mend the row")


def comparison_from_json(row: dict) -> Comparison:
    """Inverse of `to_json` for comparisons."""
    preferences = tuple(
        Preference(p["better"], p["worse"], p["tie"], Degree(p["degree"]), p.get("probability"))
        for p in row["preferences"]
    )
    return Comparison(
        row["id"],
        prompt_from_json(row["prompt"]),
        tuple(row["responses"]),
        preferences,
        row["annotator"],
        tuple(row["shown"]),
        row["kind"],
        tuple(row["ended"]),
        tuple(row.get("unsafe", ())),
    )


def solution_from_json(row: dict) -> LabelledSolution:
    """Inverse of `to_json` for labelled solutions."""
    labels = tuple(Rating(x) if isinstance(x, str) else None if x is None else float(x) for x in row["labels"])
    return LabelledSolution(
        row["id"],
        prompt_from_json(row["prompt"]),
        tuple(row["steps"]),
        labels,
        row["correct"],
        row["annotator"],
        row["kind"],
        row["ended"],
    )
