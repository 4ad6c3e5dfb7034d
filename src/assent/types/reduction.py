"""How the tokens of one response weigh against those of another: three reductions that are three objectives.

Each gives a weight per token and units per response. A loss is sum(weights * per token) / sum(units), and both sums add
over responses; so a reduction is the same under any micro-batch, accumulation or process split.

Source: the three are compared in Dr. GRPO (arXiv 2503.20783) and DAPO (arXiv 2503.14476).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

Weights = tuple[Tensor, Tensor]
"""`weights_BT`, 0 where masked, and `units_B`; float32."""


@dataclass(frozen=True, slots=True)
class TokenMean:
    """sum over all tokens / number of tokens: every token weighs alike, so long responses weigh more (DAPO)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["token"] = "token"

    def weigh(self, mask_BT: Tensor) -> Weights:
        ones_BT = mask_BT.to(torch.float32)
        return ones_BT, ones_BT.sum(1)


@dataclass(frozen=True, slots=True)
class SequenceMean:
    """mean over responses of the mean over their tokens: a long response is taught less per token (GRPO, GSPO)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["sequence"] = "sequence"

    def weigh(self, mask_BT: Tensor) -> Weights:
        ones_BT = mask_BT.to(torch.float32)
        count_B = ones_BT.sum(1)
        return ones_BT / count_B.clamp(min=1)[:, None], (count_B > 0).to(torch.float32)


@dataclass(frozen=True, slots=True)
class ConstantLength:
    """sum over all tokens / (responses * a constant): the policy gradient itself, free of length (Dr. GRPO, RLOO).

    Args:
        tokens: the constant; the length budget of a response in Dr. GRPO, 1 in RLOO, whose action is the response.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    tokens: int
    name: Literal["constant"] = "constant"

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens must be at least 1; got {self.tokens}; give the length budget of a response")

    def weigh(self, mask_BT: Tensor) -> Weights:
        ones_BT = mask_BT.to(torch.float32)
        return ones_BT, (ones_BT.sum(1) > 0).to(torch.float32) * self.tokens


Reduction = ConstantLength | TokenMean | SequenceMean
