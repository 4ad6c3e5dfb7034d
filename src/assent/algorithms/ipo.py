"""Identity preference optimisation: a margin to reach and not to exceed, so that sure labels do not run away."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Referenced, log_ratios, pair_loss, per_token, sums_of
from assent.functional import preference
from assent.protocols import Forward
from assent.types import Loss, ReferencedPairBatch
from assent.types.settings import above


@dataclass(frozen=True, slots=True)
class IPO:
    """(D - 1 / (2 beta))^2, D the difference of the two responses' log-ratios to the reference, mean per token.

    The mean per token is the authors' own reading, and TRL's; the sum, as in the first DPO repository, is another loss.

    Args:
        beta: the paper's tau (arXiv 2310.12036); 0.1 as in TRL. The margin aimed at is 1 / (2 beta) nats per token.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True
    unpaired: ClassVar[bool] = False
    uses_mismatched: ClassVar[bool] = False

    name: Literal["ipo"] = "ipo"
    beta: float = 0.1

    def __post_init__(self) -> None:
        above(0, beta=self.beta)

    def loss(self, batch: ReferencedPairBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        ref_B = per_token(batch, batch.ref_logprobs_B)
        per_pair = preference.ipo(*batch.sides(per_token(batch, sums_B)), *batch.sides(ref_B), beta=self.beta)
        return pair_loss(per_pair, batch, self._rewards(batch, sums_B), sums_B)

    def implicit_rewards(self, batch: Referenced, forward: Forward) -> Tensor:
        """beta times the log-ratio per token of each row's response, `[B]`."""
        return self._rewards(batch, sums_of(batch, forward))

    def _rewards(self, batch: Referenced, sums_B: Tensor) -> Tensor:
        return self.beta * per_token(batch, log_ratios(batch, sums_B))
