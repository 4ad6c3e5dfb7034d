"""A plain function of prompt and response as a scorer, called in this process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assent.types import NoScore, Rollout, ScoreEvent, ScoreEvents

Said = float | NoScore | None
"""What a function says of a rollout: a number, or "no score" with or without a reason."""


@dataclass(frozen=True)
class FunctionScorer:
    """Scores whole responses by a function; None means "no score", and the sample is dropped and counted.

    Args:
        name: of the score in metrics.
        function: rollout to score.
    """

    name: str
    function: Callable[[Rollout], Said]

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        return [outcome(r, self.function(r)) for r in rollouts]


def outcome(rollout: Rollout, said: Said) -> ScoreEvents:
    """One event on the last token of the response; none where nothing was said."""
    if isinstance(said, NoScore):
        return said
    return NoScore("declined") if said is None else (ScoreEvent(len(rollout.token_ids) - 1, float(said)),)
