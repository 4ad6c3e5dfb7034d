"""Several judges as one: a rule over what each of them said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from assent.protocols import Scorer
from assent.types import CombinedScores, Mean, NamedScores, Rollout, ScoreEvent, ScoreEvents


class Rule(Protocol):
    """From the members' scores to one score per rollout, and metrics of how it came about."""

    def __call__(self, scores_MB: Tensor, rollouts: Sequence[Rollout]) -> tuple[Tensor, Mapping[str, Mean]]: ...


@dataclass(frozen=True)
class CombinedScorer:
    """Scores whole responses by a rule over other scorers; the event sits on the last token.

    A member's events are summed: a rule compares whole responses. A rollout that a member does not score has
    no score, for that member's reason. Implements `protocols.Itemised`, so that what each member said is logged too.

    Args:
        name: of the score in metrics.
        parts: the members, one row of `scores_MB` each.
        rule: what is made of them.
    """

    name: str
    parts: Sequence[Scorer]
    rule: Rule

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        return list(self.itemised(rollouts).events)

    def itemised(self, rollouts: Sequence[Rollout]) -> CombinedScores:
        answers = [part.score(rollouts) for part in self.parts]
        scores_MB = torch.tensor(
            [[sum(e.value for e in said) if said else float("nan") for said in answer] for answer in answers]
        )
        # Of a rollout without a score, the first member's reason for it.
        absent = [next((said for said in of_row if not said), None) for of_row in zip(*answers, strict=True)]
        rows = [i for i, reason in enumerate(absent) if reason is None]
        events: list[ScoreEvents] = [() if reason is None else reason for reason in absent]
        metrics: Mapping[str, Mean] = {}
        if rows:
            combined_B, metrics = self.rule(scores_MB[:, rows], [rollouts[i] for i in rows])
            for i, value in zip(rows, combined_B.tolist(), strict=True):
                events[i] = (ScoreEvent(len(rollouts[i].token_ids) - 1, value),)
        named = tuple(NamedScores(p.name, row_B) for p, row_B in zip(self.parts, scores_MB, strict=True))
        return CombinedScores(events, named, metrics)
