"""The losses that a recipe can name for a reward model, and what each of them reads of a comparison."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from assent.algorithms.plackett_luce import PlackettLuce
from assent.algorithms.reward_model import RewardModel
from assent.algorithms.safety_reward_model import SafetyRewardModel
from assent.algorithms.soft_reward_model import SoftRewardModel
from assent.config import suggestion
from assent.data.comparisons import Labels, OrderedPairs, SafetyLabels, SoftPairs, WholeRankings
from assent.records import Degree

NAMES = (RewardModel().name, SoftRewardModel().name, PlackettLuce().name, SafetyRewardModel().name)

MarginTable = Literal["none", "small", "large"]

MARGINS: Mapping[MarginTable, Mapping[Degree, float]] = {
    "none": {},
    "small": {Degree.SIGNIFICANTLY: 1.0, Degree.BETTER: 2 / 3, Degree.SLIGHTLY: 1 / 3},
    "large": {Degree.SIGNIFICANTLY: 3.0, Degree.BETTER: 2.0, Degree.SLIGHTLY: 1.0},
}
"""Llama 2, table 27: least score gap by degree of preference; what is not listed has margin 0."""


def _named(value: Any) -> Any:
    """Settings without a name are the K-wise loss's; a name that nothing has is refused with the nearest there is."""
    if not isinstance(value, dict):
        return value
    name = value.get("name", RewardModel().name)
    if name not in NAMES:
        raise ValueError(f"there is no loss {name!r} for a reward model; {suggestion(str(name), NAMES)}")
    return {**value, "name": name}


AnyRewardLoss = Annotated[
    RewardModel | SoftRewardModel | PlackettLuce | SafetyRewardModel,
    Field(discriminator="name"),
    BeforeValidator(_named),
]


def labels_of(algorithm: AnyRewardLoss, margin: MarginTable) -> Labels:
    """What the loss reads of a comparison."""
    table = MARGINS[margin]
    if isinstance(algorithm, SoftRewardModel):
        return SoftPairs(ties=algorithm.ties == "half")
    if isinstance(algorithm, PlackettLuce):
        return WholeRankings()
    if isinstance(algorithm, SafetyRewardModel):
        return SafetyLabels(lambda degree: table.get(degree, 0.0))
    return OrderedPairs(lambda degree: table.get(degree, 0.0))
