"""Tracking: numbers are written once, resume byte for byte, and are shown where they can be read."""

import io
import json
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from assent.errors import ArtefactError, ContractError
from assent.track.jsonl import JsonlSink, TimingFile, read_metrics
from assent.track.terminal import (
    PlainProgress,
    RunConsole,
    SampleRow,
    TerminalSink,
    duration,
    sample_table,
    short,
    spent_line,
)
from assent.track.timed import TimedLearner, TimedScoring, TimedSource
from assent.track.tracker import RunTracker
from assent.types import Mean


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def values(step: int) -> dict[str, Mean | float]:
    return {"objective/kl": Mean(step + 1.0, 3.0), "lr": 10.0**-step, "loss/tokens": Mean(0.0, 0.0)}


def test_means_become_numbers_and_keys_are_sorted(tmp_path: Path) -> None:
    tracker = RunTracker([JsonlSink(tmp_path / "m.jsonl")])
    tracker.log(4, {"objective/kl": Mean(3.0, 4.0), "lr": 1, "val/ratio": math.inf, "epoch": Mean(0.0, 0.0)})
    tracker.close()
    text = (tmp_path / "m.jsonl").read_text()
    assert text == '{"epoch": null, "lr": 1.0, "objective/kl": 0.75, "step": 4, "val/ratio": "inf"}\n'
    (row,) = read_metrics(tmp_path / "m.jsonl")
    assert math.isnan(row["epoch"])
    assert (row["step"], row["val/ratio"], row["objective/kl"]) == (4, math.inf, 0.75)


def test_an_undeclared_name_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    tracker = RunTracker([JsonlSink(tmp_path / "m.jsonl")])
    with pytest.raises(ContractError, match="did you mean 'objective/kl'"):
        tracker.log(0, {"lr": 1.0, "objetive/kl": 1.0})
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize("saved_at", range(5))
@pytest.mark.parametrize("killed_at", range(7))
def test_a_resumed_run_writes_the_same_bytes(tmp_path: Path, saved_at: int, killed_at: int) -> None:
    """Saved after `saved_at` steps, killed `killed_at` steps later with half a line behind, resumed."""
    whole = RunTracker([JsonlSink(tmp_path / "whole.jsonl")])
    for step in range(12):
        whole.log(step, values(step))
    whole.close()

    path, state = tmp_path / "cut.jsonl", tmp_path / "state.pt"
    first = RunTracker([JsonlSink(path)])
    for step in range(saved_at):
        first.log(step, values(step))
    torch.save(first.state_dict(), state)
    for step in range(saved_at, saved_at + killed_at):
        first.log(step, {"lr": 7.0})
    first.close()
    with path.open("a") as file:
        file.write('{"half a li')

    second = RunTracker([JsonlSink(path)])
    second.load_state_dict(torch.load(state, weights_only=True))
    for step in range(saved_at, 12):
        second.log(step, values(step))
    second.close()
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_is_saved_is_on_the_disk_when_the_state_is(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "m.jsonl")
    sink.write(0, {"lr": 1.0})
    assert sink.state_dict()["bytes"] == (tmp_path / "m.jsonl").stat().st_size > 0


def test_a_start_without_a_state_begins_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("left by a killed run\n")
    tracker = RunTracker([JsonlSink(tmp_path / "m.jsonl")])
    tracker.log(0, {"lr": 1.0})
    tracker.close()
    assert len(read_metrics(tmp_path / "m.jsonl")) == 1


def test_lost_lines_and_foreign_states_are_refused(tmp_path: Path) -> None:
    tracker = RunTracker([JsonlSink(tmp_path / "m.jsonl")])
    with pytest.raises(ArtefactError, match="shorter than its saved state"):
        tracker.load_state_dict({"jsonl": {"bytes": 10}})
    with pytest.raises(ArtefactError, match="not a tracker's"):
        tracker.load_state_dict({})


