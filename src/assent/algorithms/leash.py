"""Where the KL to the reference stands: in the reward, or in the loss by a form whose gradient is right.

In the reward a token also pays for what it leads to, so that ref * exp(score / beta) / Z is the optimum. In the loss it
pays for its own state alone. Plain k3 is not here: as a loss its gradient is that of KL(reference || policy).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assent.functional import kl
from assent.protocols import Forward
from assent.types import PolicyExperience, TokenOutputs

Leashed = tuple[TokenOutputs, Tensor]
"""What the policy says of the tokens, and the KL term of the loss of each, `[B, T]`, nats, without its coefficient."""


@dataclass(frozen=True, slots=True)
class KLInReward:
    """beta (log pi_old - log pi_ref) off the reward of each token: k1, a constant (Ziegler et al., RLOO)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["reward"] = "reward"

    def coefficients(self, kl_coef: float) -> tuple[float, float]:
        """What of the KL coefficient goes into the reward, and what into the loss."""
        return kl_coef, 0.0

    def read(self, batch: PolicyExperience, forward: Forward) -> Leashed:
        outputs = forward.tokens(batch.sequences)
        return outputs, torch.zeros_like(outputs.logprobs_BT)


@dataclass(frozen=True, slots=True)
class K2InLoss:
    """beta sg[rho] (log pi - log pi_ref)^2 / 2, rho = pi / pi_old: the gradient of KL(policy || reference), though not
    its value (REINFORCE++ with baseline, without the ratio, which is 1 at an update's first step; arXiv 2505.17508)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["k2"] = "k2"

    def coefficients(self, kl_coef: float) -> tuple[float, float]:
        return 0.0, kl_coef

    def read(self, batch: PolicyExperience, forward: Forward) -> Leashed:
        outputs = forward.tokens(batch.sequences)
        return outputs, kl.k2_with_ratio(outputs.logprobs_BT, batch.old_logprobs_BT, batch.ref_logprobs_BT)


@dataclass(frozen=True, slots=True)
class K3InLoss:
    """beta rho k3: value and gradient of KL(policy || reference) in expectation (DeepSeek-V3.2)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["k3"] = "k3"

    def coefficients(self, kl_coef: float) -> tuple[float, float]:
        return 0.0, kl_coef

    def read(self, batch: PolicyExperience, forward: Forward) -> Leashed:
        outputs = forward.tokens(batch.sequences)
        return outputs, kl.k3_with_ratio(outputs.logprobs_BT, batch.old_logprobs_BT, batch.ref_logprobs_BT)


@dataclass(frozen=True, slots=True)
class ExactInLoss:
    """beta KL(policy || reference) of each sampled state, over the whole vocabulary: no noise of the token that was
    drawn. It costs a forward of the reference and both heads at every position of every pass."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["exact"] = "exact"

    def coefficients(self, kl_coef: float) -> tuple[float, float]:
        return 0.0, kl_coef

    def read(self, batch: PolicyExperience, forward: Forward) -> Leashed:
        outputs = forward.leashed(batch.sequences)
        return TokenOutputs(outputs.logprobs_BT, outputs.entropy_BT), outputs.kl_BT


Leash = KLInReward | K2InLoss | K3InLoss | ExactInLoss
