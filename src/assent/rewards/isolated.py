"""A function that runs in worker processes as a scorer: remembered, never asked twice, its failures counted."""

from collections.abc import Callable, Sequence

from assent.rewards.function import outcome
from assent.rewards.memory import Memory, key_of
from assent.rewards.workers import Failure
from assent.types import NoScore, Rollout, ScoreEvents


class IsolatedScorer:
    """Scores whole responses; what the function fails on gets no score, under the reason of the failure.

    Args:
        name: of the score in metrics.
        ask: one number or failure per rollout, as `Workers` does.
        source: digest of the function's source; a changed function is another one to the memory.
        memory: of numbers that it returned.
        say: is told of the first failure of each reason, with its traceback.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[Sequence[Rollout]], Sequence[float | Failure]],
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
