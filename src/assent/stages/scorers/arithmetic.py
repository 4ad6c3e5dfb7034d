"""The true marks of the embedded domain's sums as a scorer."""

from collections.abc import Callable, Mapping
from typing import Literal

from assent.data.domain import arithmetic
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.function import FunctionScorer
from assent.stages.scorers.base import Weighted
from assent.types import Rollout


class ArithmeticRef(Weighted):
    """Whether a sum was worked out right: `{arithmetic: answer}` or `{arithmetic: steps}`; 1 or 0.

    Args:
        arithmetic: `answer` looks at the final answer alone, `steps` at it and at every line before it.
    """

    arithmetic: Literal["answer", "steps"]

    @property
    def label(self) -> str:
        return {"answer": "right_answer", "steps": "right_steps"}[self.arithmetic]

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        return FunctionScorer(self.label, TRUTHS[self.arithmetic])


def marked(rollout: Rollout) -> arithmetic.Marked:
    return arithmetic.mark(rollout.prompt.source, rollout.text, ended=rollout.ended)


def answer_of(rollout: Rollout) -> float:
    """1 where the final answer is right."""
    return float(marked(rollout).answer_right)


def steps_of(rollout: Rollout) -> float:
    """1 where the final answer and every line are right."""
    return float(marked(rollout).all_right)


TRUTHS: Mapping[str, Callable[[Rollout], float]] = {"answer": answer_of, "steps": steps_of}
