"""Rules as scorers, `{rule: NAME, ...}`: what a program can tell of a response."""

from importlib.util import find_spec
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator, model_validator

from assent.functional.length import soft_overlong
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards import rules
from assent.rewards.answers import AnswerPlace, Whole, compiled
from assent.rewards.function import FunctionScorer
from assent.rewards.mathematics import MathEqual
from assent.stages.scorers.base import Weighted
from assent.stages.scorers.function import WorkerSettings, isolated
from assent.types import Rollout


class ExactAnswerRule(Weighted):
    """The response's answer is the task's reference answer, letter by letter.

    Args:
        answer_in: where it stands in a response: `{after: "####"}`, `{tag: answer}`, `{boxed: true}`,
            `{pattern: "..."}` or `{whole: true}`.
        right, wrong: the scores; 1 and 0 in DeepSeek-R1.
    """

    rule: Literal["exact_answer"]
    answer_in: AnswerPlace = Whole()
    ignore_case: bool = False
    right: float = 1.0
    wrong: float = 0.0

    @property
    def label(self) -> str:
        return self.rule

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        return FunctionScorer(
            self.label, rules.ExactAnswer(self.answer_in, self.ignore_case, right=self.right, wrong=self.wrong)
        )


class MathEqualRule(Weighted):
    """The response's answer equals the reference answer as mathematics, by `math-verify`, in worker processes.

    Args:
        answer_in: as in `exact_answer`; `{whole: true}` leaves it to the library to find the answer in the response.
        right, wrong: the scores.
        workers: the processes, and how long one comparison may take.
    """

    rule: Literal["math_equal"]
    answer_in: AnswerPlace = Whole()
    right: float = 1.0
    wrong: float = 0.0
    workers: WorkerSettings = WorkerSettings(seconds=5.0)

    @field_validator("rule")
    @classmethod
    def _library_is_there(cls, name: str) -> str:
        if find_spec("math_verify") is None:
            raise ValueError("it needs the library math-verify, which is not installed: pip install 'assent[math]'")
        return name

    @property
    def label(self) -> str:
        return self.rule

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        function = MathEqual(self.answer_in, right=self.right, wrong=self.wrong)
        return isolated(self.label, function, self.workers, context, source=repr(function))


class RegexRule(Weighted):
    """A regular expression is found in the response; with `whole`, it matches all of it."""

    rule: Literal["regex"]
    pattern: str
    whole: bool = False
    right: float = 1.0
    wrong: float = 0.0
    name: str = "regex"

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        compiled(pattern)
        return pattern

    @property
    def label(self) -> str:
        return self.name

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        return FunctionScorer(self.label, rules.Pattern(self.pattern, self.whole, right=self.right, wrong=self.wrong))


class TagsRule(Weighted):
    """The response is these tags, each once, in order, none empty: DeepSeek-R1's format reward (2501.12948)."""

    rule: Literal["tags"]
    tags: Annotated[tuple[str, ...], Field(min_length=1)] = ("think", "answer")
    right: float = 1.0
    wrong: float = 0.0

    @property
    def label(self) -> str:
        return self.rule

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        return FunctionScorer(self.label, rules.Tags(self.tags, right=self.right, wrong=self.wrong))


class JsonRule(Weighted):
    """The response, or the place in it, is a JSON object that has these keys."""

    rule: Literal["json"]
    keys: tuple[str, ...] = ()
    answer_in: AnswerPlace = Whole()
    right: float = 1.0
    wrong: float = 0.0

    @property
    def label(self) -> str:
        return self.rule

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        return FunctionScorer(
            self.label, rules.JsonObject(self.answer_in, self.keys, right=self.right, wrong=self.wrong)
        )


class SoftOverlongRule(Weighted):
    """DAPO's soft length penalty (2503.14476, equation 13): 0 up to `longest - cache` tokens, then falling to -1.

    Args:
        longest: tokens of the longest response, its end token included; 20480 in DAPO.
        cache: tokens over which the penalty grows; 4096 in DAPO.
    """

    rule: Literal["soft_overlong"]
    longest: int = Field(gt=0)
    cache: int = Field(gt=0)

    @model_validator(mode="after")
    def _fits(self) -> "SoftOverlongRule":
        if self.cache >= self.longest:
            raise ValueError(f"cache must be below longest; got {self.cache} and {self.longest}")
        return self

    @property
    def label(self) -> str:
        return self.rule

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        return FunctionScorer(self.label, self._penalty)

    def _penalty(self, rollout: Rollout) -> float:
        length = torch.tensor([len(rollout.token_ids)])
        return soft_overlong(length, longest=self.longest, cache=self.cache).item()


RuleRef = Annotated[
    ExactAnswerRule | MathEqualRule | RegexRule | TagsRule | JsonRule | SoftOverlongRule, Field(discriminator="rule")
]
