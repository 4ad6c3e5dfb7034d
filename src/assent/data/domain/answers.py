"""Noisy answers: what hurried people write, from a table of how each kind goes wrong."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from assent.data.domain import words as w
from assent.data.domain.cases import Case
from assent.data.domain.claims import EXPERT, REFUSE, UNSAID, UNSURE, Claim, right_claim, say

Odds = Mapping[str, float]


@dataclass(frozen=True)
class Style:
    """How a group of writers answers.

    Args:
        content: for each kind, the weights of right content and of each defect; `unsaid` stands for the questions
            that the review does not answer.
        courteous, filler, rude: how often a response has such a sentence.
    """

    content: Mapping[str, Odds]
    courteous: float
    filler: float
    rude: float

    @cached_property
    def odds(self) -> Mapping[str, tuple[tuple[str, ...], tuple[float, ...]]]:
        """For each row of `content`, the defects and their weights summed up to each."""
        return {row: (tuple(odds), tuple(accumulate(odds.values()))) for row, odds in self.content.items()}


FORUM = Style(
    content={
        "summary": {"right": 0.86, "partial": 0.08, "vague": 0.03, "flipped": 0.01, "stray": 0.02},
        "question": {"right": 0.90, "flipped": 0.02, "unsure": 0.05, "denied": 0.03},
        "unsaid": {"right": 0.85, "invented": 0.10, "unsure": 0.05},
        "reply": {"right": 0.86, "vague": 0.10, "flipped": 0.02, "stray": 0.02},
        "route": {"right": 0.90, "lazy": 0.06, "wrong": 0.04},
        "howto": {"right": 0.90, "lazy": 0.05, "refused": 0.02, "wrong": 0.03},
        "refusal": {"right": 0.25, "complied": 0.70, "lazy": 0.05},
    },
    courteous=0.15,
    filler=0.15,
    rude=0.10,
)
"""People who answer in public: mostly right, curt, and helpful with anything."""

HURRIED = Style(
    content={
        "summary": {"right": 0.27, "partial": 0.38, "vague": 0.17, "flipped": 0.06, "stray": 0.04, "astray": 0.08},
        "question": {"right": 0.46, "flipped": 0.08, "unsure": 0.33, "denied": 0.06, "astray": 0.07},
        "unsaid": {"right": 0.25, "invented": 0.40, "unsure": 0.28, "astray": 0.07},
        "reply": {"right": 0.28, "vague": 0.53, "flipped": 0.07, "stray": 0.04, "astray": 0.08},
        "route": {"right": 0.30, "lazy": 0.54, "wrong": 0.08, "astray": 0.08},
        "howto": {"right": 0.30, "lazy": 0.48, "refused": 0.08, "wrong": 0.07, "astray": 0.07},
        "refusal": {"right": 0.30, "complied": 0.55, "lazy": 0.08, "astray": 0.07},
    },
    courteous=0.30,
    filler=0.35,
    rude=0.12,
)
"""Paid by the piece: evasive where being specific takes a second look, wrong now and then, and padded."""


def write(case: Case, style: Style, rng: random.Random) -> str:
    """One response in a style; it starts with a space."""
    row = "unsaid" if case.asked in w.UNSAID else case.kind
    defects, up_to = style.odds[row]
    defect = rng.choices(defects, cum_weights=up_to)[0]
    return dress(say(_claim(case, defect, rng)), style, rng)


def dress(content: str, style: Style, rng: random.Random) -> str:
    """Content with the manners of a style around it."""
    sentences = [content]
    if rng.random() < style.filler:
        sentences.insert(rng.randrange(2), rng.choice(w.FILLER))
    if rng.random() < style.rude:
        sentences.insert(rng.choice((0, len(sentences))), rng.choice(w.RUDE))
    elif rng.random() < style.courteous:
        courtesy = rng.choice(w.COURTESIES)
        sentences.insert(0 if courtesy in w.OPENERS else len(sentences), courtesy)
    return " " + " ".join(sentences)


def ideal_text(case: Case) -> str:
    """The best response to a case."""
    return f" {say(right_claim(case))} {w.CLOSERS[0]}"


def _claim(case: Case, defect: str, rng: random.Random) -> Claim:
    if defect == "right":
        return _right_in_any_order(case, rng)
    if defect == "astray":
        return _astray(case, rng)
    if case.kind in ("summary", "reply"):
        return _on_review(case, defect, rng)
    if case.kind == "question":
        if defect == "invented":
            return Claim("invent", things=(rng.choice(w.UNSAID[case.asked]),))
        wrong = Claim("confirm", not case.liked, (case.product,))
        return {"denied": UNSAID, "unsure": UNSURE}.get(defect, wrong)
    if case.kind == "route":
        desk = w.LAZY_DESK if defect == "lazy" else rng.choice([d for d in w.DESKS if d != case.answer])
        return Claim("route", things=(desk,))
    if defect in ("lazy", "refused"):
        return EXPERT if defect == "lazy" else REFUSE
    return Claim("use", things=(rng.choice([t for t in w.TOOLS if t != case.answer]),))


def _astray(case: Case, rng: random.Random) -> Claim:
    """What would answer another question."""
    product, aspects = case.product or rng.choice(w.PRODUCTS), case.aspects or tuple(rng.sample(w.ASPECTS, 2))
    claims = (
        Claim("opinion", case.liked, (aspects[0], product)),
        Claim("confirm", case.liked, (product,)),
        Claim("reply", case.liked, (aspects[0], product)),
        UNSAID,
        Claim("route", things=(rng.choice(w.DESKS),)),
        Claim("use", things=(rng.choice(tuple(w.TOOLS)),)),
        REFUSE,
    )
    return rng.choice([claim for claim in claims if claim.act != right_claim(case).act])


def _right_in_any_order(case: Case, rng: random.Random) -> Claim:
    right = right_claim(case)
    if case.kind in ("summary", "reply"):
        return Claim(right.act, right.liked, (rng.choice(case.aspects), case.product))
    return right


def _on_review(case: Case, defect: str, rng: random.Random) -> Claim:
    aspect, stray = rng.choice(case.aspects), rng.choice([a for a in w.ASPECTS if a not in case.aspects])
    things = {"partial": (aspect,), "vague": (case.product,), "stray": (stray, case.product)}
    act = "opinion" if case.kind == "summary" else "reply"
    return Claim(act, case.liked != (defect == "flipped"), things.get(defect, (aspect, case.product)))
