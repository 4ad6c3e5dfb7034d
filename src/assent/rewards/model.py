"""A reward model as a scorer: one event, on the last token of the response."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from assent.types import Rollout, ScoreEvent, ScoreEvents, Sequences

Encode = Callable[[Rollout], tuple[Sequence[int], Sequence[int]]]
"""A rollout as the reward model's own prompt and response tokens."""


@dataclass(frozen=True)
class RewardModelScorer:
    """Scores whole responses.

    One that shares the policy's tokenizer and template reads the policy's token ids as they are; one with its own
    gets the text, rendered by its own template. `encode` decides, and was chosen where both tokenizers were known.

    Args:
        name: of the score in metrics.
        encode: see `same_tokens` for a shared tokenizer.
        scores: normalised scores of many sequences, [B].
    """

    name: str
    encode: Encode
    scores: Callable[[Sequences], Tensor]

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        pairs = [self.encode(r) for r in rollouts]
        values = self.scores(Sequences.of([p for p, _ in pairs], [r for _, r in pairs])).tolist()
        return [(ScoreEvent(len(r.token_ids) - 1, v),) for r, v in zip(rollouts, values, strict=True)]


def same_tokens(rollout: Rollout) -> tuple[Sequence[int], Sequence[int]]:
    """For a reward model with the policy's tokenizer: token ids are the record."""
    return rollout.prompt.token_ids, rollout.token_ids
