"""The source that a loop iterates: it may draw steps ahead of the one that is trained on."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from assent.errors import ConfigError
from assent.protocols import Follower, State
from assent.rollout.drawn import Drawing, Drawn, drawn_from_state, drawn_to_state
from assent.types import Mean, Prompt, Rollout


class AheadSource:
    """Yields (step, rollouts) of a drawing; implements `protocols.Source`.

    With `lag` 0 a step is drawn when it is asked for, with the newest weights. With `lag` L, step k is drawn before the
    update of step k - L, hence with the weights of version max(0, k - L): what an asynchronous placement does, where
    sampler and learner work at the same time. On one machine, where they take turns, it gains nothing by itself.
    `Rollout.version` tells the weights; the learner's own log-probabilities are computed when the step comes, before
    its update, so that the importance of each token under both is known.

    The rollouts that wait are part of the state: the weights they were drawn with are gone when a run resumes.

    Args:
        drawing: of the steps.
        lag: steps drawn ahead; at least 0.
        prompts: those of the drawing.
        decode: response tokens to text.
        followers: parts that are passed every new version of the weights, after the engine.

    Raises:
        ConfigError: `lag` below 0.
    """

    def __init__(
        self,
        drawing: Drawing,
        prompts: Sequence[Prompt],
        decode: Callable[[Sequence[int]], str],
        *,
        lag: int = 0,
        followers: Sequence[Follower] = (),
    ) -> None:
        if lag < 0:
            raise ConfigError(
                "lag must be at least 0",
                got=lag,
                why="a step cannot be drawn with weights that do not exist yet",
                fix="set lag to 0, or to the steps that sampling runs ahead of training",
            )
        self._drawing, self._lag, self._decode, self._followers = drawing, lag, decode, list(followers)
        self._prompts = {p.id: p for p in prompts}
        self._next = 0
        self._waiting: deque[Drawn] = deque()
        self.metrics: Mapping[str, Mean] = {}

    def __len__(self) -> int:
        """Steps in all."""
        return len(self._drawing)

    def __iter__(self) -> Iterator[tuple[int, list[Rollout]]]:
        """From where the source stands; `metrics` then holds the figures of the step that was yielded.

        While a step's rollouts are out, the source already stands after it, as `PromptSource` does.
        """
        while self._next < len(self):
            step = self._next
            furthest = min(step + self._lag, len(self) - 1)
            while step + len(self._waiting) <= furthest:
                self._waiting.append(self._drawing.draw(step + len(self._waiting)))
            drawn = self._waiting.popleft()
            self._next, self.metrics = step + 1, drawn.metrics
            yield step, list(drawn.rollouts)

    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Pass new weights on; they are those of the next step that is drawn."""
        self._drawing.sync(weights, version=version)
        for follower in self._followers:
            follower.follow(weights, version=version)

    def state_dict(self) -> State:
        """The step to come, the rollouts that wait, and the drawing's own state; followers keep their own."""
        waiting = [drawn_to_state(drawn) for drawn in self._waiting]
        return {"next": self._next, "waiting": waiting, "drawing": self._drawing.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self._drawing.load_state_dict(state["drawing"])
        self._next = state["next"]
        self._waiting = deque(drawn_from_state(s, self._prompts, self._decode) for s in state["waiting"])
