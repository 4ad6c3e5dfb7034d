"""The tracker of one stage: takes metrics once, hands numbers to every sink, and times the phases of a step."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from assent.errors import ArtefactError
from assent.protocols import State
from assent.track.catalogue import lookup
from assent.types import Mean


class Sink(Protocol):
    """Somewhere that numbers go. Its state is restored with the stage's, so that nothing is there twice."""

    @property
    def name(self) -> str: ...
    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def progress(self, done: int, total: int) -> None: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...
    def close(self) -> None: ...


class TimeSink(Protocol):
    """Where seconds go; they differ from run to run, so they are kept apart from the metrics."""

    def write(self, step: int, seconds: float, phases: Mapping[str, float]) -> None: ...


class RunTracker:
    """Implements `protocols.Tracker` over a list of sinks.

    Args:
        sinks: every one gets the same numbers.
        times: gets the seconds of each step and of its phases.

    `spent` holds the seconds of each phase over all steps that this process has logged.
    """

    def __init__(
        self, sinks: Sequence[Sink], times: TimeSink | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.sinks, self.times, self.clock = sinks, times, clock
        self.phases: dict[str, float] = {}
        self.spent: dict[str, float] = {}
        self.since = clock()

    def log(self, step: int, metrics: Mapping[str, Mean | float]) -> None:
        """Record one step.

        Raises:
            ContractError: a name is not declared in the catalogue.
        """
        for name in metrics:
            lookup(name)
        numbers = {n: m.value if isinstance(m, Mean) else float(m) for n, m in sorted(metrics.items())}
        for sink in self.sinks:
            sink.write(step, numbers)
        now = self.clock()
        if self.times is not None:
            self.times.write(step, now - self.since, self.phases)
        for name, seconds in self.phases.items():
            self.spent[name] = self.spent.get(name, 0.0) + seconds
        self.phases, self.since = {}, now

    def progress(self, done: int, total: int) -> None:
        for sink in self.sinks:
            sink.progress(done, total)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to this step's `name`. Implements `protocols.Phase` as a bound method."""
        begun = self.clock()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + self.clock() - begun

    def state_dict(self) -> State:
        return {sink.name: sink.state_dict() for sink in self.sinks}

    def load_state_dict(self, state: State) -> None:
        """Sinks that were not there when the state was saved begin here; their past is in the JSON lines.

        Raises:
            ArtefactError: the state was not saved by a tracker.
        """
        if not any(sink.name in state for sink in self.sinks):
            raise ArtefactError(
                "the saved state is not a tracker's",
                got=f"keys {sorted(state)}",
                why="the metrics written so far would be kept twice",
                fix="start the stage over by deleting its folder below .work",
            )
        for sink in self.sinks:
            if sink.name in state:
                sink.load_state_dict(state[sink.name])

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()
