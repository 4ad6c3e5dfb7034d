"""Comparisons by a feedback model: all pairs of a prompt's responses, both orders, as soft labels (RLAIF, RL-CAI)."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

from pydantic import field_validator

from assent.config import External, Frozen
from assent.feedback.principles import drawn, read_principles
from assent.pipeline.stage import StageContext
from assent.protocols import State
from assent.records import Comparison, Preference, to_json
from assent.rewards.asked import Failure
from assent.rewards.judge import Pair, PairwiseJudge, Verdict
from assent.stages.feedback_model import AnyFeedbackModel
from assent.types import Mean, Rollout, ScoreEvents

TIE = 1e-9
"""A label nearer to 0.5 than this is a tie."""

PrinciplesFile = Annotated[str, External()]
"""Path of a principles file; its contents are part of what is made."""


class AiAnnotator(Frozen):
    """A feedback model that compares.

    Args:
        judge: who is asked: `{simulated: domain}`, `{policy: NAME}` or `{endpoint: {endpoint: ..., model: ...}}`.
        principles: a file of them, one of which is drawn for each pair; the sixteen that ship when None. A template
            without a blank for a principle reads none.
        clamp: bounds on a label; `[0.4, 0.6]` with a template that has the judge reason first (Bai et al., 2212.08073).
    """

    judge: AnyFeedbackModel
    principles: PrinciplesFile | None = None
    clamp: tuple[float, float] | None = None

    @field_validator("clamp")
    @classmethod
    def _both_ways(cls, clamp: tuple[float, float] | None) -> tuple[float, float] | None:
        if clamp is not None and not 0 <= clamp[0] < 0.5 < clamp[1] <= 1:
            raise ValueError(f"clamp is a number below 0.5 and one above; got {list(clamp)}")
        return clamp


class AiAsks:
    """Turns the samples of a step into comparisons by a feedback model; a state of its own counts what it cost.

    A pair of equal texts is not asked about. A pair without a verdict is left out, and a prompt without any.
    """

    def __init__(self, spec: AiAnnotator, samples: int, context: StageContext) -> None:
        self.samples, self.seed, self.say = samples, context.seed, context.say
        self.name, feedback = spec.judge.label, spec.judge.feedback(context)
        self.judge, self.spent = PairwiseJudge(feedback.compare, spec.clamp), feedback.spent
        self.principles = read_principles(None if spec.principles is None else Path(spec.principles).expanduser())
        self.tally: Counter[str] = Counter()
        self.sums = {"consistent": Mean(0.0, 0.0), "first": Mean(0.0, 0.0)}

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> list[dict[str, object]]:
        groups = [rollouts[i : i + self.samples] for i in range(0, len(rollouts), self.samples)]
        asked = [(g, i, j) for g, group in enumerate(groups) for i, j in self._pairs(group)]
        verdicts = self.judge([self._pair(groups[g], i, j) for g, i, j in asked])
        preferences: dict[int, list[Preference]] = {}
        for (g, i, j), verdict in zip(asked, verdicts, strict=True):
            self._note(verdict)
            if not isinstance(verdict, Failure):
                preferences.setdefault(g, []).append(_preference(i, j, verdict.a))
        self.tally["prompts without a verdict"] += len(groups) - len(preferences)
        for name, mean in self.spent().items():
            self.tally[name] += int(mean.total)
        return [to_json(self._comparison(groups[g], said)) for g, said in sorted(preferences.items())]

    def _pairs(self, group: Sequence[Rollout]) -> list[tuple[int, int]]:
        return [(i, j) for i, j in combinations(range(len(group)), 2) if group[i].text != group[j].text]

    def _pair(self, group: Sequence[Rollout], i: int, j: int) -> Pair:
        prompt = group[0].prompt
        principle = drawn(self.principles, random.Random(f"{self.seed}/{prompt.id}/{i}/{j}"))
        return Pair(prompt.source, group[i].text, group[j].text, principle.choose, principle.about)

    def _note(self, verdict: Verdict | Failure) -> None:
        self.tally["pairs"] += 1
        if isinstance(verdict, Failure):
            if not self.tally[f"unscored {verdict.reason}"] and verdict.detail:
                self.say(f"  ! {self.name} gave no verdict ({verdict.reason}): {verdict.detail}")
            self.tally[f"unscored {verdict.reason}"] += 1
            return
        self.sums["consistent"] += Mean(float(verdict.consistent), 1.0)
        self.sums["first"] += Mean(verdict.first, 1.0)

    def _comparison(self, group: Sequence[Rollout], said: Sequence[Preference]) -> Comparison:
        prompt = group[0].prompt
        return Comparison(
            f"{prompt.id}/{self.name}",
            prompt.source,
            tuple(r.text for r in group),
            tuple(said),
            annotator=self.name,
            kind=prompt.kind,
            ended=tuple(r.ended for r in group),
        )

    def figures(self) -> Mapping[str, float]:
        """What the stage closes with."""
        means = {f"judge_{name}": mean.value for name, mean in self.sums.items() if mean.count}
        return means | {name.replace("/", "_").replace(" ", "_"): float(n) for name, n in self.tally.items()}

    def state_dict(self) -> State:
        return {"tally": dict(self.tally), "sums": {n: [m.total, m.count] for n, m in self.sums.items()}}

    def load_state_dict(self, state: State) -> None:
        self.tally = Counter(state["tally"])
        self.sums = {n: Mean(*m) for n, m in state["sums"].items()}


def _preference(i: int, j: int, a: float) -> Preference:
    if abs(a - 0.5) < TIE:
        return Preference(i, j, tie=True, probability=0.5)
    return Preference(i, j, probability=a) if a > 0.5 else Preference(j, i, probability=1.0 - a)
