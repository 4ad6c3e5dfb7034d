"""Two models' responses side by side before a feedback model or before people: a win rate without a score."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag

from assent.config import Frozen
from assent.errors import ContractError
from assent.evals.win_rate import WinRate, of_outcomes
from assent.feedback.answers import PairAnswer
from assent.feedback.principles import drawn, read_principles
from assent.feedback.questions import OVERALL, PairQuestion, identity
from assent.feedback.store import Answered
from assent.pipeline.stage import StageContext
from assent.rewards.asked import Failure
from assent.rewards.judge import Pair, PairwiseJudge, Verdict
from assent.stages.ai_annotators import TIE, AiAnnotator
from assent.stages.asking import People, ask, origin_of
from assent.types import Rollout

Sampled = Mapping[str, tuple[Sequence[Rollout], Sequence[Rollout]]]
"""By how they were drawn, `sampled` and `greedy`: the policy's responses and the baseline's, row by row."""


@dataclass(frozen=True)
class Sides:
    """What was said of two models' responses.

    Args:
        rate: of all verdicts; responses of one text are a tie that nobody was asked about.
        about: the same by what a pair was judged by: the principle's subject, or each dimension that people were asked
            about (`rate` is then that of the first).
        unscored: pairs without a verdict.
        consistent: share of the pairs asked about whose two orders prefer the same response; None where each was shown
            in one order.
        first: how often whichever was shown first was preferred; 0.5 is no position bias; None where nobody preferred.
    """

    rate: WinRate
    about: Mapping[str, WinRate]
    unscored: int
    consistent: float | None
    first: float | None


class JudgingPeople(People):
    """People who judge; see `asking.People` for where they are asked, and how many.

    Args:
        dimensions: what is asked of each pair, such as `[helpful, harmless, honest]`; the first is the verdict.
        responses: whether people see sampled or greedy responses.
    """

    dimensions: tuple[str, ...] = Field(OVERALL, min_length=1)
    responses: Literal["sampled", "greedy"] = "sampled"


class PeopleJudge(Frozen):
    """`{people: {}}`: with the store of the run; `{people: {store: URL, dimensions: [helpful, harmless, honest]}}`."""

    people: JudgingPeople


def _who(value: Any) -> str:
    people = isinstance(value, PeopleJudge) or (isinstance(value, dict) and "people" in value)
    return "people" if people else "a feedback model"


AnyJudge = Annotated[
    Annotated[AiAnnotator, Tag("a feedback model")] | Annotated[PeopleJudge, Tag("people")], Discriminator(_who)
]


def side_by_side(
    spec: AiAnnotator | PeopleJudge, sampled: Sampled, models: tuple[str, str], context: StageContext
) -> tuple[str, dict[str, Sides]]:
    """Who judged, and what they said.

    Args:
        models: the policy and the baseline, as the recipe names them.

    Raises:
        ContractError: a feedback model gave no verdict at all.
        AwaitingPeople: not enough answers are in.
    """
    if isinstance(spec, PeopleJudge):
        how = spec.people.responses
        return "people", {how: asked_of_people(spec.people, *sampled[how], models, context)}
    judge = FeedbackModelJudge(spec, context)
    return judge.name, {how: judge(policy, baseline) for how, (policy, baseline) in sampled.items()}


# ------------------------------------------------------------------------------------------------ a feedback model


class FeedbackModelJudge:
    """Asks a feedback model which of two responses to a prompt is better, by a principle drawn for the pair."""

    def __init__(self, spec: AiAnnotator, context: StageContext) -> None:
        self.name, self.seed = spec.judge.label, context.seed
        self.judge = PairwiseJudge(spec.judge.feedback(context).compare, spec.clamp)
        self.principles = read_principles(None if spec.principles is None else Path(spec.principles).expanduser())

    def __call__(self, policy: Sequence[Rollout], baseline: Sequence[Rollout]) -> Sides:
        """Row by row, whose response is preferred.

        Raises:
            ContractError: no pair of different texts had a verdict.
        """
        pairs = [self._pair(a, b) for a, b in zip(policy, baseline, strict=True)]
        differ = [i for i, pair in enumerate(pairs) if pair.a != pair.b]
        said = dict(zip(differ, self.judge([pairs[i] for i in differ]), strict=True))
        verdicts = {i: v for i, v in said.items() if isinstance(v, Verdict)}
        if differ and not verdicts:
            raise self._silent([v for v in said.values() if isinstance(v, Failure)])
        outcomes = [
            (policy[i].prompt.id, pairs[i].about, outcome(verdicts[i].a) if i in verdicts else 0.5)
            for i in range(len(pairs))
            if i in verdicts or i not in said
        ]
        return Sides(
            _rate(outcomes),
            {word: _rate([o for o in outcomes if o[1] == word]) for word in sorted({o[1] for o in outcomes}) if word},
            len(said) - len(verdicts),
            float(np.mean([v.consistent for v in verdicts.values()])) if verdicts else None,
            float(np.mean([v.first for v in verdicts.values()])) if verdicts else None,
        )

    def _pair(self, a: Rollout, b: Rollout) -> Pair:
        principle = drawn(self.principles, random.Random(f"{self.seed}/{a.prompt.id}"))
        return Pair(a.prompt.source, a.text, b.text, principle.choose, principle.about)

    def _silent(self, failures: Sequence[Failure]) -> ContractError:
        return ContractError(
            f"{self.name} gave no verdict on any pair",
            got=f"{len(failures)} pairs, the first: {failures[0].reason}. {failures[0].detail}",
            why="there is nothing to compare",
            fix="ask it one question by hand; a template that makes it answer with one letter is easiest to read",
        )


# ------------------------------------------------------------------------------------------------ people


def asked_of_people(
    people: JudgingPeople,
    policy: Sequence[Rollout],
    baseline: Sequence[Rollout],
    models: tuple[str, str],
    context: StageContext,
) -> Sides:
    """What people say who do not know which model wrote which response.

    Raises:
        AwaitingPeople: not enough answers are in.
    """
    pairs = list(zip(policy, baseline, strict=True))
    same = [(a.prompt.id, "", 0.5) for a, b in pairs if a.text == b.text]
    questions = [_question(people, a, b, models, context) for a, b in pairs if a.text != b.text]
    answers, progress = ask(people, questions, context) if questions else ([], None)
    rates = {
        name: _rate(same + [(a.question.origin.task, name, _won(a, name)) for a in answers])
        for name in people.dimensions
    }
    placed = [choice.preferred for a in answers for choice in _choices(a).values() if choice.preferred is not None]
    first = float(np.mean([place == 0 for place in placed])) if placed else None
    return Sides(rates[people.dimensions[0]], rates, 0 if progress is None else progress.closed, None, first)


def _question(
    people: JudgingPeople, a: Rollout, b: Rollout, models: tuple[str, str], context: StageContext
) -> PairQuestion:
    origins = [origin_of(context, people, model) for model in models]
    origin = origin_of(
        context,
        people,
        models[0],
        policies=tuple(o.policy for o in origins),
        slice=a.prompt.kind,
        ended=(a.ended, b.ended),
        task=a.prompt.id,
        why="two models answered this prompt; which is which is not shown",
    )
    texts = (a.text, b.text)
    return PairQuestion(
        identity(a.prompt.id, a.prompt.source, texts), a.prompt.source, texts, people.dimensions, origin
    )


def _choices(answered: Answered) -> Mapping[str, Any]:
    assert isinstance(answered.answer, PairAnswer)
    return answered.answer.choices


def _won(answered: Answered, dimension: str) -> float:
    preferred = _choices(answered)[dimension].preferred
    return 0.5 if preferred is None else float(answered.order[preferred] == 0)


def outcome(probability: float) -> float:
    """1 where the first is preferred, 0 where the second is, 0.5 for a tie."""
    return 0.5 if abs(probability - 0.5) < TIE else float(probability > 0.5)


def _rate(outcomes: Sequence[tuple[str, str, float]]) -> WinRate:
    """Of (prompt, what about, won)."""
    return of_outcomes([won for *_, won in outcomes], [prompt for prompt, *_ in outcomes])
