"""What follows the policy: a reference that moves, an average that is saved, and what is measured against them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from assent.models.folders import CausalModel
from assent.models.forward import ModelForward
from assent.protocols import Follower, Stateful
from assent.stages.parts import frozen
from assent.train.divergence import Note, exact_divergence, first_divergence
from assent.train.followers import Averaging, MovingReference, ReferenceAverage, ReferenceReset, WeightAverage

AnyReferenceUpdate = Annotated[ReferenceReset | ReferenceAverage, Field(discriminator="name")]


@dataclass(frozen=True)
class Following:
    """The parts that follow the policy's weights, where a recipe asks for them.

    Args:
        reference: that moves.
        average: that is saved in the policy's place.
        notes: figures that need the reference.
    """

    reference: MovingReference | None
    average: WeightAverage | None
    notes: Sequence[Note]

    @property
    def parts(self) -> dict[str, Follower]:
        named = {"reference": self.reference, "average": self.average}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def state(self) -> dict[str, Stateful]:
        return {f"following {name}": part for name, part in self.parts.items()}


def build_following(
    update: ReferenceReset | ReferenceAverage | None,
    averaging: Averaging | None,
    policy: CausalModel,
    reference: CausalModel,
    forward: ModelForward,
    *,
    exact_kl: bool,
    token_budget: int,
) -> Following:
    """Args: exact_kl: measure the divergence over the whole vocabulary."""
    average = None if averaging is None else WeightAverage(averaging, policy.model)
    notes = [exact_divergence(forward.exact_kl, token_budget=token_budget)] if exact_kl else []
    if update is None:
        return Following(None, average, notes)
    moving = MovingReference(update, reference.model)
    notes.append(lambda _: moving.metrics())
    if update.watch_first:
        first = ModelForward(policy=frozen(copy.deepcopy(reference.model)), temperature=forward.temperature)
        notes.append(first_divergence(first.logprobs, token_budget=token_budget))
    return Following(moving, average, notes)
