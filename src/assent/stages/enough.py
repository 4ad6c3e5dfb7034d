"""Hold a run while its reward model may be guessing: how many comparisons it takes, and how to go on."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from assent.errors import ArtefactError
from assent.intervals import Estimate
from assent.pipeline.stage import StageContext
from assent.stages.asking import this_command
from assent.stages.compare import PROMPTS_PER_STEP
from assent.stages.sources import StageComparisons

if TYPE_CHECKING:
    from assent.stages.reward_training import ComparisonData

POWER = 0.8
"""How surely as many comparisons as are asked for would show the accuracy; the convention of Cohen (1988)."""

FAR = 4.0
"""So many times the comparisons are asked for where more would be, or none can be reckoned; on the one seed of the
recipe with people that went wrong they were enough (docs/experiments/people_in_the_loop.md)."""


class TooFewComparisons(ArtefactError):
    """The stage goes on when there are more comparisons, or when it is told to go on without."""


def times_as_many(accuracy: Estimate, bound: float) -> float | None:
    """How many times the held-out prompts it takes for the lower end of the interval to come above the bound in four
    cases of five, if the accuracy is what it seems; the half-width of an interval goes with one over the root of their
    number. None where it is not above the bound."""
    if accuracy.value is None or accuracy.interval is None or accuracy.value <= bound:
        return None
    half, normal = accuracy.value - accuracy.interval.low, NormalDist()
    end = normal.inv_cdf(0.5 + accuracy.interval.level / 2)
    return ((end + normal.inv_cdf(POWER)) / end * half / (accuracy.value - bound)) ** 2


def require_enough(spec: "ComparisonData", accuracy: Estimate, training_prompts: int, context: StageContext) -> None:
    """End the stage unless its accuracy on held-out comparisons is shown to be above what is asked for.

    Args:
        accuracy: on held-out pairs.
        training_prompts: those that none of these pairs is of.

    Raises:
        TooFewComparisons: it is not shown.
    """
    bound = spec.accuracy_above
    if bound is None or (accuracy.interval is not None and accuracy.interval.low > bound):
        return
    prompts = training_prompts + accuracy.clusters
    times = times_as_many(accuracy, bound)
    needed = math.ceil(min(times or FAR, FAR) * prompts)
    if times is None or times > FAR:
        number = (
            f"the accuracy is too near to {bound:g} to reckon how many it takes: {FAR:g} times as many, {needed:,}, "
            f"are a start. See too how far those who judge agree (docs/how-to/trust-annotators.md)."
        )
    else:
        number = f"at this accuracy about {needed:,} in all show it, four times in five."
    value, interval = accuracy.value, accuracy.interval
    seen = "unknown" if value is None or interval is None else f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    guess = "may be guessing" if bound == 0.5 else "is not yet known to be good enough"
    raise TooFewComparisons(
        f"the reward model {context.name!r} {guess}: its accuracy on held-out comparisons is not shown to be above "
        f"{bound:g}",
        got=f"{seen}, on {accuracy.items:,} pairs of {accuracy.clusters:,} held-out prompts, beside "
        f"{training_prompts:,} prompts that it was trained on",
        why="what is optimised against a model that guesses becomes worse as easily as better: nothing more is run",
        fix=f"have more compared. There are {prompts:,} prompts; {number}{_how(spec, needed - prompts, context)} To go "
        f"on all the same:\n    {this_command(context)} stages.{context.name}.accuracy_above=null",
    )


def _how(spec: "ComparisonData", more: int, context: StageContext) -> str:
    """The command that compares responses to more prompts, where the recipe itself says to how many."""
    stages = [source.stage for source in spec.data if isinstance(source, StageComparisons)]
    if not stages or not isinstance(count := _settings(stages[-1], "tasks", context).get("count"), int):
        return " Add them to what `data` names, and run the same command again."
    whole = PROMPTS_PER_STEP * math.ceil((count + more) / PROMPTS_PER_STEP)
    people = "people" in _settings(stages[-1], "annotators", context)
    stands = " What was answered stands, and is not asked again." if people else ""
    command = f"{this_command(context)} stages.{stages[-1]}.tasks.count={whole}"
    return f"{stands} With {whole:,} prompts in {stages[-1]}:\n    {command}\n "


def _settings(stage: str, name: str, context: StageContext) -> Mapping[str, Any]:
    """A group of settings of an earlier stage; empty where it has none of that name."""
    found = context.inputs[stage].config.get(name)
    return found if isinstance(found, Mapping) else {}
