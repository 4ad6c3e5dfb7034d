"""Held-out pairs with a reward model's scores on them: what the report card reads."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from assent.errors import DataError
from assent.evals.intervals import Floats
from assent.records import Comparison, Degree


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """A response and what is known of it.

    Args:
        id: names the response within its prompt, so that several votes on one pair are recognised; its text will do.
        score: the reward model's.
        length: in whatever unit the caller counts, tokens or characters; above 0.
        gold: the gold judgement where there is one.
    """

    id: str
    score: float
    length: float
    gold: float | None = None


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """One annotator's vote on two scored responses; for a tie, `better` and `worse` carry no order."""

    prompt_id: str
    better: ScoredResponse
    worse: ScoredResponse
    tie: bool = False
    degree: Degree = Degree.UNSTATED
    annotator: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        numbers = (self.better.score, self.worse.score, self.better.length, self.worse.length)
        if not np.isfinite(numbers).all() or min(self.better.length, self.worse.length) <= 0:
            raise DataError(
                "a judged pair needs finite scores and lengths above 0",
                got=f"scores and lengths {numbers} of prompt {self.prompt_id!r}",
                why="a pair without a score is neither right nor wrong",
                fix="drop the pair and report how many were dropped",
            )

    @property
    def asked(self) -> tuple[str, str, str]:
        """Prompt and both responses, the same for every vote on them."""
        first, second = sorted((self.better.id, self.worse.id))
        return self.prompt_id, first, second

    @property
    def gap(self) -> float:
        """Score of the preferred response minus that of the other."""
        return self.better.score - self.worse.score

    @property
    def length_gap(self) -> float:
        return self.better.length - self.worse.length

    @property
    def relative_length_gap(self) -> float:
        """Difference of lengths over the longer one, 0 to 1."""
        return abs(self.length_gap) / max(self.better.length, self.worse.length)


def judged_pairs(
    comparison: Comparison, responses: Mapping[str, ScoredResponse], *, prompt_id: str
) -> tuple[JudgedPair, ...]:
    """All pairs of one annotator's comparison.

    Args:
        responses: scored responses by their text.
        prompt_id: the identity of the prompt, the same for every annotator.

    Raises:
        DataError: a response was not scored.
    """
    missing = [text for text in comparison.responses if text not in responses]
    if missing:
        raise DataError(
            f"every response of comparison {comparison.id!r} must be scored",
            got=f"{len(missing)} without a score, the first {missing[0]!r}",
            why="accuracy over a selection of responses is not the accuracy of the reward model",
            fix="score every response, or drop the comparison and count it",
        )
    scored = [responses[text] for text in comparison.responses]
    return tuple(
        JudgedPair(prompt_id, scored[p.better], scored[p.worse], p.tie, p.degree, comparison.annotator, comparison.kind)
        for p in comparison.preferences
    )


def unique_responses(pairs: tuple[JudgedPair, ...]) -> tuple[ScoredResponse, ...]:
    """Each response of each prompt once, in order of first appearance."""
    seen = {(pair.prompt_id, r.id): r for pair in pairs for r in (pair.better, pair.worse)}
    return tuple(seen.values())


def correct(gaps: Floats) -> Floats:
    """1 where the preferred response scores higher, 0 where lower, 0.5 where the scores are equal."""
    return np.where(gaps > 0, 1.0, np.where(gaps < 0, 0.0, 0.5))
