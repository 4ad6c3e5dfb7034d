"""Two models' responses before a feedback model, side by side and in both orders: a win rate without a score."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assent.errors import ContractError
from assent.evals.win_rate import WinRate, of_outcomes
from assent.feedback.principles import drawn, read_principles
from assent.pipeline.run import StageContext
from assent.rewards.asked import Failure
from assent.rewards.judge import Pair, PairwiseJudge, Verdict
from assent.stages.ai_annotators import TIE, AiAnnotator
from assent.types import Rollout


@dataclass(frozen=True)
class Sides:
    """What a feedback model said of two models.

    Args:
        rate: of all pairs with a verdict; responses of one text are a tie that nobody was asked about.
        about: the same by what the principle of the pair looks at; empty where principles do not say.
        unscored: pairs without a verdict.
        consistent: share of the pairs asked about whose two orders prefer the same response; None where none was.
        first: mean probability of whichever was shown first; 0.5 is no position bias.
    """

    rate: WinRate
    about: Mapping[str, WinRate]
    unscored: int
    consistent: float | None
    first: float | None


class SideBySide:
    """Asks a feedback model which of two responses to a prompt is better, by a principle drawn for the pair."""

    def __init__(self, spec: AiAnnotator, context: StageContext) -> None:
        self.name, self.seed = spec.judge.label, context.seed
        self.judge = PairwiseJudge(spec.judge.feedback(context).compare, spec.clamp)
        self.principles = read_principles(None if spec.principles is None else Path(spec.principles).expanduser())

    def __call__(self, policy: Sequence[Rollout], baseline: Sequence[Rollout]) -> Sides:
        """Row by row, whose response is preferred.

        Raises:
            ContractError: no pair of different texts had a verdict.
        """
        pairs = [self._pair(a, b) for a, b in zip(policy, baseline, strict=True)]
        differ = [i for i, pair in enumerate(pairs) if pair.a != pair.b]
        said = dict(zip(differ, self.judge([pairs[i] for i in differ]), strict=True))
        verdicts = {i: v for i, v in said.items() if isinstance(v, Verdict)}
        if differ and not verdicts:
            raise self._silent([v for v in said.values() if isinstance(v, Failure)])
        rows = [i for i in range(len(pairs)) if i in verdicts or i not in said]
        won = [outcome(verdicts[i].a) if i in verdicts else 0.5 for i in rows]
        ids, about = [policy[i].prompt.id for i in rows], [pairs[i].about for i in rows]
        return Sides(
            of_outcomes(won, ids),
            {word: of_outcomes(*_only(won, ids, about, word)) for word in sorted(set(about)) if word},
            len(said) - len(verdicts),
            float(np.mean([v.consistent for v in verdicts.values()])) if verdicts else None,
            float(np.mean([v.first for v in verdicts.values()])) if verdicts else None,
        )

    def _pair(self, a: Rollout, b: Rollout) -> Pair:
        principle = drawn(self.principles, random.Random(f"{self.seed}/{a.prompt.id}"))
        return Pair(a.prompt.source, a.text, b.text, principle.choose, principle.about)

    def _silent(self, failures: Sequence[Failure]) -> ContractError:
        return ContractError(
            f"{self.name} gave no verdict on any pair",
            got=f"{len(failures)} pairs, the first: {failures[0].reason}. {failures[0].detail}",
            why="there is nothing to compare",
            fix="ask it one question by hand; a template that makes it answer with one letter is easiest to read",
        )


def outcome(probability: float) -> float:
    """1 where the first is preferred, 0 where the second is, 0.5 for a tie."""
    return 0.5 if abs(probability - 0.5) < TIE else float(probability > 0.5)


def _only(won: Sequence[float], ids: Sequence[str], about: Sequence[str], word: str) -> tuple[list[float], list[str]]:
    kept = [i for i, said in enumerate(about) if said == word]
    return [won[i] for i in kept], [ids[i] for i in kept]
