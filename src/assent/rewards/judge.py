"""A language model as a judge: which of two responses is better, asked in both orders, or how good one is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from assent.records import PromptText
from assent.rewards.asked import Failure
from assent.rewards.chat import ChatModel
from assent.rewards.templates import Question
from assent.rewards.verdicts import Choice, choice_of, rating_of
from assent.types import Mean, Rollout


class Chooser(Protocol):
    """Whoever chooses between the options A and B that a question shows: an endpoint, or a policy of one's own."""

    def choose(self, questions: Sequence[str]) -> list[Choice | Failure]:
        """One choice or failure per question, in order."""
        ...


@dataclass(frozen=True)
class EndpointChooser:
    """A model behind an endpoint."""

    model: ChatModel

    def choose(self, questions: Sequence[str]) -> list[Choice | Failure]:
        return [a if isinstance(a, Failure) else choice_of(a) for a in self.model(questions)]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to judge.

    Args:
        prompt: what both answer.
        a, b: the responses.
        principle: what to judge by, for a template that has a blank for it.
        about: what the principle looks at, in one word.
    """

    prompt: PromptText
    a: str
    b: str
    principle: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both orders together.

    Args:
        a: probability that `a` is preferred, 0 to 1; the mean of both orders.
        graded: it comes from the judge's probabilities.
        consistent: both orders prefer the same one.
        first: mean probability of whichever was shown first; 0.5 is no position bias.
    """

    a: float
    graded: bool
    consistent: bool
    first: float


class Comparer(Protocol):
    """Whoever says how probable it is that the first of two responses is preferred, seen in that order."""

    def __call__(self, pairs: Sequence[Pair]) -> Sequence[Choice | Failure]:
        """One choice or failure per pair, in order; `a` is shown first."""
        ...


@dataclass(frozen=True)
class Asked:
    """Pairs as questions; implements `Comparer`.

    Args:
        chooser: who is asked.
        question: with the blanks `prompt`, `first`, `second` and, where there are principles, `principle`.
    """

    chooser: Chooser
    question: Question

    def __call__(self, pairs: Sequence[Pair]) -> list[Choice | Failure]:
        return self.chooser.choose([self._question(pair) for pair in pairs])

    def _question(self, pair: Pair) -> str:
        principle = {"principle": pair.principle} if pair.principle else {}
        return self.question.ask(prompt=readable(pair.prompt), first=pair.a, second=pair.b, **principle)


@dataclass(frozen=True)
class PairwiseJudge:
    """Asks each pair twice, the second time with the responses exchanged (Lee et al., 2309.00267, section 2.1).

    With probabilities, the label is their mean over both orders. Without, two equal choices make a plain label and two
    different ones a tie: position, not quality, decided.

    Args:
        compare: who is asked.
        clamp: bounds on the label; 0.4 and 0.6 where the judge reasons before it chooses and is then always sure (Bai
            et al., 2212.08073, section 4.1). None leaves it as it is.
    """

    compare: Comparer
    clamp: tuple[float, float] | None = None

    def __call__(self, pairs: Sequence[Pair]) -> list[Verdict | Failure]:
        """One verdict or failure per pair, in order."""
        said = self.compare([order for pair in pairs for order in (pair, replace(pair, a=pair.b, b=pair.a))])
        verdicts = [_together(said[2 * i], said[2 * i + 1]) for i in range(len(pairs))]
        return [v if isinstance(v, Failure) else self._clamped(v) for v in verdicts]

    def _clamped(self, verdict: Verdict) -> Verdict:
        low, high = self.clamp or (0.0, 1.0)
        return replace(verdict, a=min(max(verdict.a, low), high))


def _together(one: Choice | Failure, other: Choice | Failure) -> Verdict | Failure:
    if isinstance(one, Failure):
        return one
    if isinstance(other, Failure):
        return other
    a = (one.first + 1.0 - other.first) / 2
    consistent = (one.first - 0.5) * (0.5 - other.first) > 0
    graded = one.graded and other.graded
    if not graded and not consistent:
        a = 0.5
    return Verdict(a, graded, consistent, (one.first + other.first) / 2)


@dataclass(frozen=True)
class PointwiseJudge:
    """Asks how good each response is, from 1 to 10; implements `rewards.asked.Ask`. Scores are from -1 to 1.

    Args:
        model: who is asked.
        question: with the blanks `prompt` and `response`.
    """

    model: ChatModel
    question: Question

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | Failure]:
        asked = [self.question.ask(prompt=readable(r.prompt.source), response=r.text) for r in rollouts]
        return [a if isinstance(a, Failure) else rating_of(a) for a in self.model(asked)]

    def metrics(self) -> Mapping[str, Mean]:
        return self.model.metrics()


def readable(prompt: PromptText) -> str:
    """A prompt as a judge reads it; in a dialogue, every turn with its role before it."""
    return prompt if isinstance(prompt, str) else "\n\n".join(f"{m.role}: {m.content}" for m in prompt)
