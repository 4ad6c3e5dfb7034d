"""What a recipe's words for a scorer have in common."""

from collections.abc import Sequence
from typing import Protocol

from assent.errors import ConfigError
from assent.models.folders import CausalModel
from assent.pipeline.run import StageContext
from assent.protocols import Scorer


class ScorerSpec(Protocol):
    """A scorer as a recipe names it."""

    @property
    def weight(self) -> float:
        """In the sum that a policy is trained on."""
        ...

    @property
    def label(self) -> str:
        """What its scores are called in metrics."""
        ...

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        """Ready for the rollouts of this policy."""
        ...


def named_apart(specs: Sequence[ScorerSpec]) -> None:
    """Raises ConfigError where two scorers go by one name: one's scores would be logged over the other's."""
    names = [spec.label for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "two scorers have one name",
            got=", ".join(twice),
            why="what one says would be logged over what the other says",
            fix="rename a stage, a folder or a function, or leave one out",
        )
