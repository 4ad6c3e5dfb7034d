"""Dynamic sampling: prompts whose responses are all equally good are replaced by the next ones."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

from torch import Tensor

from assent.errors import ConfigError
from assent.protocols import Scorer, State
from assent.rollout.drawn import Drawn
from assent.rollout.source import PromptSource
from assent.types import JudgedRollout, Mean, Rollout

Group = list[JudgedRollout]


class DynamicDrawing:
    """Draws steps of `groups` prompts whose responses differ in score (DAPO, arXiv 2503.14476); implements
    `drawn.Drawing`.

    A group of equal scores has no advantage. It is left out, and as many groups as are missing are asked of the prompts
    that follow, up to `tries` times; a step that is still short is filled up with groups that were left out, so that
    every step has its number of groups. The rollouts carry what the scorers said, who are not asked again.

    What a step asks for is a function of the weights and of one number, the place in the endless row of prompts: the
    state is that number.

    Args:
        source: asked for groups by place; its own steps are not used.
        judges: who are asked about every rollout that is drawn; it carries their answers.
        scorers: what the policy is trained on, each with its weight, made of those judges and reading their answers off
            the rollouts. Their weighted sum is compared, before shaping: a penalty for length alone makes no prompt
            worth its place.
        groups: of a step.
        tries: how often a step asks; 1 asks once and fills up.
        spread: a group's highest and lowest score must differ by more than this.

    Raises:
        ConfigError: a number below its least.
    """

    def __init__(
        self,
        source: PromptSource,
        judges: Sequence[Scorer],
        scorers: Sequence[tuple[Scorer, float]],
        *,
        groups: int,
        tries: int,
        spread: float = 0.0,
    ) -> None:
        for name, value, least in (
            ("samples_per_prompt", source.samples_per_prompt, 2),
            ("groups", groups, 1),
            ("tries", tries, 1),
            ("spread", spread, 0),
        ):
            if value < least:
                raise ConfigError(
                    f"{name} must be at least {least} for dynamic sampling",
                    got=value,
                    why="the responses to one prompt are compared, and a step asks for some",
                    fix=f"raise {name}",
                )
        self._source, self._judges, self._scorers = source, list(judges), list(scorers)
        self._groups, self._tries, self._spread = groups, tries, spread
        self._place = 0

    def __len__(self) -> int:
        """Steps in all."""
        return len(self._source)

    def draw(self, step: int) -> Drawn:
        """The groups of the next step, in the order in which they were asked for; fillers last."""
        teaching: list[Group] = []
        idle: list[Group] = []
        asked = 0
        for _ in range(self._tries):
            missing = self._groups - len(teaching)
            for group, teaches in self._ask(missing):
                (teaching if teaches else idle).append(group)
            asked += missing
            if len(teaching) == self._groups:
                break
        short = self._groups - len(teaching)
        metrics = {
            "sampling/kept": Mean(float(len(teaching)), float(asked)),
            "sampling/asked": Mean(float(asked * self._source.samples_per_prompt), 1.0),
            "sampling/filled": Mean(float(short), float(self._groups)),
        }
        groups = teaching + idle[len(idle) - short :]
        return Drawn([rollout for group in groups for rollout in group], metrics)

    def _ask(self, count: int) -> list[tuple[Group, bool]]:
        """The groups of the next prompts, and of each whether two of the responses that every scorer scored are told
        apart."""
        rollouts = self._source.ask(self._place, count)
        self._place += count
        answers = [judge.score(rollouts) for judge in self._judges]
        names = [judge.name for judge in self._judges]
        judged = [
            JudgedRollout(
                **{f.name: getattr(rollout, f.name) for f in fields(Rollout)},
                answers=tuple(zip(names, said, strict=True)),
            )
            for rollout, said in zip(rollouts, zip(*answers, strict=True), strict=True)
        ]
        k, totals = self._source.samples_per_prompt, self._totals(judged)
        return [(judged[i : i + k], self._apart(totals[i : i + k])) for i in range(0, len(judged), k)]

    def _totals(self, judged: Group) -> list[float | None]:
        """The weighted sum of each; None where a scorer would not score it."""
        said = [(weight, scorer.score(judged)) for scorer, weight in self._scorers]
        return [
            sum(weight * sum(e.value for e in events[i]) for weight, events in said)
            if all(events[i] for _, events in said)
            else None
            for i in range(len(judged))
        ]

    def _apart(self, totals: Sequence[float | None]) -> bool:
        scored = [total for total in totals if total is not None]
        return len(scored) > 1 and max(scored) - min(scored) > self._spread

    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        self._source.sync(weights, version=version)

    def state_dict(self) -> State:
        return {"place": self._place, "source": self._source.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Raises ArtefactError where the state belongs to other data or another seed."""
        self._source.load_state_dict(state["source"])
        self._place = state["place"]
