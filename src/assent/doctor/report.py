"""Running checks and telling what they found."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from assent.errors import CheckFailed

CheckName = Literal["D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D11"]

TITLES: Mapping[CheckName, str] = {
    "D1": "the update's log-probabilities are the old ones, so the ratio starts at 1",
    "D2": "padding, order and neighbours change no log-probability, value or score",
    "D3": "the engine samples from the distribution that is scored",
    "D4": "the engine holds the learner's weights and follows every change of them",
    "D5": "the KL to the reference starts at 0",
    "D6": "the score is read from the end of the response",
    "D7": "micro-batches and padding do not change the gradient",
    "D8": "prompt, response, mask and end token are where they should be",
    "D11": "a saved model, loaded in a new process, gives the same numbers",
}

NOISE: Mapping[torch.dtype, float] = {
    torch.float64: 1e-8,
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
"""Largest difference put down to rounding, in nats or relative to numbers above 1, when the same number is computed in
another order. Ours, measured: float32 differs by about 1e-6 in small models and 1e-5 in large ones; bfloat16 keeps 8
bits, which alone moves 8% of the ratios out of [0.9, 1.1] (trl#6789)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check that passed has measured.

    Args:
        figure: the number that was compared.
        tolerance: what it may be at most; None for a figure that is only reported.
        detail: in words, for who reads the report.
    """

    figure: float
    tolerance: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Check:
    """A check that can be run; `run` raises `CheckFailed` when the set-up must be refused."""

    name: CheckName
    run: Callable[[], Finding]


Outcome = Literal["passed", "failed", "skipped", "running", "earlier"]
"""`earlier`: an earlier stage of this run has passed it for the same configuration."""


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report; figure and tolerance are None where nothing was measured."""

    name: CheckName
    outcome: Outcome
    figure: float | None
    tolerance: float | None
    seconds: float
    detail: str

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "title": TITLES[self.name],
            "outcome": self.outcome,
            "figure": self.figure,
            "tolerance": self.tolerance,
            "seconds": round(self.seconds, 3),
            "detail": self.detail,
        }


def skipped(name: CheckName, detail: str) -> Result:
    return Result(name, "skipped", None, None, 0.0, detail)


def run(
    checks: Sequence[Check],
    skip: Sequence[CheckName],
    record: Callable[[list[Result]], None],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Result]:
    """Run the checks in order; one that is skipped is recorded as such.

    Args:
        skip: names not to run.
        record: is given the results so far, also before a refusal.

    Raises:
        CheckFailed: the first check that fails.
    """
    results: list[Result] = []
    for check in checks:
        if check.name in skip:
            results.append(skipped(check.name, "by the recipe (skip_checks)"))
            continue
        start = clock()
        try:
            found = check.run()
        except CheckFailed as error:
            results.append(Result(check.name, "failed", None, None, clock() - start, str(error)))
            record(results)
            raise
        seconds = clock() - start
        results.append(Result(check.name, "passed", found.figure, found.tolerance, seconds, found.detail))
    record(results)
    return results


def refusal(name: CheckName, *, got: str, why: str, causes: Sequence[str]) -> CheckFailed:
    """The error of a failed check: what was found, why it matters, the likely causes first to last.

    Args:
        causes: in plain language, the most frequent first, each with its remedy.
    """
    numbered = "".join(f"\n    {n}. {cause}" for n, cause in enumerate(causes, 1))
    return CheckFailed(
        f"first-batch check {name} failed: {TITLES[name]}",
        got=got,
        why=why,
        fix=f"likely causes:{numbered}\n    If this is meant, `skip_checks: [{name}]` goes on; the skip is recorded.",
    )


def summary(results: Sequence[Result]) -> str:
    """One line, such as `first batch: 8 checks passed in 3.2 s`."""
    by: dict[Outcome, list[str]] = {o: [r.name for r in results if r.outcome == o] for o in get_args(Outcome)}
    passed = len(by["passed"])
    line = f"first batch: {passed} {'check' if passed == 1 else 'checks'} passed"
    line += f" in {sum(r.seconds for r in results):.1f} s"
    if by["skipped"]:
        line += f"; skipped: {', '.join(by['skipped'])}"
    if by["running"]:
        line += f"; {', '.join(by['running'])} runs beside the training"
    if by["earlier"]:
        line += f"; {', '.join(by['earlier'])} passed in an earlier stage"
    return line
