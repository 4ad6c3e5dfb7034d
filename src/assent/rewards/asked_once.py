"""A scorer that is not asked again about rollouts that carry its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assent.protocols import Metered, Scorer
from assent.types import JudgedRollout, Mean, Rollout, ScoreEvents


@dataclass(frozen=True)
class AskedOnce:
    """Gives what the scorer said when a rollout was sampled (`JudgedRollout`), and asks it about the others together.

    Args:
        scorer: whose answers the rollouts may carry, under its name.
    """

    scorer: Scorer

    @property
    def name(self) -> str:
        return self.scorer.name

    def metrics(self) -> Mapping[str, Mean]:
        """What the scorer spent, at sampling and since; implements `protocols.Metered`."""
        return self.scorer.metrics() if isinstance(self.scorer, Metered) else {}

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        known = [dict(r.answers) if isinstance(r, JudgedRollout) else {} for r in rollouts]
        unknown = [i for i, answers in enumerate(known) if self.name not in answers]
        asked = self.scorer.score([rollouts[i] for i in unknown]) if unknown else []
        new = dict(zip(unknown, asked, strict=True))
        return [new[i] if i in new else answers[self.name] for i, answers in enumerate(known)]
