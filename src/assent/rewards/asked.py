"""Somebody outside who is asked for scores, as a scorer: remembered, never asked twice, failures counted by reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from assent.protocols import Metered
from assent.rewards.function import outcome
from assent.rewards.memory import Memory, key_of
from assent.types import Mean, NoScore, Rollout, ScoreEvents


@dataclass(frozen=True, slots=True)
class Failure:
    """Why somebody gave no score.

    Args:
        reason: one word that is counted: `declined`, `raised`, `timeout`, `died`, `not_a_number`, `not_finite`,
            `unreachable`, `unreadable` or `refused`.
        detail: a traceback or a sentence; empty where the reason says all.
    """

    reason: str
    detail: str = ""


class Ask(Protocol):
    """A function in worker processes, a server, a language model."""

    def __call__(self, rollouts: Sequence[Rollout]) -> Sequence[float | Failure]:
        """One number or failure per rollout, in order."""
        ...


class AskedScorer:
    """Scores whole responses; what fails has no score, under the reason of the failure.

    Args:
        name: of the score in metrics.
        ask: who is asked; where it is `Metered`, so is the scorer.
        source: names who is asked to the memory: a digest of the function's source, or of address and settings.
        memory: of the numbers that came back.
        say: is told of the first failure of each reason, with its traceback.
    """

    def __init__(
        self,
        name: str,
        ask: Ask,
        *,
        source: str,
        memory: Memory,
        say: Callable[[str], None],
    ) -> None:
        self._name, self.ask, self.source, self.memory, self.say = name, ask, source, memory, say
        self._told: set[str] = set()

    @property
    def name(self) -> str:
        return self._name

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        keys = [key_of(self.source, r) for r in rollouts]
        known: dict[str, float | Failure] = {}
        new: dict[str, Rollout] = {}
        for key, rollout in zip(keys, rollouts, strict=True):
            before = self.memory.get(key)
            if before is None:
                new.setdefault(key, rollout)
            else:
                known[key] = before
        for key, answer in zip(new, self.ask(list(new.values())) if new else (), strict=True):
            known[key] = answer
            if isinstance(answer, Failure):
                self._tell(answer, new[key])
            else:
                self.memory.put(key, answer)
        return [outcome(r, _said(known[key])) for key, r in zip(keys, rollouts, strict=True)]

    def metrics(self) -> Mapping[str, Mean]:
        """What was spent since this was last asked; nothing where asking is free."""
        return self.ask.metrics() if isinstance(self.ask, Metered) else {}

    def _tell(self, failure: Failure, rollout: Rollout) -> None:
        if failure.reason in self._told or failure.reason == "declined":
            return
        self._told.add(failure.reason)
        self.say(
            f"  ! {self.name} gave no score to a response to {rollout.prompt.id!r} ({failure.reason}); further ones "
            f"are counted as unscored/{failure.reason}\n{failure.detail}"
        )


def _said(answer: float | Failure) -> float | NoScore:
    return NoScore(answer.reason) if isinstance(answer, Failure) else answer
