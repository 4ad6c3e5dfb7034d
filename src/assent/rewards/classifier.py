"""A text classifier as a scorer: the logit of one label, of the text as people read it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from assent.types import Rollout, ScoreEvent, ScoreEvents

TextOf = Callable[[Rollout], str]
"""What of a rollout the classifier reads."""


@dataclass(frozen=True)
class ClassifierScorer:
    """Scores whole responses; the event sits on the last token. A text that is too long for it gets no score.

    Args:
        name: of the score in metrics.
        logits: of the chosen label, one per text; None where the classifier cannot read all of it.
        text: what it reads.
    """

    name: str
    logits: Callable[[Sequence[str]], Sequence[float | None]]
    text: TextOf

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        values = self.logits([self.text(r) for r in rollouts])
        return [
            () if v is None else (ScoreEvent(len(r.token_ids) - 1, v),) for r, v in zip(rollouts, values, strict=True)
        ]


def whole(rollout: Rollout) -> str:
    """Prompt and response as one text.

    Raises:
        ValueError: the prompt is a dialogue.
    """
    if not isinstance(rollout.prompt.source, str):
        raise ValueError(
            f"a classifier has no template for a dialogue; got {len(rollout.prompt.source)} messages; "
            "let it read the response alone: reads: response"
        )
    return rollout.prompt.source + rollout.text


def response(rollout: Rollout) -> str:
    """The response alone."""
    return rollout.text


TEXTS: Mapping[str, TextOf] = {"whole": whole, "response": response}
