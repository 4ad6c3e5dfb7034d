"""The rollouts of one step, and what draws them."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from assent.protocols import State, Stateful
from assent.types import JudgedRollout, Kept, Mean, NoScore, Prompt, Rollout, ScoreEvent, ScoreEvents


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rollouts of one step, and figures of how they came about."""

    rollouts: Sequence[Rollout]
    metrics: Mapping[str, Mean]


class Drawing(Stateful, Protocol):
    """Draws the rollouts of steps, each once and in their order, with the engine's present weights."""

    def __len__(self) -> int:
        """Steps in all."""
        ...

    def draw(self, step: int) -> Drawn: ...
    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None: ...


def drawn_to_state(drawn: Drawn) -> State:
    """What must be saved where rollouts wait: the weights they were drawn with may be gone when they are read."""
    return {
        "rollouts": [_rollout_to_state(r) for r in drawn.rollouts],
        "metrics": {name: [m.total, m.count] for name, m in drawn.metrics.items()},
    }


def drawn_from_state(state: State, prompts: Mapping[str, Prompt], decode: Callable[[Sequence[int]], str]) -> Drawn:
    """Inverse of `drawn_to_state`.

    Args:
        prompts: by id.
        decode: response tokens to text.
    """
    rollouts = [_rollout_from_state(r, prompts, decode) for r in state["rollouts"]]
    return Drawn(rollouts, {name: Mean(total, count) for name, (total, count) in state["metrics"].items()})


def _rollout_to_state(rollout: Rollout) -> State:
    state: State = {
        "prompt": rollout.prompt.id,
        "token_ids": list(rollout.token_ids),
        "sampler_logprobs": list(rollout.sampler_logprobs),
        "ended": rollout.ended,
        "version": rollout.version,
    }
    if rollout.kept is not None:
        state["kept"] = [rollout.kept.counts.tolist(), rollout.kept.ids.tolist()]
    if isinstance(rollout, JudgedRollout):
        state["answers"] = [[name, _events_to_state(events)] for name, events in rollout.answers]
    return state


def _rollout_from_state(state: State, prompts: Mapping[str, Prompt], decode: Callable[[Sequence[int]], str]) -> Rollout:
    token_ids = tuple(state["token_ids"])
    parts = (
        prompts[state["prompt"]],
        token_ids,
        tuple(state["sampler_logprobs"]),
        state["ended"],
        decode(token_ids),
        state["version"],
    )
    kept = Kept(*(array("i", numbers) for numbers in state["kept"])) if "kept" in state else None
    if "answers" not in state:
        return Rollout(*parts, kept=kept)
    answers = tuple((name, _events_from_state(events)) for name, events in state["answers"])
    return JudgedRollout(*parts, answers, kept=kept)


def _events_to_state(events: ScoreEvents) -> list[list[float]] | str:
    """The reason, where there is no score and one was given."""
    return events.reason if isinstance(events, NoScore) else [[e.index, e.value] for e in events]


def _events_from_state(state: list[list[float]] | str) -> ScoreEvents:
    return NoScore(state) if isinstance(state, str) else tuple(ScoreEvent(int(i), value) for i, value in state)
