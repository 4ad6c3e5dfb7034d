"""The reward model from whole rankings: the likelihood of the order rather than of its pairs."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from assent.algorithms._comparisons import order_metrics, per_prompt
from assent.functional import reward
from assent.protocols import Forward
from assent.types import Loss, Mean, RankedComparisonBatch


@dataclass(frozen=True, slots=True)
class PlackettLuce:
    """-log P(ranking) / (K - 1): the best is chosen among K, the next among K - 1, ... (Plackett 1975, Luce 1959).

    The likelihood is that of a strict order of all completions of a prompt. A prompt with ties, with missing or with
    contradictory pairs has none: it is trained by the K-wise loss of its ordered pairs, and `ranking/whole` is the
    share of prompts that have one. Dividing by the K - 1 choices gives both the same scale; K = 2 is Bradley-Terry.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_margin: ClassVar[bool] = False
    keeps_zero: ClassVar[bool] = False
    pools_votes: ClassVar[bool] = False

    name: Literal["plackett_luce"] = "plackett_luce"

    def loss(self, batch: RankedComparisonBatch, forward: Forward) -> Loss:
        scores = forward.scores(batch.sequences)
        better, worse = scores[batch.better_P], scores[batch.worse_P]
        pairwise_G, has_pairs_G = per_prompt(batch, reward.bradley_terry(better, worse))
        mask_GK, row_GK = batch.places()
        mask_GK = mask_GK & batch.ranked_G[:, None]
        choices_G = (mask_GK.sum(-1) - 1).clamp(min=1)
        ranking_G = reward.plackett_luce_each(scores[row_GK], batch.ranks_B[row_GK], mask_GK) / choices_G
        loss_G = torch.where(batch.ranked_G, ranking_G, pairwise_G)
        mask_G = has_pairs_G | batch.ranked_G
        metrics = {"loss/ranking": Mean.of(loss_G, mask_G), "ranking/whole": Mean.of(batch.ranked_G.float())}
        return Loss(loss_G, mask_G, metrics | order_metrics(better, worse))
