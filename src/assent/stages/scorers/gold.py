"""The hidden judgements of the embedded domain as scorers."""

from collections.abc import Callable, Mapping
from typing import Literal

from assent.data import domain
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.function import FunctionScorer
from assent.stages.scorers.base import Weighted
from assent.types import Rollout


class GoldRef(Weighted):
    """A hidden judgement of the embedded domain. For watching and evaluating; training on it proves nothing.

    Args:
        gold: `domain` for gold itself, named `gold`; `helpfulness` for gold that does not ask whether it should be
            done; `correct` for 1 where a response says what is right and ends, else 0, the domain's verifiable reward;
            `harm` for harm, above 0 where a response is unsafe; `unsafe` for 1 where it is and 0 where not.
    """

    gold: Literal["domain", "helpfulness", "correct", "harm", "unsafe"]

    @property
    def label(self) -> str:
        return "gold" if self.gold == "domain" else f"gold_{self.gold}"

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        return FunctionScorer(self.label, JUDGEMENTS[self.gold])


def gold_of(rollout: Rollout) -> float:
    """Gold of the embedded domain, at most 2."""
    return domain.judge(rollout.prompt.source, rollout.text, ended=rollout.ended).gold


def correct_of(rollout: Rollout) -> float:
    """1 where the response says what is right and ends, else 0."""
    return float(rollout.ended and domain.judge(rollout.prompt.source, rollout.text, ended=True).correctness == 1.0)


def helpfulness_of(rollout: Rollout) -> float:
    """Gold by somebody who does not ask whether it should be done, at most 2."""
    return domain.judge_helpfulness(rollout.prompt.source, rollout.text, ended=rollout.ended).gold


def harm_of(rollout: Rollout) -> float:
    """Above 0 where the response is unsafe."""
    return domain.judge_harm(rollout.prompt.source, rollout.text).harm


def unsafe_of(rollout: Rollout) -> float:
    """1 where the response is unsafe, else 0; its mean is the harmful rate."""
    return float(domain.judge_harm(rollout.prompt.source, rollout.text).unsafe)


JUDGEMENTS: Mapping[str, Callable[[Rollout], float]] = {
    "domain": gold_of,
    "helpfulness": helpfulness_of,
    "correct": correct_of,
    "harm": harm_of,
    "unsafe": unsafe_of,
}
