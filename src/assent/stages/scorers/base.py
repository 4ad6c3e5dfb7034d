"""What a recipe's words for a scorer have in common."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pydantic import Field

from assent.config import Frozen
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.train.weighing import Over, WeightedScorer, everything_seen


class ScorerSpec(Protocol):
    """A scorer as a recipe names it."""

    @property
    def weight(self) -> float:
        """In the sum that a policy is trained on."""
        ...

    @property
    def over(self) -> Over | None:
        """The moments that its score is normalised by, if any."""
        ...

    @property
    def clip(self) -> float | None:
        """Bound on its score."""
        ...

    @property
    def label(self) -> str:
        """What its scores are called in metrics."""
        ...

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        """Ready for the rollouts of this policy."""
        ...


@runtime_checkable
class OfModels(Protocol):
    """A scorer that is made of reward models: a critic can start from the first of them."""

    def folders(self, context: StageContext) -> list[str]:
        """Of its reward models."""
        ...


class Weighted(Frozen):
    """What every scorer can be given in a recipe: `{..., weight: 1, normalise: true, clip: 5}`, applied in the order
    normalise, clip, weight, before scores are added up.

    Args:
        weight: in the sum that a policy is trained on; negative where less is better.
        normalise: to mean 0 and deviation 1 over all its scores of the run so far, which the checkpoint keeps.
        clip: bound on the absolute value, in units of the (normalised) score.
    """

    weight: float = 1.0
    normalise: bool = False
    clip: float | None = Field(None, gt=0)

    @property
    def over(self) -> Over | None:
        return everything_seen if self.normalise else None


def weighted(spec: ScorerSpec, context: StageContext, policy: CausalModel) -> WeightedScorer:
    """The scorer a policy is trained on, with its settings."""
    return WeightedScorer(spec.scorer(context, policy), spec.weight, spec.over, spec.clip)


def watched(spec: ScorerSpec, context: StageContext, policy: CausalModel) -> WeightedScorer:
    """The scorer as one that is only logged."""
    return WeightedScorer(spec.scorer(context, policy), 0.0, watched=True)


def charged(spec: ScorerSpec, context: StageContext, policy: CausalModel) -> WeightedScorer:
    """The scorer as a cost: in no reward, and a response without it cannot be trained on."""
    return WeightedScorer(spec.scorer(context, policy), 0.0)


def raw(spec: ScorerSpec) -> ScorerSpec:
    """The scorer, where it has no setting that is for training alone: what judges, watches or chooses is read raw.

    Raises:
        ValueError: it has a weight, a normalisation or a clip.
    """
    fields = type(spec).model_fields if isinstance(spec, Weighted) else {}
    mine = {name: getattr(spec, name) for name in Weighted.model_fields if name in fields}
    said = [f"{name}: {value}" for name, value in mine.items() if value != fields[name].default]
    if said:
        raise ValueError(
            f"{', '.join(said)} would be ignored: a score that judges, watches or chooses is read as it is. Leave it "
            "out; where less is better, name a function of your own that returns the negative"
        )
    return spec


def named_apart(specs: Sequence[ScorerSpec]) -> None:
    """For the check of a stage's settings, before anything runs.

    Raises:
        ValueError: two scorers go by one name: one's scores would be logged over the other's.
    """
    names = [name for spec in specs for name in (spec.label, *(p.label for p in getattr(spec, "parts", ())))]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two scorers have one name, got {', '.join(map(repr, twice))}: what one says would be logged over what "
            "the other says; rename a stage, a folder or a function, or leave one out"
        )
