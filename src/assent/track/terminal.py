"""The terminal: a progress bar per stage with the time left, a short line of metrics, and tables.

Where the output is not a terminal (a log file, CI) there is a plain line about every tenth of the way instead of a bar.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from assent.protocols import State
from assent.track.catalogue import METRICS, Metric, lookup
from assent.track.jsonl import METRICS as METRICS_FILE
from assent.track.jsonl import TIMING, JsonlSink, TimingFile
from assent.track.tensorboard import TensorBoardSink
from assent.track.tracker import RunTracker, Sink


class RunConsole:
    """What `pipeline.run` talks to: says lines, and makes the tracker of each stage.

    Args:
        console: of rich; standard output by default.
        tensorboard: also write event files.
    """

    def __init__(self, console: Console | None = None, *, tensorboard: bool = False) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.tensorboard = tensorboard

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def stage(self, title: str, out: Path, board: Path) -> Iterator[RunTracker]:
        """The tracker of one running stage; see `pipeline.run.Console`."""
        with _progress(self.console, title) as show:
            terminal = TerminalSink(show)
            sinks: list[Sink] = [JsonlSink(out / METRICS_FILE), terminal]
            if self.tensorboard:
                sinks.append(TensorBoardSink(board))
            tracker = RunTracker(sinks, TimingFile(out / TIMING))
            try:
                yield tracker
            finally:
                tracker.close()
        for line in (*terminal.findings(), *spent_line(tracker.spent)):
            self.say(line)


def quiet_console() -> RunConsole:
    """One that shows nothing, for the processes beside the first; metrics are kept as ever."""
    return RunConsole(Console(quiet=True, highlight=False, soft_wrap=True))


Show = Callable[[int, int, str], None]
"""Shows (done, total, short line of metrics)."""


class TerminalSink:
    """Keeps the newest value of each metric and how often it was outside its healthy range.

    nan means that nothing was counted (no unsafe response in this batch): it leaves what was known as it is.
    """

    name = "terminal"

    def __init__(self, show: Show) -> None:
        self.show = show
        self.done, self.total = 0, 0
        self.newest: dict[str, float] = {}
        self.outside: dict[str, int] = {}
        self.steps: dict[str, int] = {}

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        counted = {name: value for name, value in metrics.items() if not math.isnan(value)}
        self.newest |= counted
        for name, value in counted.items():
            self.steps[name] = self.steps.get(name, 0) + 1
            if _is_outside(lookup(name), value):
                self.outside[name] = self.outside.get(name, 0) + 1
        self.show(self.done, self.total, self.line())

    def progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self.show(done, total, self.line())

    def line(self) -> str:
        """The newest values of the labelled metrics, in the catalogue's order; `!` marks one outside its range."""
        shown = [m for name, m in METRICS.items() if m.label and name in self.newest]
        marks = (f"{m.label} {short(self.newest[m.name])}{'!' * _is_outside(m, self.newest[m.name])}" for m in shown)
        return "  ".join(marks)

    def findings(self) -> list[str]:
        """What to do about each metric that was outside its healthy range in at least half of the steps."""
        found = []
        for name, count in self.outside.items():
            if 2 * count >= self.steps[name]:
                m = lookup(name)
                often = f"{count:,} of {self.steps[name]:,} steps outside {m.healthy}"
                found.append(f"  ! {name} = {short(self.newest[name])} {m.unit} ({often}). {m.advice}")
        return found

    def state_dict(self) -> State:
        return {"newest": dict(self.newest), "outside": dict(self.outside), "steps": dict(self.steps)}

    def load_state_dict(self, state: State) -> None:
        self.newest, self.outside, self.steps = dict(state["newest"]), dict(state["outside"]), dict(state["steps"])

    def close(self) -> None:
        """The bar is closed by whoever opened it."""


def _is_outside(metric: Metric, value: float) -> bool:
    return metric.healthy is not None and not metric.healthy.holds(value)


def short(value: float) -> str:
    """A number in at most about six characters."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"


# ------------------------------------------------------------------------------------------------ progress


@contextlib.contextmanager
def _progress(console: Console, title: str) -> Iterator[Show]:
    """A live bar in a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        lines = PlainProgress(title, lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
        yield lines.show
        lines.finish()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[line]}", markup=False),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task(title, total=None, line="")

        def show(done: int, total: int, line: str) -> None:
            if done < bar.tasks[0].completed:
                bar.reset(task)
            bar.update(task, completed=done, total=total or None, line=line)

        yield show


class PlainProgress:
    """One line about every tenth of the way, with the time left; for output that is not a terminal.

    Args:
        title: of the stage.
        say: prints a line.
    """

    def __init__(self, title: str, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.title, self.say, self.clock = title, say, clock
        self.begun = self.since = clock()
        self.first: int | None = None
        self.done, self.said = 0, 0
        self.say(f"{title}: started")

    def show(self, done: int, total: int, line: str) -> None:
        if not total:
            return
        tenth = 10 * done // total
        if self.first is None or done < self.done:
            # The pace counts from here: before lie loading and first-batch checks, and what a resumed run had done.
            self.first, self.since, self.said = done, self.clock(), tenth
        self.done = done
        if tenth > self.said:
            self.said = tenth
            pace = (self.clock() - self.since) / max(done - self.first, 1)
            left = f", {duration(pace * (total - done))} left" if done < total else ""
            gone = duration(self.clock() - self.begun)
            self.say(f"{self.title}: {100 * done // total} % ({done:,}/{total:,}), {gone} gone{left}  {line}".rstrip())

    def finish(self) -> None:
        self.say(f"{self.title}: finished in {duration(self.clock() - self.begun)}")


def spent_line(spent: Mapping[str, float]) -> list[str]:
    """Where the time of a stage's steps went, longest first; nothing for a stage without phases."""
    whole = sum(spent.values())
    if not whole:
        return []
    shares = sorted(spent.items(), key=lambda named: -named[1])
    return ["  time: " + ", ".join(f"{name} {100 * seconds / whole:.0f} %" for name, seconds in shares)]


def duration(seconds: float) -> str:
    """`8 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


# ------------------------------------------------------------------------------------------------ tables


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One prompt with the response before and after training, and the score of each."""

    prompt: str
    before: str
    after: str
    score_before: float
    score_after: float


def sample_table(rows: Sequence[SampleRow], *, title: str = "", width: int | None = None) -> str:
    """Samples as text to say."""
    table = Table(title=title or None, show_lines=True, expand=True)
    for heading in ("prompt", "before", "after"):
        table.add_column(heading, ratio=3, overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for r in rows:
        score = f"{short(r.score_before)} → {short(r.score_after)}"
        table.add_row(*(_escaped(x) for x in (r.prompt, r.before, r.after)), score)
    return render(table, width=width)


def _escaped(text: str) -> str:
    """Text of models is never markup."""
    return text.replace("[", "\\[")


def render(table: Table, *, width: int | None = None) -> str:
    """A table as plain text, as wide as the terminal (at most 160 characters, 100 where there is none)."""
    width = width or min(shutil.get_terminal_size((100, 24)).columns, 160)
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")
