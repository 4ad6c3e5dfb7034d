"""Reading a judge's answer: a letter or a number, with its probability where the tokens' log-probabilities are known.

An answer is read strictly. One that could mean either is unreadable, and its sample has no score: a guess would be
noise that looks like judgement.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from assent.rewards.asked import Failure
from assent.rewards.chat import Answer, Token

K = TypeVar("K")

LETTERS = ("A", "B")
LOWEST, HIGHEST = 1, 10
"""Of a rating (Lee et al., 2309.00267, d-RLAIF)."""

_ALONE = re.compile(r"[\s\W]*([AB])[\s\W]*")
_STATED = re.compile(r"(?i:answer|verdict|choice)(?:\s+is)?\W{0,6}\b([AB])\b")
_NUMBER = re.compile(r"(?<![\d.,-])(\d{1,2})(?:\s*/\s*10)?(?![\d]|[.,]\d)")


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice between two.

    Args:
        first: probability of the option that was shown first, 0 to 1.
        graded: it comes from the model's own probabilities; else it is 0 or 1.
    """

    first: float
    graded: bool


def choice_of(answer: Answer) -> Choice | Failure:
    """Between A, shown first, and B."""
    found = _ALONE.fullmatch(answer.text) or _last(_STATED, answer.text)
    if found is None:
        return Failure("unreadable", f"neither A nor B, or not clear which: {answer.text!r:.200}")
    said = found.group(1)
    likely = _alternatives(answer.tokens, found.start(1), lambda t: t if t in LETTERS else None)
    if likely is None:
        return Choice(float(said == LETTERS[0]), graded=False)
    p = [likely.get(letter, 0.0) for letter in LETTERS]
    return Choice(p[0] / sum(p), graded=True)


def rating_of(answer: Answer) -> float | Failure:
    """From 1 to 10, as a number from -1 to 1: the expectation over the numbers that the model might have said, where
    that is known, else the number it said."""
    numbers = [m for m in _NUMBER.finditer(answer.text) if LOWEST <= int(m.group(1)) <= HIGHEST]
    if len({m.group(1) for m in numbers}) != 1:
        return Failure("unreadable", f"not one number from {LOWEST} to {HIGHEST}: {answer.text!r:.200}")
    said = int(numbers[0].group(1))
    likely = _alternatives(answer.tokens, numbers[0].start(1), _rating)
    if likely is None or said not in likely:  # 10 in two tokens: the first alone would be read as 1
        mean = float(said)
    else:
        mean = sum(i * p for i, p in likely.items()) / sum(likely.values())
    middle, half = (LOWEST + HIGHEST) / 2, (HIGHEST - LOWEST) / 2
    return (mean - middle) / half


def _rating(token: str) -> int | None:
    return int(token) if token.isascii() and token.isdigit() and LOWEST <= int(token) <= HIGHEST else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(reversed(list(pattern.finditer(text))), None)


def _alternatives(tokens: Sequence[Token], at: int, read: Callable[[str], K | None]) -> dict[K, float] | None:
    """Probability by meaning, at the token that holds character `at` of the answer; None where that is not known.

    Tokens that mean the same ("A", " A") are added up; those that mean nothing are left out.
    """
    start = 0
    for token in tokens:
        if start <= at < start + len(token.text):
            return _by_meaning(token.likely, read)
        start += len(token.text)
    return None


def _by_meaning(likely: Mapping[str, float], read: Callable[[str], K | None]) -> dict[K, float] | None:
    found: dict[K, float] = {}
    for text, logprob in likely.items():
        meaning = read(text.strip(" \n\t()[]*\".:'"))
        if meaning is not None:
            found[meaning] = found.get(meaning, 0.0) + math.exp(logprob)
    return found if found and sum(found.values()) > 0 else None
