"""Odds-ratio preference optimisation: fine-tuning on the preferred response and contrast in one loss."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Responses, pair_loss, per_token, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, PairBatch
from assent.types.settings import at_least


@dataclass(frozen=True, slots=True)
class ORPO:
    """-chosen - weight log sigmoid(log odds(chosen) - log odds(rejected)) on log-probabilities per token.

    The first term is the likelihood of the preferred response, so that neither a reference nor a stage of fine-tuning
    before is needed.

    Args:
        weight: lambda of the odds term; 0.1 in the paper (arXiv 2403.07691).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = False
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False

    name: Literal["orpo"] = "orpo"
    weight: float = 0.1

    def __post_init__(self) -> None:
        at_least(0, weight=self.weight)

    def loss(self, batch: PairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        means_B = per_token(batch, sums_B)
        per_pair = preference.orpo(*batch.sides(means_B), weight=self.weight)
        return pair_loss(per_pair, batch, means_B, sums_B)

    def implicit_rewards(self, batch: Responses, forward: Forward) -> Tensor:
        """Log-probability per token of each row's response, which orders responses as their odds do, `[B]`."""
        return per_token(batch, sums_of(batch, forward))
