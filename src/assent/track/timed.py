"""Parts of a loop that are timed: each does what the part it wraps does, inside a named phase of the step.

The loops know nothing of it. Sampling is `rollout` (with the scorers' work where they choose what is kept), everything
known before the update `score`, the update `update`, and handing the weights on `sync`.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from assent.protocols import Learner, OfflineAlgorithm, OnlineAlgorithm, Phase, Scoring, Source, State
from assent.types import Batch, Mean, Rollout, Scored


class TimedSource:
    """Implements `protocols.Source`."""

    def __init__(self, source: Source, phase: Phase) -> None:
        self.source, self.phase = source, phase

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[tuple[int, list[Rollout]]]:
        steps = iter(self.source)
        while True:
            with self.phase("rollout"):
                found = next(steps, None)
            if found is None:
                return
            yield found

    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        with self.phase("sync"):
            self.source.sync(weights, version=version)

    def state_dict(self) -> State:
        return self.source.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.source.load_state_dict(state)


class TimedScoring:
    """Implements `protocols.Scoring`."""

    def __init__(self, scoring: Scoring, phase: Phase) -> None:
        self.scoring, self.phase = scoring, phase

    def __call__(self, rollouts: Sequence[Rollout]) -> Scored:
        with self.phase("score"):
            return self.scoring(rollouts)

    def state_dict(self) -> State:
        return self.scoring.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.scoring.load_state_dict(state)


class TimedLearner:
    """Implements `protocols.Learner`."""

    def __init__(self, learner: Learner, phase: Phase) -> None:
        self.learner, self.phase = learner, phase

    def step(self, batch: Batch, algorithm: OfflineAlgorithm) -> dict[str, Mean]:
        with self.phase("update"):
            return self.learner.step(batch, algorithm)

    def update(self, experience: Batch, algorithm: OnlineAlgorithm) -> dict[str, Mean]:
        with self.phase("update"):
            return self.learner.update(experience, algorithm)

    def weights(self) -> Mapping[str, Tensor]:
        return self.learner.weights()

    def state_dict(self) -> State:
        return self.learner.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.learner.load_state_dict(state)
