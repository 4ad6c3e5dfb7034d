"""Direct preference optimisation: the reward model is the policy's own log-ratio to its reference."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Referenced, held_up, log_ratios, pair_loss, per_token, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, ReferencedPairBatch
from assent.types.settings import above, at_least, below


@dataclass(frozen=True, slots=True)
class DPO:
    """-log sigmoid(beta D), D the difference of the two responses' log-ratios to the reference, summed over tokens.

    Args:
        beta: reward units per nat; 0.1 in the paper (arXiv 2305.18290), 0.5 for its summaries. Smaller goes further
            from the reference.
        label_smoothing: e in [0, 0.5), the share of labels believed to be flipped (cDPO, Mitchell 2023); 0 is DPO.
        nll_weight: adds this times the negative log-likelihood per token of the preferred response, which holds it
            up: 1 in iterative RPO (arXiv 2404.19733), 0.2 in Llama 3; 0 (off) as in DPO.
        length_normalised: log-ratios as means per token in place of sums (Tulu 3, arXiv 2411.15124, with beta 5 at a
            learning rate of 5e-7), so that a long response is not moved further than a short one.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False

    name: Literal["dpo"] = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0
    nll_weight: float = 0.0
    length_normalised: bool = False

    def __post_init__(self) -> None:
        above(0, beta=self.beta)
        at_least(0, label_smoothing=self.label_smoothing, nll_weight=self.nll_weight)
        below(0.5, label_smoothing=self.label_smoothing)

    def loss(self, batch: ReferencedPairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        policy_B, ref_B = self._measured(batch, sums_B), self._measured(batch, batch.ref_logprobs_B)
        per_pair = preference.dpo(
            *batch.sides(policy_B), *batch.sides(ref_B), beta=self.beta, label_smoothing=self.label_smoothing
        )
        per_pair = held_up(per_pair, batch, sums_B, nll_weight=self.nll_weight)
        return pair_loss(per_pair, batch, self._rewards(batch, sums_B), sums_B)

    def implicit_rewards(self, batch: Referenced, forward: Forward) -> Tensor:
        """beta times the log-ratio of each row's response, `[B]`."""
        return self._rewards(batch, sums_of(batch, forward))

    def _measured(self, batch: Referenced, sums_B: Tensor) -> Tensor:
        return per_token(batch, sums_B) if self.length_normalised else sums_B

    def _rewards(self, batch: Referenced, sums_B: Tensor) -> Tensor:
        return self.beta * self._measured(batch, log_ratios(batch, sums_B))