def test_phases_add_up_and_never_reach_the_metrics(tmp_path: Path) -> None:
    clock = Clock()
    tracker = RunTracker([JsonlSink(tmp_path / "m.jsonl")], TimingFile(tmp_path / "t.jsonl"), clock=clock)
    for seconds in (1.0, 2.0):
        with tracker.phase("rollout"):
            clock.now += seconds
    with pytest.raises(KeyError), tracker.phase("update"):
        clock.now += 4.0
        raise KeyError
    clock.now += 0.5
    tracker.log(0, {"lr": 1.0})
    tracker.log(1, {"lr": 1.0})
    tracker.close()
    first, second = (json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines())
    assert first == {"step": 0, "seconds": 7.5, "phases": {"rollout": 3.0, "update": 4.0}}
    assert second == {"step": 1, "seconds": 0.0, "phases": {}}
    assert set(read_metrics(tmp_path / "m.jsonl")[0]) == {"step", "lr"}
    assert tracker.spent == {"rollout": 3.0, "update": 4.0}
    assert spent_line(tracker.spent) == ["  time: update 57 %, rollout 43 %"] and spent_line({}) == []


def test_the_line_of_the_terminal_marks_what_is_unhealthy_and_says_what_to_do() -> None:
    shown: list[str] = []
    sink = TerminalSink(lambda done, total, line: shown.append(line))
    for step in range(4):
        sink.write(step, {"objective/kl": 80.0, "response/ended": 0.5 if step == 0 else 0.9, "loss/policy_avg": 1.0})
    assert shown[-1] == "KL 80!  ended 0.9"
    (finding,) = sink.findings()
    assert "objective/kl = 80 nats per sequence (4 of 4 steps outside -0.5 to 50)" in finding
    assert "raise the KL coefficient" in finding
    restored = TerminalSink(lambda *_: None)
    restored.load_state_dict(sink.state_dict())
    assert restored.findings() == sink.findings()


def test_a_figure_that_was_not_counted_is_no_finding() -> None:
    sink = TerminalSink(lambda *_: None)
    sink.write(0, {"value/explained_variance": math.nan})
    assert sink.findings() == []
    for step, recall in enumerate((math.nan, 0.4, math.nan, math.nan, 0.2, math.nan)):
        sink.write(step, {"safety/unsafe_recall": recall})
    (finding,) = sink.findings()
    assert "safety/unsafe_recall = 0.2 share (2 of 2 steps outside at least 0.5)" in finding


def test_without_a_terminal_a_line_is_said_at_every_tenth() -> None:
    clock, said = Clock(), []
    progress = PlainProgress("sft (2/7)", said.append, clock=clock)
    for done in range(1, 201):
        clock.now += 0.5
        progress.show(done, 200, "loss 2.3")
    progress.finish()
    assert len(said) == 12
    assert said[3] == "sft (2/7): 30 % (60/200), 30 s gone, 1 min 10 s left  loss 2.3"
    assert said[-1] == "sft (2/7): finished in 1 min 40 s"


def test_time_left_does_not_count_what_came_before_the_first_step() -> None:
    clock, said = Clock(), []
    progress = PlainProgress("rl", said.append, clock=clock)
    clock.now += 100.0
    progress.show(0, 0, "a line before any progress")
    for done in range(1, 51):
        clock.now += 1.0
        progress.show(done, 100, "")
    assert "50 % (50/100), 2 min 30 s gone, 50 s left" in said[-1]


def test_time_left_after_a_resume_counts_from_the_resume() -> None:
    clock, said = Clock(), []
    progress = PlainProgress("rl", said.append, clock=clock)
    for done in range(151, 201):
        clock.now += 1.0
        progress.show(done, 200, "")
    assert "90 % (180/200), 30 s gone, 20 s left" in said[2]


def test_the_console_writes_metrics_times_and_a_readable_log(tmp_path: Path) -> None:
    heard = io.StringIO()
    console = RunConsole(Console(file=heard, width=60))
    with console.stage("sft (1/2)", tmp_path, tmp_path / "board") as tracker:
        for step in range(10):
            tracker.log(step, {"loss/tokens": 3.0 - step / 10, "lr": 1e-3})
            tracker.progress(step + 1, 10)
    console.say("[bold]not markup[/bold] " + "x" * 80)
    text = heard.getvalue()
    assert "sft (1/2): 50 % (5/10)" in text
    assert "loss 2.6" in text
    assert "[bold]not markup[/bold] " + "x" * 80 in text, "long lines are not broken"
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 10
    assert len((tmp_path / "timing.jsonl").read_text().splitlines()) == 10
    assert not (tmp_path / "board").exists()


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    heard = io.StringIO()
    console = RunConsole(Console(file=heard, width=160, force_terminal=True))
    with console.stage("rl (1/1)", tmp_path, tmp_path / "board") as tracker:
        tracker.progress(3, 10)
        tracker.log(0, {"objective/kl": 2.0})
        tracker.progress(4, 10)
    text = heard.getvalue()
    assert "40%" in text
    assert "4/10" in text
    assert "KL 2" in text


