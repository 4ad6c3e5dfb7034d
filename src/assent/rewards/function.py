"""A plain function of prompt and response as a scorer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assent.types import Rollout, ScoreEvent, ScoreEvents


@dataclass(frozen=True)
class FunctionScorer:
    """Scores whole responses by a function; None means "no score", and the sample is dropped and counted.

    Args:
        name: of the score in metrics.
        function: rollout to score.
    """

    name: str
    function: Callable[[Rollout], float | None]

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        values = [self.function(r) for r in rollouts]
        return [
            () if v is None else (ScoreEvent(len(r.token_ids) - 1, float(v)),)
            for r, v in zip(rollouts, values, strict=True)
        ]
