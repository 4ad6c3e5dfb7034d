"""The reward model from human comparisons, all pairs of one prompt as one batch element."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from assent.algorithms._comparisons import pair_metrics, per_prompt, per_response
from assent.functional import reward
from assent.protocols import Forward
from assent.types import ComparisonBatch, Loss
from assent.types.settings import at_least


@dataclass(frozen=True, slots=True)
class RewardModel:
    """InstructGPT's K-wise loss: the mean over the judged pairs of a prompt of -log sigmoid(better - worse - margin).

    Each completion goes through the model once, whatever the number of its pairs, and each prompt weighs the same,
    whatever its K. Pairwise data is K = 2. Ties are not pairs. On a full ranking without margins this is
    `functional.reward.k_wise`.

    Args:
        centering: coefficient of (better + worse)^2, averaged like the loss; 0.01 in Eisenstein et al. (2312.09244),
            0 (off) by default because the scores are normalised after training.
        regularisation: coefficient of score^2, averaged over a prompt's responses; 0.001 in Safe RLHF's code (arXiv
            2310.12773); 0 (off) by default for the same reason.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_margin: ClassVar[bool] = True
    keeps_zero: ClassVar[bool] = False
    pools_votes: ClassVar[bool] = False

    name: Literal["k_wise"] = "k_wise"
    centering: float = 0.0
    regularisation: float = 0.0

    def __post_init__(self) -> None:
        at_least(0, centering=self.centering, regularisation=self.regularisation)

    def loss(self, batch: ComparisonBatch, forward: Forward) -> Loss:
        scores = forward.scores(batch.sequences)
        better, worse = scores[batch.better_P], scores[batch.worse_P]
        per_pair = reward.bradley_terry(better, worse, margin=batch.margin_P)
        if self.centering:
            per_pair = per_pair + self.centering * reward.centering(better, worse)
        loss_G, has_pairs_G = per_prompt(batch, per_pair)
        if self.regularisation:
            loss_G = loss_G + self.regularisation * per_response(batch, scores.square())
        return Loss(loss_G, has_pairs_G, pair_metrics(batch, better, worse))
