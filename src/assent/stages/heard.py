"""What the scorers of a selection say, under the names that reinforcement learning logs it by."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from assent.protocols import Metered, Scorer, State, Tracker
from assent.stages.lines import Lines
from assent.train.weighing import ask, distribution, leaves
from assent.types import CombinedScores, Mean, NamedScores, NoScore, Rollout, ScoreEvents


@dataclass(frozen=True)
class _Heard:
    """A scorer that puts what it and its parts said aside."""

    scorer: Scorer
    said: list[CombinedScores]

    @property
    def name(self) -> str:
        return self.scorer.name

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        answer = ask(self.scorer, rollouts)
        self.said.append(answer)
        return list(answer.events)


class Logged:
    """Hands the rollouts of a step on to the lines, and logs what the scorers, and the parts they are made of, said of
    them. Implements `protocols.Keep`.

    Args:
        lines: where rollouts go, a line a prompt.
        scorers: to be asked through `asked`.
        prompts_per_step: the step is counted by what was written before, so that a resumed one is logged once.
    """

    def __init__(self, lines: Lines, scorers: Sequence[Scorer], tracker: Tracker, *, prompts_per_step: int) -> None:
        self.lines, self.scorers, self.tracker, self.prompts_per_step = lines, scorers, tracker, prompts_per_step
        self._said: list[CombinedScores] = []

    @property
    def asked(self) -> list[Scorer]:
        return [_Heard(scorer, self._said) for scorer in self.scorers]

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> None:
        step = self.lines.written // self.prompts_per_step
        self.lines(rollouts, scores)
        self.tracker.log(step, self._metrics())
        self._said.clear()

    def state_dict(self) -> State:
        return self.lines.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.lines.load_state_dict(state)

    def _metrics(self) -> Mapping[str, Mean]:
        named: list[NamedScores] = []
        metrics: dict[str, Mean] = {}
        for scorer, answer in zip(self.scorers, self._said, strict=True):
            totals = [sum(e.value for e in events) if events else float("nan") for events in answer.events]
            named += [NamedScores(scorer.name, torch.tensor(totals)), *answer.parts]
            metrics |= answer.metrics
        reasons = Counter(said.reason for a in self._said for said in a.events if isinstance(said, NoScore))
        metrics |= {f"unscored/{reason}": Mean(float(count), 1.0) for reason, count in sorted(reasons.items())}
        for judge in (j for scorer in self.scorers for j in leaves(scorer)):
            if isinstance(judge, Metered):
                metrics |= judge.metrics()
        return {**distribution(named), **metrics}
