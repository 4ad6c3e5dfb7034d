"""Maximum likelihood: pretraining when every token is included, supervised fine-tuning when only responses are."""

from dataclasses import dataclass
from typing import ClassVar

from assent.protocols import Forward
from assent.types import Loss, Mean, TokenBatch


@dataclass(frozen=True, slots=True)
class SFT:
    """Cross-entropy of the included tokens, in nats; one denominator: the number of included tokens of the step.

    L = - sum_t log pi(y_t | y_<t, x) / N
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def loss(self, batch: TokenBatch, forward: Forward) -> Loss:
        mask = batch.sequences.mask_BT
        per_token = -forward.logprobs(batch.sequences)
        return Loss(per_token, mask, {"loss/tokens": Mean.of(per_token, mask)})
