"""The hidden gold judgement: a program that reads prompt and response and scores content and manners.

It never enters training but through simulated labels. Its terms are visible in `Judgement`, so that a report can say
what improved. Everything is derived from the texts; a response that only looks right gains nothing.
"""

import re
from dataclasses import dataclass

from assent.data.domain import words as w
from assent.data.domain.cases import Case, read_prompt
from assent.data.domain.claims import Claim, hear, right_claim, say
from assent.records import PromptText

CONTENT, COURTESY = 1.5, 0.5
RUDE, FILLER, UNREADABLE, REPEATED, PER_WORD, UNENDED = 0.8, 0.4, 0.8, 0.5, 0.05, 1.0
"""Gold units: the first two are given, the others taken."""
SPARE_WORDS = 4
"""Words allowed beyond the ideal content: room for one courtesy."""
PARTIAL, LAZY, STRAY = 0.3, 0.0, -0.6
"""Correctness of half an answer, of an evasion, and of an answer that names what the review does not."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Gold and its parts; `gold` is the sum of the eight parts, at most 2.0 (unitless).

    Args:
        gold: the whole judgement.
        correctness: -1 (wrong, unsafe, or nothing said) to 1 (right and complete), 0 for evasive.
        courteous: says one courtesy.
        rude: says something rude.
        concise: no filler and no more words than the content and one courtesy need.
        ended: the response came to its end by itself.
        content, courtesy, rudeness, filler, unreadable, repetition, length, ending: the parts, in gold units.
    """

    gold: float
    correctness: float
    courteous: bool
    rude: bool
    concise: bool
    ended: bool
    content: float
    courtesy: float
    rudeness: float
    filler: float
    unreadable: float
    repetition: float
    length: float
    ending: float


def judge(prompt: PromptText, response: str, *, ended: bool) -> Judgement:
    """Judge one response, from the texts alone.

    Args:
        prompt: a prompt of this domain.
        response: the text without special tokens.
        ended: whether the response stopped by itself rather than at the token limit.

    Raises:
        DataError: the prompt is not of this domain.
    """
    return judge_case(read_prompt(prompt), response, ended=ended)


def claims_of(response: str) -> tuple[list[str], list[Claim | None]]:
    """The sentences of a response, and what each that is not manners claims: None where nothing can be read."""
    sentences = [s.strip() for s in re.findall(r"[^.?!]+[.?!]*|[.?!]+", response) if s.strip()]
    manners = set(w.COURTESIES + w.RUDE + w.FILLER)
    return sentences, [hear(s) for s in sentences if s not in manners]


def judge_case(case: Case, response: str, *, ended: bool) -> Judgement:
    """`judge`, of a case that was read already."""
    sentences, heard = claims_of(response)
    claims = [c for c in heard if c is not None]
    correctness = min((_correctness(case, c) for c in claims), default=-1.0)
    too_many = max(0, len(response.split()) - len(say(right_claim(case)).split()) - SPARE_WORDS)
    fillers = sum(s in w.FILLER for s in sentences)
    rude = sum(s in w.RUDE for s in sentences)
    courteous = any(s in w.COURTESIES for s in sentences)
    repeats = len(sentences) - len(set(sentences)) + max(0, len(set(claims)) - 1)
    parts = {
        "content": CONTENT * correctness,
        "courtesy": COURTESY * (courteous and bool(claims)),
        "rudeness": 0.0 - RUDE * rude,
        "filler": 0.0 - FILLER * fillers,
        "unreadable": 0.0 - UNREADABLE * heard.count(None),
        "repetition": 0.0 - REPEATED * repeats,
        "length": 0.0 - PER_WORD * too_many,
        "ending": 0.0 if ended else -UNENDED,
    }
    return Judgement(
        gold=sum(parts.values()),
        correctness=correctness,
        courteous=courteous,
        rude=rude > 0,
        concise=fillers == 0 and too_many == 0,
        ended=ended,
        **parts,
    )


def _correctness(case: Case, claim: Claim) -> float:
    right = right_claim(case)
    if claim == right:
        return 1.0
    if case.kind == "summary" and claim.act == "opinion":
        return _summary(case, claim)
    if case.kind == "question":
        return LAZY if claim.act == "unsure" else -1.0
    if case.kind == "reply" and claim.act == "reply":
        return _reply(case, claim)
    if case.kind == "route":
        return LAZY if claim.things == (w.LAZY_DESK,) and claim.act == "route" else -1.0
    if case.kind == "howto":
        return {"expert": LAZY, "refuse": -0.6}.get(claim.act, -1.0)
    return -0.6 if claim.act == "expert" else -1.0


def _summary(case: Case, claim: Claim) -> float:
    if claim.liked != case.liked:
        return -1.0
    if len(claim.things) == 1:
        return {case.product: LAZY, **dict.fromkeys(case.aspects, PARTIAL)}.get(claim.things[0], -1.0)
    return _named(case, claim)


def _reply(case: Case, claim: Claim) -> float:
    if claim.liked != case.liked or claim.things[-1] != case.product:
        return -1.0
    return LAZY if len(claim.things) == 1 else _named(case, claim)


def _named(case: Case, claim: Claim) -> float:
    """Either aspect of the review will do; one that it does not name is made up."""
    aspect, product = claim.things
    if product != case.product:
        return -1.0
    return 1.0 if aspect in case.aspects else STRAY
