"""Mathematical equality of answers, by the `math-verify` library: 1/2 is 0.5 is \\frac12, {1, 2} is {2, 1}.

Only for a worker process (see `rewards.workers`): algebra on what a policy writes may not end, and the library's own
time limit is a signal, which threads do not get.
"""

from dataclasses import dataclass

from assent.rewards.answers import AnswerPlace, Whole
from assent.rewards.rules import reference_answer
from assent.types import Rollout


@dataclass(frozen=True)
class MathEqual:
    """Whether the response's answer equals the reference answer as mathematics.

    Args:
        place: where the answer stands; `{whole: true}` leaves it to the library to find it in the response.
        right, wrong: the scores.
    """

    place: AnswerPlace
    right: float
    wrong: float

    def __call__(self, rollout: Rollout) -> float:
        reference, found = reference_answer(rollout), self.place.find(rollout.text)
        if found is None:
            return self.wrong
        if found == reference:
            return self.right
        return self.right if _equal(reference, found, searched=isinstance(self.place, Whole)) else self.wrong


def _equal(reference: str, found: str, *, searched: bool) -> bool:
    """Without the library's own time limits: the worker is stopped from outside."""
    from math_verify import parse, verify

    gold = parse(_as_mathematics(reference), parsing_timeout=None)
    said = parse(found if searched else _as_mathematics(found), parsing_timeout=None)
    return bool(verify(gold, said, timeout_seconds=None))


def _as_mathematics(answer: str) -> str:
    """An answer alone, marked as LaTeX unless it is marked already: `x^2` or `\\frac12` in bare text is not read."""
    return answer if "$" in answer or "\\boxed" in answer or "\\(" in answer else f"${answer}$"
