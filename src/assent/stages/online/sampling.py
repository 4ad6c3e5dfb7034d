"""Where the rollouts of a step come from: plain, dynamic, or drawn ahead."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import Field

from assent.config import Frozen
from assent.protocols import Follower, Scorer
from assent.rewards.asked_once import AskedOnce
from assent.rewards.combined import CombinedScorer
from assent.rollout.ahead import AheadSource
from assent.rollout.drawn import Drawing
from assent.rollout.dynamic import DynamicDrawing
from assent.rollout.source import PromptSource
from assent.train.weighing import WeightedScorer, leaves
from assent.types import Prompt


class DynamicSampling(Frozen):
    """Groups whose scores are all equal are replaced by the prompts that follow (DAPO).

    Args:
        tries: how often a step asks before it is filled up with such groups; ours, the paper knows no bound.
        spread: a group's scores must differ by more than this; 0 fits rules, a reward model of real numbers wants a
            part of its spread over responses.
    """

    tries: int = Field(8, gt=0)
    spread: float = Field(0.0, ge=0)


def asked_once(scorers: Sequence[WeightedScorer], dynamic: DynamicSampling | None) -> list[WeightedScorer]:
    """The scorers as the scoring of a step asks them: under dynamic sampling their judges have already been asked."""
    return list(scorers) if dynamic is None else [replace(w, scorer=_once(w.scorer)) for w in scorers]


def _once(scorer: Scorer) -> Scorer:
    """The scorer, its judges asked once; how it combines them is worked out again, and so are its metrics."""
    if isinstance(scorer, CombinedScorer):
        return replace(scorer, parts=[_once(part) for part in scorer.parts])
    return AskedOnce(scorer)


def build_source(
    plain: PromptSource,
    dynamic: DynamicSampling | None,
    scorers: Sequence[WeightedScorer],
    prompts: Sequence[Prompt],
    decode: Callable[[Sequence[int]], str],
    *,
    groups: int,
    lag: int,
    followers: Sequence[Follower],
) -> AheadSource:
    """The source of the loop.

    Args:
        scorers: what the policy is trained on; asked here under dynamic sampling.
        groups: prompts of a step.
        lag: steps that sampling runs ahead.
        followers: parts that follow the policy's weights.
    """
    drawing: Drawing = plain
    if dynamic is not None:
        judges = [judge for w in scorers for judge in leaves(w.scorer)]
        reading = [(w.scorer, w.weight) for w in asked_once(scorers, dynamic)]
        drawing = DynamicDrawing(plain, judges, reading, groups=groups, tries=dynamic.tries, spread=dynamic.spread)
    return AheadSource(drawing, prompts, decode, lag=lag, followers=followers)
