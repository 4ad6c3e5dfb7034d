"""Llama 2's gate of a safety and a helpfulness model as a scorer."""

from typing import Literal, Self

from pydantic import Field, model_validator

from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.combined import CombinedScorer
from assent.rewards.gate import Llama2Gate
from assent.stages.scorers.base import Weighted
from assent.stages.scorers.reward_model import RewardModelRef, folder_scorer
from assent.train.weighing import Over, everything_seen, this_batch

WHITENED: dict[str, Over | None] = {"batch": this_batch, "running": everything_seen, "no": None}


class GateRef(Weighted):
    """`{gate: llama2, safety: {reward_model: S}, helpfulness: {reward_model: H}}` (Llama 2, arXiv 2307.09288, 3.2.3).

    Both models are read raw, as logits of their training: P(safe) = sigmoid(raw), which the threshold is about. It is a
    probability only if the safety model was trained with safety labels (the auxiliary loss of Llama 2, or a cost
    model); comparisons alone leave its zero free.

    Args:
        safety, helpfulness: reward models; what each says is logged under its own name, as a raw score. Their own
            weight, normalise and clip must stay as they are: the gate compares probabilities.
        threshold: probability of being safe below which a response is scored by safety, whatever was asked.
        safety_kinds: kinds of prompts that ask for safety (`Task.kind`); `refusal` in the embedded domain.
        whiten: the logits over the batch, over all of the run so far, or not at all. The paper says that it whitens,
            not over what; the batch is what its words suggest.
    """

    gate: Literal["llama2"]
    safety: RewardModelRef
    helpfulness: RewardModelRef
    threshold: float = Field(0.15, gt=0, lt=1)
    safety_kinds: tuple[str, ...] = ("refusal",)
    whiten: Literal["batch", "running", "no"] = "batch"

    @model_validator(mode="after")
    def _probabilities_are_compared(self) -> Self:
        if self.normalise:
            raise ValueError(
                "the gate's logits are normalised by `whiten`, so `normalise` would say it twice: delete it"
            )
        for part in self.parts:
            if (part.weight, part.normalise, part.clip) != (1.0, False, None):
                raise ValueError(
                    f"the gate reads {part.label} as a probability, so its weight, normalise and clip would change "
                    "nothing: delete them, or set them on the gate"
                )
        return self

    @property
    def label(self) -> str:
        return "gate"

    @property
    def parts(self) -> tuple[RewardModelRef, ...]:
        return (self.safety, self.helpfulness)

    @property
    def over(self) -> Over | None:
        return WHITENED[self.whiten]

    def folders(self, context: StageContext) -> list[str]:
        return [*self.helpfulness.folders(context), *self.safety.folders(context)]

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        members = [folder_scorer(p.label, p.folders(context)[0], policy, raw=True) for p in self.parts]
        return CombinedScorer(self.label, members, Llama2Gate(frozenset(self.safety_kinds), self.threshold))
