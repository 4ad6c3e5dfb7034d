"""Responses that are too long: a penalty that grows towards the limit, and leaving out those that were cut off."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from assent.errors import ContractError
from assent.functional.length import soft_overlong
from assent.protocols import ScoringOf, State
from assent.types import Mean, Rollout, Scored

S = TypeVar("S", bound=Scored)


@dataclass(frozen=True, slots=True)
class SoftOverlong:
    """DAPO's soft overlong penalty (arXiv 2503.14476): 0 up to longest - cache tokens, then falling linearly to -1 at
    the longest; -1 for a response that did not end within its budget, whatever its length.

    Args:
        longest: L_max, in tokens; 20,480 in the paper.
        cache: L_cache, the tokens before it over which the penalty grows; 4,096 in the paper.
        weight: multiplies it; 1 in the paper, where a right answer scores 1 and a wrong one -1.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    longest: int
    cache: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        soft_overlong(torch.ones(1), longest=self.longest, cache=self.cache)

    def of(self, lengths_B: Tensor, ended_B: Tensor) -> Tensor:
        """What is added to each score, `[B]`, at most 0."""
        soft_B = soft_overlong(lengths_B, longest=self.longest, cache=self.cache)
        return self.weight * torch.where(ended_B, soft_B, -1.0)


class FinishedOnly(Generic[S]):
    """Overlong filtering (DAPO): responses that did not end within their budget are not trained on, and counted.

    They are left out before they are scored, so that no group is compared with a score that a cut-off text got. In the
    paper's code they are masked from the loss alone, and their score still moves their group's mean.

    Args:
        scoring: of the responses that ended.
    """

    def __init__(self, scoring: ScoringOf[S]) -> None:
        self.scoring = scoring

    def __call__(self, rollouts: Sequence[Rollout]) -> S:
        """Raises ContractError where no response ended."""
        ended = [r for r in rollouts if r.ended]
        if not ended:
            raise ContractError(
                "no response of this step ended within its budget",
                got=f"{len(rollouts)} responses, all cut off",
                why="overlong filtering leaves none of them to train on",
                fix="raise max_new_tokens, train the end token in SFT, or set overlong_filter: false",
            )
        scored = self.scoring(ended)
        cut = float(len(rollouts) - len(ended))
        metrics = {
            **scored.metrics,
            "response/ended": Mean(float(len(ended)), float(len(rollouts))),
            "response/overlong_filtered": Mean(cut, 1.0),
        }
        return replace(scored, metrics=metrics)

    def state_dict(self) -> State:
        return self.scoring.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.scoring.load_state_dict(state)
