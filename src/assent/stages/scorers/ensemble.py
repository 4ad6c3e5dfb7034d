"""An ensemble of reward models as a scorer."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from assent.errors import ArtefactError, ContractError
from assent.functional import combine
from assent.models.folders import CausalModel, load_scalar
from assent.models.placement import placement_of
from assent.models.raw_scores import RAW_SCORE, RawScale
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.combined import CombinedScorer
from assent.rewards.ensemble import Ensemble
from assent.rewards.model import RewardModelScorer
from assent.stages.parts import MODEL, ModelRef, model_folder
from assent.stages.scorers.base import Weighted
from assent.stages.scorers.reward_model import RewardModelRef, scalar_scorer

MEMBERS = "members"
"""Folder of an artefact that holds an ensemble: one scalar folder a member, named 0, 1, ..."""

COMBINATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": combine.ensemble_mean,
    "worst_case": combine.worst_case,
}


class EnsembleRef(Weighted):
    """`{ensemble: NAME, combine: worst_case}`: NAME a stage that trained members, or a list of reward models.

    Every member is on the scale that its own stage gave it: mean 0 and deviation 1 over the responses that it was
    trained on. So members trained on the same comparisons share a scale, which a minimum or a variance needs; a model
    that was never normalised is refused.

    Args:
        ensemble: the stage (or its folder), or at least two stages, folders or hub names.
        combine: `mean`; `worst_case`, the lowest member; `uncertainty_weighted`, mean - coefficient * variance.
        coefficient: of the variance, per score unit; 0.1 for PPO and 0.5 for best-of-n in Coste et al. (2310.02743).
    """

    ensemble: ModelRef | Annotated[tuple[ModelRef, ...], Field(min_length=2)]
    combine: Literal["mean", "worst_case", "uncertainty_weighted"] = "mean"
    coefficient: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _coefficient_has_a_use(self) -> Self:
        if self.coefficient is not None and self.combine != "uncertainty_weighted":
            raise ValueError(f"{self.combine} has no coefficient, so it would change nothing: delete it")
        return self

    @property
    def label(self) -> str:
        if isinstance(self.ensemble, str):
            return RewardModelRef(reward_model=self.ensemble).label
        return "ensemble"

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        rule = Ensemble(self.label, self._rule())
        return CombinedScorer(self.label, self.members(context, policy), rule)

    def members(self, context: StageContext, policy: CausalModel) -> list[Scorer]:
        """Each by itself."""
        return [_member(name, folder, policy) for name, folder in self._folders(context)]

    def folders(self, context: StageContext) -> list[str]:
        return [folder for _, folder in self._folders(context)]

    def _rule(self) -> Callable[[Tensor], Tensor]:
        if self.combine != "uncertainty_weighted":
            return COMBINATIONS[self.combine]
        return partial(combine.uncertainty_weighted, coefficient=0.1 if self.coefficient is None else self.coefficient)

    def _folders(self, context: StageContext) -> list[tuple[str, str]]:
        """Name and folder of every member."""
        if not isinstance(self.ensemble, str):
            refs = [RewardModelRef(reward_model=name) for name in self.ensemble]
            return [(ref.label, model_folder(context, ref.reward_model)) for ref in refs]
        home = Path(model_folder(context, self.ensemble))
        home = (home.parent if home.name == MODEL else home) / MEMBERS
        folders = sorted((f for f in home.glob("*") if f.name.isdecimal()), key=lambda f: int(f.name))
        if len(folders) < 2:
            raise ArtefactError(
                f"{self.ensemble} holds no ensemble",
                got=f"{len(folders)} members in {home}",
                why="one reward model cannot disagree with itself",
                fix="train it with members: 3 or more, name a list of reward models, or use {reward_model: ...}",
            )
        return [(f"{self.label}.{f.name}", str(f)) for f in folders]


def _member(name: str, folder: str, policy: CausalModel) -> RewardModelScorer:
    loaded = load_scalar(folder, placement=placement_of(policy.model))
    if getattr(loaded.scalar.model.config, RAW_SCORE, None) is None:
        raise ContractError(
            f"member {name} of the ensemble is on a scale of its own",
            got=f"no {RAW_SCORE} in the config of {folder}: it was never normalised",
            why="the member with the widest scores would decide a minimum alone",
            fix="train the members with the reward_model stage, which normalises them",
        )
    return scalar_scorer(name, loaded, policy, RawScale())
