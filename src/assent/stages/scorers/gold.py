"""The hidden judgement of the embedded domain as a scorer."""

from typing import Literal

from assent.config import Frozen
from assent.data import domain
from assent.models.folders import CausalModel
from assent.pipeline.run import StageContext
from assent.protocols import Scorer
from assent.rewards.function import FunctionScorer
from assent.types import Rollout


class GoldRef(Frozen):
    """The hidden judgement of the embedded domain. For watching and evaluating; training on it proves nothing."""

    gold: Literal["domain"]
    weight: float = 1.0

    @property
    def label(self) -> str:
        return "gold"

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        return FunctionScorer(self.label, gold_of)


def gold_of(rollout: Rollout) -> float:
    """Gold of the embedded domain, at most 2."""
    return domain.judge(rollout.prompt.source, rollout.text, ended=rollout.ended).gold
