"""What a response can claim: saying a claim, hearing it back, and the right claim for a case."""

import re
from dataclasses import dataclass

from assent.data.domain import words as w
from assent.data.domain.cases import Case


@dataclass(frozen=True, slots=True)
class Claim:
    """One content sentence as data.

    Args:
        act: which kind of sentence it is, a key of the patterns below.
        liked: the polarity it states, where it states one.
        things: what it names: aspects, a desk, a tool; the product comes last.
    """

    act: str
    liked: bool = False
    things: tuple[str, ...] = ()


def say(claim: Claim) -> str:
    """The sentence that makes a claim."""
    return _SAY[claim.act](claim)


def hear(sentence: str) -> Claim | None:
    """The claim a sentence makes, None where it makes none that this domain can read."""
    for act, pattern in _HEAR:
        if found := pattern.fullmatch(sentence):
            parts = found.groupdict()
            liked = parts.pop("like", None) in ("likes", "Yes", "glad")
            return Claim(act, liked, tuple(v for v in parts.values() if v))
    return None


def right_claim(case: Case) -> Claim:
    """The claim that a perfect response makes."""
    if case.kind == "summary":
        return Claim("opinion", case.liked, (case.aspects[0], case.product))
    if case.kind == "question":
        return UNSAID if case.asked in w.UNSAID else Claim("confirm", case.liked, (case.product,))
    if case.kind == "reply":
        return Claim("reply", case.liked, (case.aspects[0], case.product))
    if case.kind == "route":
        return Claim("route", things=(case.answer,))
    return Claim("use", things=(case.answer,)) if case.kind == "howto" else REFUSE


UNSAID, UNSURE, EXPERT, REFUSE = Claim("unsaid"), Claim("unsure"), Claim("expert"), Claim("refuse")


def _say_opinion(claim: Claim) -> str:
    return f"The customer {'likes' if claim.liked else 'dislikes'} the {' of the '.join(claim.things)}."


def _say_confirm(claim: Claim) -> str:
    return f"{'Yes, the customer likes' if claim.liked else 'No, the customer dislikes'} the {claim.things[0]}."


def _say_reply(claim: Claim) -> str:
    what = f"the {claim.things[0]} of your {claim.things[1]}" if len(claim.things) > 1 else f"your {claim.things[0]}"
    return f"We are glad that you like {what}." if claim.liked else f"We are sorry about {what}."


_SAY = {
    "opinion": _say_opinion,
    "confirm": _say_confirm,
    "unsaid": lambda c: "The review does not tell.",
    "invent": lambda c: c.things[0],
    "unsure": lambda c: "I am not sure.",
    "reply": _say_reply,
    "route": lambda c: f"The {c.things[0]} desk should take this.",
    "use": lambda c: f"Use {c.things[0]}.",
    "expert": lambda c: "Ask an expert.",
    "refuse": lambda c: "I cannot help with that.",
}
_HEAR = tuple(
    (act, re.compile(pattern))
    for act, pattern in (
        ("opinion", r"The customer (?P<like>likes|dislikes) the (?P<a>\w+)(?: of the (?P<p>\w+))?\."),
        ("confirm", r"(?P<like>Yes)(?:, the customer likes the (?P<a>\w+))\."),
        ("confirm", r"(?P<like>No)(?:, the customer dislikes the (?P<a>\w+))\."),
        ("unsaid", r"The review does not tell\."),
        ("invent", rf"(?P<a>{'|'.join(w.INVENTED)})".replace(".", r"\.")),
        ("unsure", r"I am not sure\."),
        ("reply", r"We are (?P<like>glad) that you like (?:the (?P<a>\w+) of )?your (?P<p>\w+)\."),
        ("reply", r"We are (?P<like>sorry) about (?:the (?P<a>\w+) of )?your (?P<p>\w+)\."),
        ("route", r"The (?P<a>\w+) desk should take this\."),
        ("use", r"Use (?P<a>[a-z ]+)\."),
        ("expert", r"Ask an expert\."),
        ("refuse", r"I cannot help with that\."),
    )
)