def test_a_failing_stage_is_not_called_finished(tmp_path: Path) -> None:
    heard = io.StringIO()
    console = RunConsole(Console(file=heard, width=160))
    with pytest.raises(RuntimeError), console.stage("rl (1/1)", tmp_path, tmp_path / "board"):
        raise RuntimeError
    assert "finished" not in heard.getvalue()


def test_tables_show_text_of_models_as_it_is() -> None:
    table = sample_table([SampleRow("say [red]hi[/red]", "no\\[x]", "a" * 60, 1.0, math.nan)], width=100)
    assert "[red]hi[/red]" in table
    assert "1 → nan" in table
    assert table.count("a" * 10) >= 2, "long text is folded, not cut"
    assert max(map(len, table.splitlines())) <= 100


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1234.5, "1234"),
        (0.12345, "0.123"),
        (1e-5, "1.0e-05"),
        (-2.5, "-2.5"),
        (math.nan, "nan"),
        (2e6, "2.0e+06"),
    ],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert short(value) == shown


def test_durations() -> None:
    assert [duration(s) for s in (8.2, 185, 7800)] == ["8 s", "3 min 05 s", "2 h 10 min"]


def test_tensorboard_gets_each_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from assent.track.tensorboard import TensorBoardSink

    first = RunTracker([TensorBoardSink(tmp_path)])
    for step in range(3):
        first.log(step, {"objective/kl": float(step)})
    state = first.state_dict()
    for step in range(3, 6):
        first.log(step, {"objective/kl": -1.0})
    first.close()
    second = RunTracker([TensorBoardSink(tmp_path)])
    second.load_state_dict(state)
    for step in range(3, 6):
        second.log(step, {"objective/kl": float(step)})
    second.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("objective/kl")] == [(s, float(s)) for s in range(6)]


def test_tensorboard_absent_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from assent.errors import ConfigError
    from assent.track.tensorboard import TensorBoardSink

    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"assent\[tensorboard\]"):
        TensorBoardSink(tmp_path)


class Part:
    """A source, a scoring and a learner that take a second each."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def spend(self, answer):
        self.clock.now += 1.0
        return answer

    def __len__(self) -> int:
        return 2

    def __iter__(self):
        for step in range(2):
            yield self.spend((step, [f"rollout {step}"]))

    def __call__(self, rollouts):
        return self.spend(rollouts)

    def sync(self, weights, *, version):
        self.spend(None)

    def step(self, batch, algorithm):
        return self.spend({"a": batch})

    update = step

    def weights(self):
        return {"w": 1}

    def state_dict(self):
        return {"clock": self.clock.now}

    def load_state_dict(self, state):
        self.clock.now = state["clock"]


def test_timed_parts_do_what_they_wrap_and_tell_their_seconds() -> None:
    clock = Clock()
    tracker, part = RunTracker([], clock=clock), Part(clock)
    source, scoring, learner = (kind(part, tracker.phase) for kind in (TimedSource, TimedScoring, TimedLearner))
    begun = clock.now
    for step, rollouts in source:
        assert rollouts == [f"rollout {step}"] and len(source) == 2
        assert scoring(rollouts) == rollouts and learner.update("batch", None) == {"a": "batch"}
        source.sync(learner.weights(), version=1)
        tracker.log(step, {"lr": 1.0})
    assert learner.step("one", None) == {"a": "one"}
    assert tracker.spent == {"rollout": 2.0, "score": 2.0, "update": 2.0, "sync": 2.0} and learner.weights() == {"w": 1}
    for timed in (source, scoring, learner):
        state = timed.state_dict()
        assert state == {"clock": begun + 9.0}
        timed.load_state_dict({"clock": begun + 9.0})
