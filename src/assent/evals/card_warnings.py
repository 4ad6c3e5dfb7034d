"""What a reader of the report card should be told in plain words."""

from collections.abc import Iterator
from dataclasses import dataclass

from assent.evals.calibration import Calibration
from assent.evals.ceiling import NoiseCeiling
from assent.evals.intervals import Estimate

LENGTH_CORRELATION = 0.3
"""|r| of score gap and length gap from which scores are said to follow length; Cohen's (1988) medium effect."""

CALIBRATION_EXCESS = 0.05
"""Calibration error above its noise floor from which gaps should not be read as probabilities; ours."""

LOW_GOLD = 0.6
"""Accuracy against gold under which optimisation is more likely to mislead than to help; ours."""

WIDE = 0.05
"""Half-width of the accuracy interval from which more held-out pairs are asked for; ours."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The figures that warnings are drawn from."""

    accuracy: Estimate
    near_ties: Estimate | None
    length_matched: Estimate
    gap_length_correlation: float | None
    model_prefers_longer: Estimate
    people_prefer_longer: Estimate
    calibration: Calibration | None
    ceiling: NoiseCeiling | None
    gold_accuracy: Estimate | None
    equal_scores: float


def card_warnings(findings: Findings) -> tuple[str, ...]:
    """Sentences, most serious first."""
    return (
        *_broken(findings),
        *_length(findings),
        *_ceiling(findings),
        *_calibration(findings),
        *_near_ties(findings),
        *_size(findings),
    )


def _broken(f: Findings) -> Iterator[str]:
    accuracy = f.accuracy
    if f.equal_scores > 0.01:
        yield (
            f"{100 * f.equal_scores:.1f} % of the ordered pairs get exactly equal scores: the score may be read at a "
            f"token that both responses share, such as the end of the prompt."
        )
    if accuracy.interval is not None and 0.5 in accuracy.interval:
        yield "Accuracy cannot be told from guessing: do not optimise against this reward model."
    if accuracy.interval is not None and accuracy.interval.high < 0.5:
        yield "Accuracy is below chance: preferred and rejected are probably exchanged somewhere."
    if f.gold_accuracy is not None and f.gold_accuracy.value is not None and f.gold_accuracy.value < LOW_GOLD:
        yield (
            f"The model orders only {_percent(f.gold_accuracy.value)} of the pairs as gold does: expect "
            f"over-optimisation early, keep the KL to the reference small."
        )


def _length(f: Findings) -> Iterator[str]:
    r = f.gap_length_correlation
    longer, people = f.model_prefers_longer.value, f.people_prefer_longer.value
    if r is not None and abs(r) >= LENGTH_CORRELATION:
        shares = ""
        if longer is not None and people is not None:
            shares = (
                f"; it prefers the longer response in {_percent(longer)} of the pairs, annotators in {_percent(people)}"
            )
        yield f"Score follows length: r = {r:.2f} between the gaps{shares}. Watch response length in training."
    matched, whole = f.length_matched.interval, f.accuracy.value
    if matched is not None and whole is not None and matched.high < whole:
        yield (
            f"On length-matched pairs accuracy is {_percent(f.length_matched.value)} against {_percent(whole)} "
            f"overall: part of what looks like judgement is length."
        )


def _ceiling(f: Findings) -> Iterator[str]:
    if f.ceiling is None or f.accuracy.interval is None:
        return
    if f.accuracy.interval.low > f.ceiling.accuracy:
        yield (
            f"Accuracy is above the noise ceiling of {_percent(f.ceiling.accuracy)}, which no honest model can be: "
            f"look for training pairs among the held-out ones, or for a ceiling measured on other annotators."
        )


def _calibration(f: Findings) -> Iterator[str]:
    c = f.calibration
    if c is not None and c.expected_error - c.noise_floor > CALIBRATION_EXCESS:
        way = "too sure of itself" if c.overconfidence > 0 else "not sure enough of itself"
        yield (
            f"The model is {way}: calibration error {c.expected_error:.3f}, of which {c.noise_floor:.3f} is chance. "
            f"Order still holds; do not read gaps as probabilities."
        )


def _near_ties(f: Findings) -> Iterator[str]:
    if f.near_ties is not None and f.near_ties.value is not None and f.near_ties.value < 0.65:
        yield (
            f"{_percent(f.near_ties.value)} on pairs called negligibly better: about 55 % on near-ties is normal "
            f"(Llama 2, table 8)."
        )


def _size(f: Findings) -> Iterator[str]:
    interval = f.accuracy.interval
    if interval is not None and (interval.high - interval.low) / 2 > WIDE:
        yield (
            f"Accuracy is known only to within {100 * (interval.high - interval.low) / 2:.0f} points: hold out more "
            f"prompts ({f.accuracy.clusters} now)."
        )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
