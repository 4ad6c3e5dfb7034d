"""What follows the policy's weights from update to update: a reference that moves, and an average that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from assent.errors import ContractError
from assent.protocols import State
from assent.types import Mean


class ReferenceUpdate(Protocol):
    """How a reference moves: a pure step on its weights, every so many updates of the policy."""

    @property
    def every(self) -> int: ...
    def move(self, reference: Tensor, policy: Tensor) -> None:
        """In place."""
        ...


@dataclass(frozen=True, slots=True)
class ReferenceReset:
    """The reference becomes the policy as it is (TR-DPO's hard update, arXiv 2404.09656; ProRL's, 2505.24864).

    The leash then holds the policy to where it was at the last reset: the KL to the first reference is free to grow.

    Args:
        every: updates of the policy; no default, since it sets how far the whole run may go.
        watch_first: as in `ReferenceAverage`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    every: int
    name: Literal["reset"] = "reset"
    watch_first: bool = True

    def __post_init__(self) -> None:
        _check(self.every, 1.0)

    def move(self, reference: Tensor, policy: Tensor) -> None:
        reference.copy_(policy)


@dataclass(frozen=True, slots=True)
class ReferenceAverage:
    """reference <- (1 - rate) reference + rate policy: the moving anchor of WARP, TR-DPO's soft update.

    Args:
        rate: 0.01 in WARP (arXiv 2406.16768), per update; TR-DPO's soft update takes larger ones.
        every: updates of the policy between two moves.
        watch_first: also log the KL to the first reference, `kl/first`; costs its weights and one more forward pass,
            without gradient, of each batch.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    rate: float = 0.01
    every: int = 1
    name: Literal["ema"] = "ema"
    watch_first: bool = True

    def __post_init__(self) -> None:
        _check(self.every, self.rate)

    def move(self, reference: Tensor, policy: Tensor) -> None:
        reference.lerp_(policy.to(reference), self.rate)


def _check(every: int, rate: float) -> None:
    if every < 1 or not 0 < rate <= 1:
        raise ValueError(
            f"a reference moves every 1 or more updates, at a rate in (0, 1]; got every {every}, rate {rate}; "
            "leave reference_update out for a reference that stays"
        )


class MovingReference:
    """Moves a reference after updates of the policy; implements `protocols.Follower`. Its weights are its state.

    Args:
        update: how.
        reference: a frozen model of its own, never the policy's: every score of a step is held against one snapshot.
    """

    def __init__(self, update: ReferenceUpdate, reference: nn.Module) -> None:
        self.update, self.reference = update, reference
        self.version, self.moved = 0, 0

    def follow(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Raises ContractError where policy and reference are not models of one shape."""
        if version <= self.version:  # a resumed run passes on again what it had
            return
        self.version = version
        if version % self.update.every == 0:
            held = dict(self.reference.named_parameters())
            _require_alike(held, weights)
            with torch.no_grad():
                for name, policy in weights.items():
                    self.update.move(held[name], policy)
            self.moved = version

    def metrics(self) -> Mapping[str, Mean]:
        return {"kl/reference_age": Mean(float(self.version - self.moved), 1.0)}

    def state_dict(self) -> State:
        weights = {name: p.detach() for name, p in self.reference.named_parameters()}
        return {"weights": weights, "version": self.version, "moved": self.moved}

    def load_state_dict(self, state: State) -> None:
        with torch.no_grad():
            for name, p in self.reference.named_parameters():
                p.copy_(state["weights"][name])
        self.version, self.moved = state["version"], state["moved"]


@dataclass(frozen=True, slots=True)
class Averaging:
    """An average of the policy over its updates is saved in its place.

    Args:
        decay: average <- decay average + (1 - decay) policy, after each batch of rollouts; 0.992 in InstructGPT, which
            does not say of what step.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    decay: float = 0.992

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must be in (0, 1); got {self.decay}; leave `average` out to save the policy")


class WeightAverage:
    """Keeps the average of the policy's weights from the start on; implements `protocols.Follower`.

    Args:
        averaging: how.
        policy: whose weights are averaged; they are not touched before `put`.
    """

    def __init__(self, averaging: Averaging, policy: nn.Module) -> None:
        self.averaging, self.policy, self.version = averaging, policy, 0
        self.kept = {name: p.detach().clone() for name, p in policy.named_parameters()}

    def follow(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        if version <= self.version:
            return
        self.version = version
        _require_alike(self.kept, weights)
        for name, policy in weights.items():
            self.kept[name].lerp_(policy.detach().to(self.kept[name]), 1 - self.averaging.decay)

    def put(self) -> None:
        """Put the average in the policy's place, when the run is over."""
        with torch.no_grad():
            for name, p in self.policy.named_parameters():
                p.copy_(self.kept[name])

    def state_dict(self) -> State:
        return {"kept": dict(self.kept), "version": self.version}

    def load_state_dict(self, state: State) -> None:
        self.kept = {name: kept.to(self.kept[name].device) for name, kept in state["kept"].items()}
        self.version = state["version"]


def _require_alike(held: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    shapes, given = ({n: tuple(p.shape) for n, p in side.items()} for side in (held, weights))
    if shapes != given:
        odd = sorted(n for n in shapes.keys() | given.keys() if shapes.get(n) != given.get(n))
        raise ContractError(
            "the policy's weights are not those of the model that follows it",
            got=f"{len(odd)} that differ, first {odd[0]}: {shapes.get(odd[0])} followed by {given.get(odd[0])}",
            why="a weight that does not follow would be left at its start",
            fix="let the reference be a model of the policy's shape, such as its own start",
        )
