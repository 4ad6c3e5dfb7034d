"""Direct preference optimisation: the reward model is the policy's own log-ratio to its reference."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assent.algorithms._pairs import displacement, pair_metrics, per_token, sides, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, ReferencedPairBatch


@dataclass(frozen=True, slots=True)
class DPO:
    """-log sigmoid(beta D), D the difference of the two responses' log-ratios to the reference, summed over tokens.

    Args:
        beta: reward units per nat; 0.1 in the paper (arXiv 2305.18290), 0.5 for its summaries. Smaller goes further
            from the reference.
        label_smoothing: e in [0, 0.5), the share of labels believed to be flipped (cDPO, Mitchell 2023); 0 is DPO.
        nll_weight: adds this times the negative log-likelihood per token of the preferred response, which holds it
            up: 1 in iterative RPO (arXiv 2404.19733), 0.2 in Llama 3; 0 (off) as in DPO.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True

    name: Literal["dpo"] = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0
    nll_weight: float = 0.0

    def loss(self, batch: ReferencedPairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        per_pair = preference.dpo(
            *sides(sums_B), *sides(batch.ref_logprobs_B), beta=self.beta, label_smoothing=self.label_smoothing
        )
        if self.nll_weight:
            chosen, _ = sides(per_token(batch, sums_B))
            per_pair = per_pair - self.nll_weight * chosen
        metrics = pair_metrics(per_pair, self._rewards(batch, sums_B), sums_B) | displacement(batch, sums_B)
        return Loss(per_pair, torch.ones_like(per_pair, dtype=torch.bool), metrics)

    def implicit_rewards(self, batch: ReferencedPairBatch, forward: Forward) -> Tensor:
        """beta times the log-ratio of each row's response, `[2P]`."""
        return self._rewards(batch, sums_of(batch, forward))

    def _rewards(self, batch: ReferencedPairBatch, sums_B: Tensor) -> Tensor:
        return self.beta * (sums_B - batch.ref_logprobs_B)
