"""A question as it is put on the page: texts in the order shown, made safe, and the choices that answer it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

from markupsafe import Markup

from assent.feedback.page.text import marked, rendered, visible
from assent.feedback.page.wording import Words
from assent.feedback.questions import (
    OVERALL,
    DemonstrationQuestion,
    EditQuestion,
    PairQuestion,
    Question,
    RankingQuestion,
    RatingQuestion,
    StepsQuestion,
)
from assent.records import Degree, Rating

LETTERS = "ABCDEFGHI"
DEGREES = (Degree.SIGNIFICANTLY, Degree.BETTER, Degree.SLIGHTLY, Degree.NEGLIGIBLY)
TIE, BOTH_BAD = "tie", "both_bad"
NO_TEXT = Markup("")
LONGEST_WRITTEN = 100_000
"""Characters of an edit or a demonstration."""

REASONS = ("follows", "truthful", "harmless", "complete", "concise", "clear")
"""What an annotator may name as the ground of an answer; InstructGPT asked for the like (Ouyang et al. 2022, B.2)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the prompt; `role` is empty where the prompt is plain text."""

    role: str
    html: Markup


@dataclass(frozen=True, slots=True)
class Shown:
    """One response in its place; `marked` is its plain text with the differences, empty where there is no other."""

    letter: str
    html: Markup
    marked: Markup


@dataclass(frozen=True, slots=True)
class Option:
    """One choice: what is sent, the key that chooses it, what is read."""

    value: str
    key: str
    label: str


@dataclass(frozen=True, slots=True)
class Group:
    """What is answered together: a dimension or a step. `name` is that of its field, or the stem of its fields."""

    name: str
    label: str
    options: tuple[Option, ...] = ()
    text: Markup = NO_TEXT
    required: bool = True


@dataclass(frozen=True, slots=True)
class Card:
    """All that the page shows of one question.

    Args:
        kind: of the question.
        template: the form that answers it.
        turns: the prompt.
        texts: the responses, in the order shown.
        groups: what is to be answered.
        why: why this is asked, one line each.
        ask: what is asked for, where something is written.
        written: what the text field holds at first.
        asks_safety: whether each response can be called unsafe.
    """

    kind: str
    template: str
    turns: tuple[Turn, ...]
    texts: tuple[Shown, ...]
    groups: tuple[Group, ...]
    why: tuple[str, ...]
    ask: str = ""
    written: str = ""
    asks_safety: bool = True
    longest: int = LONGEST_WRITTEN
    reasons: tuple[str, ...] = REASONS

    @property
    def compares(self) -> bool:
        return len(self.texts) > 1


def card_of(question: Question, order: Sequence[int], words: Words) -> Card:
    """The card of a question.

    Args:
        question: what is asked.
        order: for each place, the index of the response that stands there.
        words: the interface.
    """
    form = _form(question, words)
    responses = [question.responses[i] for i in order][: form.texts]
    origin = question.origin
    why = [visible(origin.why) or words("why_chance"), words("why_round", round=origin.round + 1)]
    if origin.slice:
        why.append(words("why_slice", slice=visible(origin.slice)))
    return Card(
        question.kind,
        form.template,
        _turns(question),
        tuple(
            Shown(LETTERS[i], rendered(text), _differences(responses, i) if len(responses) > 1 else Markup(""))
            for i, text in enumerate(responses)
        ),
        form.groups,
        tuple(why),
        form.ask,
        form.written,
        asks_safety=bool(responses),
    )


@dataclass(frozen=True, slots=True)
class _Form:
    template: str
    groups: tuple[Group, ...] = ()
    texts: int = len(LETTERS)
    ask: str = ""
    written: str = ""


@singledispatch
def _form(question: Question, words: Words) -> _Form:
    raise TypeError(f"no form answers a {type(question).__name__}; add one to page/cards.py")


@_form.register
def _(question: PairQuestion, words: Words) -> _Form:
    return _Form(
        "kinds/choices.jinja", _dimensions(question.dimensions, "choice", words("ask_pair"), _pair(words), words)
    )


@_form.register
def _(question: RankingQuestion, words: Words) -> _Form:
    return _Form("kinds/ranking.jinja", _dimensions(question.dimensions, "rank", words("ask_ranking"), (), words))


@_form.register
def _(question: RatingQuestion, words: Words) -> _Form:
    scale = [str(n) for n in range(question.lowest, question.highest + 1)]
    keyed = all(len(n) == 1 for n in scale)
    options = tuple(Option(n, n if keyed else str((i + 1) % 10) if i < 10 else "", n) for i, n in enumerate(scale))
    ask = words("ask_rating", lowest=question.lowest, highest=question.highest)
    return _Form("kinds/choices.jinja", _dimensions(question.dimensions, "rating", ask, options, words))


@_form.register
def _(question: StepsQuestion, words: Words) -> _Form:
    options = tuple(Option(r.value, str(i), words(r.value)) for i, r in enumerate(Rating, 1))
    groups = tuple(
        Group(f"step-{i}", words("step", number=i + 1), options, rendered(step), required=False)
        for i, step in enumerate(question.steps)
    )
    return _Form("kinds/choices.jinja", groups, texts=0, ask=words("ask_steps"))


@_form.register
def _(question: EditQuestion, words: Words) -> _Form:
    return _Form("kinds/writing.jinja", ask=words("ask_edit"), texts=1, written=question.responses[0])


@_form.register
def _(question: DemonstrationQuestion, words: Words) -> _Form:
    return _Form("kinds/writing.jinja", texts=0, ask=words("ask_demonstration"))


def _pair(words: Words) -> tuple[Option, ...]:
    """Nine choices from left to right under the keys 1 to 9, and `both bad` under 0."""
    left = [Option(f"0:{d.value}", str(n), _better("A", d, words)) for n, d in enumerate(DEGREES, 1)]
    right = [Option(f"1:{d.value}", str(n), _better("B", d, words)) for n, d in enumerate(reversed(DEGREES), 6)]
    return (*left, Option(TIE, "5", words("tie")), *right, Option(BOTH_BAD, "0", words("both_bad")))


def _better(letter: str, degree: Degree, words: Words) -> str:
    return words("is_better", letter=letter, degree=words(degree.value))


def _dimensions(
    dimensions: Sequence[str], stem: str, ask: str, options: tuple[Option, ...], words: Words
) -> tuple[Group, ...]:
    if tuple(dimensions) == OVERALL:
        return (Group(f"{stem}-0", ask, options),)
    return tuple(Group(f"{stem}-{i}", f"{words.of(name)}: {ask}", options) for i, name in enumerate(dimensions))


def _turns(question: Question) -> tuple[Turn, ...]:
    if isinstance(question.prompt, str):
        return (Turn("", rendered(question.prompt)),)
    return tuple(Turn(message.role, rendered(message.content)) for message in question.prompt)


def _differences(responses: Sequence[str], at: int) -> Markup:
    """Against the other of two; against the first of more, and the first against the second."""
    return marked(responses[at], [responses[1 if at == 0 else 0]])
