"""Identity preference optimisation: a margin to reach and not to exceed, so that sure labels do not run away."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assent.algorithms._pairs import displacement, pair_metrics, per_token, sides, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, ReferencedPairBatch


@dataclass(frozen=True, slots=True)
class IPO:
    """(D - 1 / (2 beta))^2, D the difference of the two responses' log-ratios to the reference, mean per token.

    The mean per token is the authors' own reading, and TRL's; the sum, as in the first DPO repository, is another loss.

    Args:
        beta: the paper's tau (arXiv 2310.12036); 0.1 as in TRL. The margin aimed at is 1 / (2 beta) nats per token.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True

    name: Literal["ipo"] = "ipo"
    beta: float = 0.1

    def loss(self, batch: ReferencedPairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        ref_B = per_token(batch, batch.ref_logprobs_B)
        per_pair = preference.ipo(*sides(per_token(batch, sums_B)), *sides(ref_B), beta=self.beta)
        metrics = pair_metrics(per_pair, self._rewards(batch, sums_B), sums_B) | displacement(batch, sums_B)
        return Loss(per_pair, torch.ones_like(per_pair, dtype=torch.bool), metrics)

    def implicit_rewards(self, batch: ReferencedPairBatch, forward: Forward) -> Tensor:
        """beta times the log-ratio per token of each row's response, `[2P]`."""
        return self._rewards(batch, sums_of(batch, forward))

    def _rewards(self, batch: ReferencedPairBatch, sums_B: Tensor) -> Tensor:
        return self.beta * per_token(batch, sums_B - batch.ref_logprobs_B)
