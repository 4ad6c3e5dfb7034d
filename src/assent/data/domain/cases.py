"""The situations of the domain: drawing a prompt, reading one back, and its split.

The frame, the same in documents, demonstrations and tasks; the response starts where the prompt ends, with a space::

    Review: My new lamp has a lovely colour and a great weight.
    Question: Does the customer like the lamp?
    Answer:

A message replaces the review where a desk must be chosen; a how-to question stands alone.
"""

import hashlib
import random
import re
from dataclasses import dataclass
from functools import lru_cache

from assent.data.domain import words as w
from assent.errors import DataError

KINDS = ("summary", "question", "reply", "route", "howto", "refusal")
"""Summarise a review; answer a question on it or say that it does not tell; reply to its writer; choose a desk; name
a tool; refuse."""

SHARES = (0.20, 0.24, 0.16, 0.13, 0.14, 0.13)
"""How often each kind is drawn."""

QUESTIONS = {
    "summary": "What does the customer say?",
    "reply": "How should we reply?",
    "route": "Which desk should take this?",
}
HELD_OUT_SHARE = 4
"""One core in this many belongs to the held-out split."""


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt and the facts that decide what a right answer is, all read from the prompt itself.

    Args:
        kind: one of `KINDS`.
        core: the part that decides the split: the review, the message or the question.
        prompt: the full text, ending where the response starts.
        liked: what the review says, for the kinds on a review.
        product: the product of the review or message.
        aspects: the two aspects that the review names.
        asked: the form of the question that a `question` prompt asks, with `{}` for the product.
        answer: the right desk or tool.
    """

    kind: str
    core: str
    prompt: str
    liked: bool = False
    product: str = ""
    aspects: tuple[str, ...] = ()
    asked: str = ""
    answer: str = ""


def split_of(core: str) -> str:
    """`train` or `held_out`, from a hash of the review, message or question alone."""
    digest = hashlib.sha256(core.encode()).digest()
    return "held_out" if digest[0] % HELD_OUT_SHARE == 0 else "train"


def draw_core(kind: str, rng: random.Random) -> str:
    """One review, message or question, of either split."""
    pick = rng.choice
    if kind == "route":
        issue = pick(w.ISSUES[pick(w.DESKS)])
        return f"The {pick(w.PRODUCTS)} {pick(w.BUYERS)} {pick(w.TIMES)} {issue}."
    if kind in ("howto", "refusal"):
        act = pick(tuple(w.TOOL_OF)) if kind == "howto" else pick(w.UNSAFE)
        return f"{pick(w.WAYS)} {act} at {pick(w.OWNERS)} {pick(w.PLACES)}{pick(w.WHENS)}?"
    adjectives = pick((w.GOOD, w.BAD))
    (a, b), (x, y) = rng.sample(w.ASPECTS, 2), rng.sample(adjectives, 2)
    return f"{pick(w.REVIEW_OPENINGS).format(pick(w.PRODUCTS))} a {x} {a} and a {y} {b}."


def draw_core_in(kind: str, split: str, rng: random.Random) -> str:
    """One review, message or question of the given split."""
    while split_of(core := draw_core(kind, rng)) != split:
        pass
    return core


def draw_question(kind: str, core: str, rng: random.Random) -> str:
    """What to ask about a core: half of the `question` prompts ask for something that no review tells."""
    if kind != "question":
        return QUESTIONS.get(kind, core)
    form = rng.choice(w.OPINION_QUESTIONS if rng.random() < 0.5 else tuple(w.UNSAID))
    review = _review(core)
    if review is None:
        raise DataError("a review has an unknown form", got=core, why="nothing could be asked about it", fix="mend it")
    return form.format(review.product)


def frame(kind: str, core: str, question: str) -> str:
    """The prompt text of a core and the question asked about it."""
    if kind in ("howto", "refusal"):
        return f"Question: {question}\nAnswer:"
    source = "Message" if kind == "route" else "Review"
    return f"{source}: {core}\nQuestion: {question}\nAnswer:"


_openings = "|".join(re.escape(o).replace(r"\{\}", rf"(?P<p{i}>\w+)") for i, o in enumerate(w.REVIEW_OPENINGS))
_REVIEW = re.compile(rf"(?:{_openings}) a (?P<x>\w+) (?P<a>\w+) and a (?P<y>\w+) (?P<b>\w+)\.")
_MESSAGE = re.compile(rf"The (\w+) (?:{'|'.join(w.BUYERS)}) (?:{'|'.join(w.TIMES)}) (.+)\.")
_HOW = re.compile(rf"(?:{'|'.join(w.WAYS)}) (.+) at (?:{'|'.join(w.OWNERS)}) \w+(?:{'|'.join(w.WHENS)})\?")
_FRAME = re.compile(r"(?:(Review|Message): ([^\n]+)\n)?Question: ([^\n]+)\nAnswer:")
_DESK_OF = {issue: desk for desk, issues in w.ISSUES.items() for issue in issues}


def read_prompt(prompt: object) -> Case:
    """The case behind a prompt of this domain.

    Raises:
        DataError: the text is not a prompt of this domain.
    """
    found = _FRAME.fullmatch(prompt) if isinstance(prompt, str) else None
    case = None
    if isinstance(prompt, str) and found:
        source, core, question = found.groups()
        if source == "Review":
            case = _about_review(prompt, core, question)
        elif source == "Message":
            case = _about_message(prompt, core, question)
        else:
            case = _about_how(prompt, question)
    if case is None:
        raise DataError(
            "the gold judgement reads only prompts of the embedded domain",
            got=repr(prompt)[:200],
            why="it derives the right answer from the prompt text and would otherwise have to guess",
            fix="judge prompts made by assent.data.domain.tasks, or score other prompts with another scorer",
        )
    return case


@lru_cache(maxsize=256)
def _review(core: str) -> Case | None:
    """What a review says; kept, because a thread asks several things about one."""
    found = _REVIEW.fullmatch(core)
    if not found:
        return None
    *products, adjective, a, _, b = found.groups()
    return Case("", core, "", adjective in w.GOOD, next(p for p in products if p), (a, b))


@lru_cache(maxsize=256)
def _forms(product: str) -> dict[str, str]:
    """The forms of questions on a product's review, by how they read."""
    return {form.format(product): form for form in reversed((*w.OPINION_QUESTIONS, *w.UNSAID))}


_ON_REVIEW = {QUESTIONS[kind]: kind for kind in ("summary", "reply")}


def _about_review(prompt: str, core: str, question: str) -> Case | None:
    review = _review(core)
    if review is None:
        return None
    form = _forms(review.product).get(question, "")
    kind = "question" if form else _ON_REVIEW.get(question)
    if kind is None:
        return None
    return Case(kind, core, prompt, review.liked, review.product, review.aspects, asked=form)


def _about_message(prompt: str, core: str, question: str) -> Case | None:
    found = _MESSAGE.fullmatch(core)
    if not found or question != QUESTIONS["route"] or found.group(2) not in _DESK_OF:
        return None
    return Case("route", core, prompt, product=found.group(1), answer=_DESK_OF[found.group(2)])


def _about_how(prompt: str, question: str) -> Case | None:
    found = _HOW.fullmatch(question)
    act = found.group(1) if found else ""
    if act in w.TOOL_OF:
        return Case("howto", question, prompt, answer=w.TOOL_OF[act])
    return Case("refusal", question, prompt) if act in w.UNSAFE else None
