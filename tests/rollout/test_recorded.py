"""Recorded decode steps, with a recorder that plays by calling again: the bookkeeping, without a GPU."""

import logging
from collections.abc import Callable

import pytest
import torch
from rollout_models import POSITIONS, make

from assent.rollout.native import NativeEngine
from assent.types import Request, Sample, Sampling

REQUESTS = [Request(tuple(range(1, 2 + i % 5)), i) for i in range(11)]


class Again:
    """Plays by running the function again; notes how often it recorded and played."""

    def __init__(self) -> None:
        self.recorded, self.played = 0, 0

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1

        def play() -> None:
            self.played += 1
            run()

        return play


class Stale(Again):
    """Plays what was computed when it recorded, whatever the inputs are now."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


class Broken:
    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def same(got: list[Sample], want: list[Sample]) -> None:
    """The same tokens; log-probabilities to rounding, since products of other shapes are summed in another order."""
    assert [s.token_ids for s in got] == [s.token_ids for s in want]
    for a, b in zip(got, want, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("slots", [3, 8])
def test_what_is_played_is_what_the_step_gives(family, slots):
    model, recorder = make(family), Again()
    sampling = Sampling(12, (3, 4))
    expected = NativeEngine(model, slots=slots).generate(REQUESTS, sampling)
    engine = NativeEngine(model, slots=slots, recorder=recorder)
    same(engine.generate(REQUESTS, sampling), expected)
    assert 0 < recorder.recorded <= 4 < recorder.played
    before = recorder.recorded
    same(engine.generate(REQUESTS, sampling), expected)
    assert recorder.recorded == before  # the shapes are known


def test_weights_that_change_in_place_are_played_and_longer_sequences_are_recorded_anew():
    model, recorder = make("llama"), Again()
    engine = NativeEngine(model, slots=4, recorder=recorder)
    engine.generate(REQUESTS, Sampling(6, (3,)))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    for budget in (6, POSITIONS - 6):
        sampling = Sampling(budget, (3,))
        same(engine.generate(REQUESTS, sampling), NativeEngine(model, slots=4).generate(REQUESTS, sampling))


@pytest.mark.parametrize(("recorder", "reason"), [(Stale(), "differs by"), (Broken(), "not permitted")])
def test_a_recording_that_fails_or_differs_is_given_up_and_said(recorder, reason, caplog):
    model, sampling = make("gpt2"), Sampling(8, (3,))
    engine = NativeEngine(model, slots=4, recorder=recorder)
    with caplog.at_level(logging.WARNING):
        same(engine.generate(REQUESTS, sampling), NativeEngine(model, slots=4).generate(REQUESTS, sampling))
    assert reason in caplog.text and "recording a step failed" in caplog.text
    assert "and more" not in caplog.text
