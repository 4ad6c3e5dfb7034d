"""The leash's end: stop and roll back when the policy has strayed too far from the reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assent.protocols import State
from assent.types import Scored
from assent.types.settings import above


@dataclass(frozen=True, slots=True)
class KLBudget:
    """How far the policy may go.

    Args:
        limit: mean KL to the reference of one batch of rollouts, in nats per sequence, to the first one where the
            reference moves and that is watched; None for no limit.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    limit: float | None = None

    def __post_init__(self) -> None:
        above(0, limit=self.limit)


class KLGuard:
    """Keeps the newest weights whose rollouts were measured within the budget, and goes back to them when it is spent.

    Args:
        budget: the limit.
        policy: the module whose weights are kept and restored.
    """

    def __init__(self, budget: KLBudget, policy: nn.Module) -> None:
        self.budget, self.policy = budget, policy
        self.kept: dict[str, Tensor] = {}
        self.rolled_back = False

    def spent(self, scored: Scored) -> bool:
        """Whether these rollouts exceed the budget; if so the policy is back at the last weights that did not."""
        if self.budget.limit is None:
            return False
        if scored.metrics.get("kl/first", scored.metrics["objective/kl"]).value <= self.budget.limit:
            self.kept = {n: p.detach().clone() for n, p in self.policy.state_dict().items()}
            return False
        self._restore(self.kept)
        return True

    def _restore(self, kept: Mapping[str, Tensor]) -> None:
        if kept:
            with torch.no_grad():
                self.policy.load_state_dict(dict(kept))
        self.rolled_back = True

    def state_dict(self) -> State:
        return {"kept": dict(self.kept), "rolled_back": self.rolled_back}

    def load_state_dict(self, state: State) -> None:
        self.kept, self.rolled_back = state["kept"], state["rolled_back"]
