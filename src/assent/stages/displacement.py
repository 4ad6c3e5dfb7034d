"""Says, once, when direct alignment takes probability from both sides of its judgements: likelihood displacement."""

from collections.abc import Callable, Mapping

from assent.protocols import State, Tracker
from assent.track.catalogue import lookup
from assent.types import Mean

SIDES = (
    ("logprobs/chosen_shift", "logprobs/rejected_shift", "preferred", "other"),
    ("logprobs/desirable_shift", "logprobs/undesirable_shift", "desirable", "undesirable"),
)


class DisplacementWatch:
    """A tracker that passes everything on and warns once, the first time that both shifts of a step are below the
    healthy range of the first in the catalogue. Implements `protocols.Tracker`.

    Args:
        tracker: which records.
        say: shows a line.
    """

    def __init__(self, tracker: Tracker, say: Callable[[str], None]) -> None:
        self.tracker, self.say, self.said = tracker, say, False

    def log(self, step: int, metrics: Mapping[str, Mean | float]) -> None:
        self.tracker.log(step, metrics)
        for liked, other, name, other_name in SIDES:
            if not self.said and liked in metrics and other in metrics:
                self._look(step, liked, (_number(metrics[liked]), _number(metrics[other])), (name, other_name))

    def _look(self, step: int, metric: str, shifts: tuple[float, float], names: tuple[str, str]) -> None:
        declared = lookup(metric)
        floor = declared.healthy.low if declared.healthy else None
        if floor is None or not max(shifts) < floor:
            return
        self.said = True
        self.say(
            f"warning: likelihood displacement at step {step}: {names[0]} responses have become e^{shifts[0]:.1f} "
            f"times as likely as under the reference, {names[1]} ones e^{shifts[1]:.1f}; what both lost went to "
            f"responses that nobody judged (below {floor:g} nats for both). {declared.advice}"
        )

    def progress(self, done: int, total: int) -> None:
        self.tracker.progress(done, total)

    def state_dict(self) -> State:
        return {"tracker": self.tracker.state_dict(), "said": self.said}

    def load_state_dict(self, state: State) -> None:
        self.tracker.load_state_dict(state["tracker"])
        self.said = state["said"]


def _number(value: Mean | float) -> float:
    return value.value if isinstance(value, Mean) else value
