"""The multiplier of a constrained objective: a state that follows the costs, and the scoring that carries it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from assent.protocols import State
from assent.train.scoring import CriticScoring, LogprobsOf, RolloutScoring
from assent.types import CostScored, Mean, Rollout
from assent.types.micro_batches import map_sequences


@dataclass(frozen=True, slots=True)
class Lagrange:
    """How the multiplier follows the costs (Dai et al., arXiv 2310.12773; defaults are their script's).

    log lambda <- min(log lambda + lr (J - threshold) lambda, log cap): gradient descent on -(J - threshold) lambda,
    J the mean cost of the last `window` episodes, without the KL.

    Args:
        threshold: d, in units of cost; 0, the boundary of the cost model.
        initial: lambda at the start.
        lr: of the step on log lambda.
        cap: bound on lambda; None for none.
        window: episodes that J is the mean of.
        delay: first steps in which lambda stays as it is.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    threshold: float = 0.0
    initial: float = 1.0
    lr: float = 0.1
    cap: float | None = 5.0
    window: int = 128
    delay: int = 0

    def __post_init__(self) -> None:
        if self.initial <= 0 or self.lr <= 0 or self.window < 1:
            raise ValueError(
                f"initial and lr must be above 0 and window at least 1; got {self.initial}, {self.lr}, {self.window}; "
                "a multiplier of 0 has no logarithm to move"
            )
        if self.cap is not None and self.cap < self.initial:
            raise ValueError(f"cap must be at least initial; got {self.cap} and {self.initial}; raise it")


class Multiplier:
    """Lambda through its logarithm; its state is that logarithm, the last costs and the number of steps.

    In a batch of rollouts lambda is moved by the costs of the batch before it weighs its advantages, once per batch.
    """

    def __init__(self, settings: Lagrange) -> None:
        self.settings, self.log, self.steps = settings, math.log(settings.initial), 0
        self.costs: list[float] = []

    @property
    def value(self) -> float:
        return math.exp(self.log)

    @property
    def mean_cost(self) -> float:
        """J, over the window."""
        return sum(self.costs) / len(self.costs)

    def follow(self, costs_B: Tensor) -> None:
        """Take in the costs of a batch and move by them."""
        settings = self.settings
        self.costs = [*self.costs, *costs_B.tolist()][-settings.window :]
        if self.steps >= settings.delay:
            self.log += settings.lr * (self.mean_cost - settings.threshold) * self.value
            if settings.cap is not None:
                self.log = min(self.log, math.log(settings.cap))
        self.steps += 1

    def state_dict(self) -> State:
        return {"log": self.log, "costs": list(self.costs), "steps": self.steps}

    def load_state_dict(self, state: State) -> None:
        self.log, self.costs, self.steps = state["log"], list(state["costs"]), state["steps"]


@dataclass(frozen=True, slots=True)
class Charge:
    """How one watched scorer counts as cost: its score, clipped, then weighted."""

    weight: float = 1.0
    clip: float | None = None

    def of(self, scores_B: Tensor) -> Tensor:
        return self.weight * (scores_B if self.clip is None else scores_B.clamp(-self.clip, self.clip))


class ConstrainedScoring:
    """`CriticScoring` followed by costs, the second critic's values and the multiplier in force.

    A cost is an outcome: it stands on the last token of its response.

    Args:
        scoring: gives all the rest; among its scorers are those of `charges`, watched.
        cost_values: the second critic's value of the state before each response token.
        charges: by name of the scorer.
        multiplier: moved by the costs of each batch.
    """

    def __init__(
        self,
        scoring: CriticScoring,
        cost_values: LogprobsOf,
        charges: Mapping[str, Charge],
        multiplier: Multiplier,
    ) -> None:
        self.scoring, self.cost_values, self.charges, self.multiplier = scoring, cost_values, charges, multiplier

    @property
    def judging(self) -> RolloutScoring:
        return self.scoring.judging

    @property
    def critics(self) -> dict[str, LogprobsOf]:
        return {**self.scoring.critics, "cost values": self.cost_values}

    def __call__(self, rollouts: Sequence[Rollout]) -> CostScored:
        scored = self.scoring(rollouts)
        said = {n.name: n.scores_B for n in scored.scores}
        costs_B = torch.stack([charge.of(said[name]) for name, charge in self.charges.items()]).sum(0)
        self.multiplier.follow(costs_B)
        mask = scored.mask_BT
        last = mask.long().cumsum(1).argmax(1, keepdim=True)
        events_BT = torch.zeros(mask.shape, dtype=costs_B.dtype).scatter(1, last, costs_B[:, None])
        (values,) = map_sequences(lambda s: (self.cost_values(s),), scored.sequences, self.judging.token_budget)
        metrics = {
            **scored.metrics,
            "cost/episode": Mean.of(costs_B),
            "cost/window": Mean(self.multiplier.mean_cost, 1.0),
            "cost/above_zero": Mean.of((costs_B > 0).float()),
            "cost/multiplier": Mean(self.multiplier.value, 1.0),
        }
        kept = {f.name: getattr(scored, f.name) for f in fields(scored)} | {"metrics": metrics}
        return CostScored(**kept, cost_events_BT=events_BT, cost_values_BT=values, multiplier=self.multiplier.value)

    def state_dict(self) -> State:
        return {"scoring": self.scoring.state_dict(), "multiplier": self.multiplier.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.scoring.load_state_dict(state["scoring"])
        self.multiplier.load_state_dict(state["multiplier"])
