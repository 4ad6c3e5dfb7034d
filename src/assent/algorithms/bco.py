"""Binary classifier optimisation: the implicit reward as the logit of a classifier of good and bad responses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assent.algorithms._pairs import Referenced, log_ratios, sums_of
from assent.algorithms._unpaired import unpaired_loss
from assent.functional import preference
from assent.protocols import Forward
from assent.types import BaselinedBatch, Loss, Mean, UnpairedBatch, add_metrics
from assent.types.settings import above

DESIRABLE, UNDESIRABLE = "implicit_reward/desirable", "implicit_reward/undesirable"


@dataclass(frozen=True, slots=True)
class BCO:
    """-log sigmoid(r - delta) of a desirable response, -log sigmoid(delta - r) of an undesirable one, r = beta h.

    h is the log-ratio to the reference, summed over tokens. delta is the running mean of half the sum of both kinds'
    mean rewards, over all steps *before* this one: it costs no second forward pass, depends on no micro-batch, and is
    0 at the first step, as it should be of a policy that starts at its reference. TRL's includes the micro-batch at
    hand. The paper's reweighting of undesirable data from another source (density ratios) is not built.

    Args:
        beta: reward units per nat; 0.01 in the paper (arXiv 2404.04656), with a learning rate of 5e-7.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_reference: ClassVar[bool] = True
    unpaired: ClassVar[bool] = True
    uses_mismatched: ClassVar[bool] = False

    name: Literal["bco"] = "bco"
    beta: float = 0.01

    def __post_init__(self) -> None:
        above(0, beta=self.beta)

    def first_pass(self, part: UnpairedBatch, forward: Forward) -> dict[str, Mean]:
        """Nothing: the steps before have said it."""
        return {}

    def complete(
        self, part: UnpairedBatch, measured: Mapping[str, Mean], carried: Mapping[str, Mean]
    ) -> BaselinedBatch:
        """With delta of the steps before; a kind that was not seen yet counts as 0."""
        kinds = [carried[name].value if name in carried else 0.0 for name in (DESIRABLE, UNDESIRABLE)]
        return part.against(sum(kinds) / 2)

    def carry(self, carried: Mapping[str, Mean], metrics: Mapping[str, Mean]) -> dict[str, Mean]:
        """Totals of the rewards of both kinds over all steps."""
        seen = {name: metrics[name] for name in (DESIRABLE, UNDESIRABLE) if metrics[name].count}
        return add_metrics(carried, seen)

    def loss(self, batch: BaselinedBatch, forward: Forward) -> Loss:
        sums_B = sums_of(batch, forward)
        per_judgement = preference.bco(
            sums_B[batch.row_J],
            batch.ref_logprobs_B[batch.row_J],
            batch.desirable_J,
            batch.baseline,
            beta=self.beta,
        )
        loss = unpaired_loss(per_judgement, batch, self._rewards(batch, sums_B), sums_B)
        count = batch.denominator
        return Loss(loss.per_item, loss.mask, {**loss.metrics, "baseline/reward": Mean(batch.baseline * count, count)})

    def implicit_rewards(self, batch: Referenced, forward: Forward) -> Tensor:
        """beta times the log-ratio of each row's response, `[B]`."""
        return self._rewards(batch, sums_of(batch, forward))

    def _rewards(self, batch: Referenced, sums_B: Tensor) -> Tensor:
        return self.beta * log_ratios(batch, sums_B)
