"""Win, tie and loss of a policy against a baseline, with an interval, and the verdict in a plain sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from assent.evals.intervals import (
    LEVEL,
    Estimate,
    Floats,
    Interval,
    check_rows,
    mean_interval,
    share_estimate,
    wilson,
)

EVEN = 0.5
"""The win rate of a model against its equal."""


class Rated(Protocol):
    """A win rate that a verdict can be given on: of one run, over seeds, or length-controlled."""

    @property
    def rate(self) -> float: ...
    @property
    def interval(self) -> Interval: ...
    @property
    def evidence(self) -> str: ...


@dataclass(frozen=True, slots=True)
class WinRate:
    """Counts of comparisons and the interval of the rate they give.

    Args:
        win: comparisons that the policy won.
        tie: neither was better.
        loss: comparisons that the baseline won.
        interval: of `rate`.
        prompts: distinct prompts, which are the independent units.
    """

    win: int
    tie: int
    loss: int
    interval: Interval
    prompts: int

    @classmethod
    def of_counts(cls, win: int, tie: int, loss: int, *, level: float = LEVEL) -> "WinRate":
        """From counts alone, one comparison per prompt: Wilson's interval, slightly too wide where there are ties.

        Raises:
            DataError: there are no comparisons.
        """
        total = win + tie + loss
        return cls(win, tie, loss, wilson(win + tie / 2, total, level=level), total)

    @property
    def comparisons(self) -> int:
        return self.win + self.tie + self.loss

    @property
    def rate(self) -> float:
        """Share won, a tie counting half."""
        return (self.win + self.tie / 2) / self.comparisons

    @property
    def evidence(self) -> str:
        return f"{self.prompts} prompts"


@dataclass(frozen=True, slots=True)
class SeedRate:
    """The win rate of a method over independent runs."""

    rate: float
    interval: Interval
    seeds: int

    @property
    def evidence(self) -> str:
        return f"{self.seeds} seeds"


@dataclass(frozen=True, slots=True)
class Judge:
    """Who gave the scores of a comparison.

    Args:
        name: as a reader should see it, such as "the gold judgement" or "a held-out reward model".
        trained_on: the policy was trained on this judge's very scores, so a win shows optimisation, not quality.
    """

    name: str
    trained_on: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evaluation shows.

    Args:
        text: one or two plain sentences.
        improved: True or False where the evidence says so; None where there is no evidence either way.
    """

    text: str
    improved: bool | None


@dataclass(frozen=True, slots=True)
class KindRow:
    """One slice of the comparison: the mean scores of both sides and who won."""

    kind: str
    policy_score: float
    baseline_score: float
    win_rate: WinRate


def outcomes(policy_scores: ArrayLike, baseline_scores: ArrayLike, *, tie_width: float = 0.0) -> Floats:
    """1 where the policy scores higher by more than `tie_width`, 0 where the baseline does, 0.5 for a tie, [n]."""
    gap = np.asarray(policy_scores, dtype=np.float64) - np.asarray(baseline_scores, dtype=np.float64)
    return np.where(np.abs(gap) <= tie_width, 0.5, np.where(gap > 0, 1.0, 0.0))


def compare(
    policy_scores: ArrayLike,
    baseline_scores: ArrayLike,
    prompt_ids: Sequence[str],
    *,
    tie_width: float = 0.0,
    level: float = LEVEL,
) -> WinRate:
    """Row by row, whose response one judge scored higher.

    Args:
        policy_scores: [n], the judge's score of the policy's response.
        baseline_scores: [n], of the baseline's response to the same prompt.
        prompt_ids: [n]; rows of one prompt share its luck and count together in the interval.
        tie_width: scores this close are a tie, in score units.

    Raises:
        DataError: lengths differ, nothing is given, or a score is not finite.
    """
    policy, baseline = np.asarray(policy_scores, dtype=np.float64), np.asarray(baseline_scores, dtype=np.float64)
    check_rows(policy_scores=policy, baseline_scores=baseline, prompt_ids=prompt_ids)
    return of_outcomes(outcomes(policy, baseline, tie_width=tie_width), prompt_ids, level=level)


def of_outcomes(won: ArrayLike, prompt_ids: Sequence[str], *, level: float = LEVEL) -> WinRate:
    """From whose response was preferred, row by row.

    Args:
        won: [n], 1 where the policy's was, 0 where the baseline's was, 0.5 for a tie.
        prompt_ids: [n]; rows of one prompt share its luck and count together in the interval.

    Raises:
        DataError: lengths differ, or nothing is given.
    """
    result = np.asarray(won, dtype=np.float64)
    check_rows(won=result, prompt_ids=prompt_ids)
    estimate = share_estimate(result, prompt_ids, level=level)
    assert estimate.interval is not None  # rows were counted above
    win, loss = int((result == 1.0).sum()), int((result == 0.0).sum())
    return WinRate(win, len(result) - win - loss, loss, estimate.interval, estimate.clusters)


def compare_kinds(
    policy_scores: ArrayLike,
    baseline_scores: ArrayLike,
    prompt_ids: Sequence[str],
    kinds: Sequence[str],
    *,
    tie_width: float = 0.0,
    level: float = LEVEL,
) -> tuple[KindRow, ...]:
    """`compare` for each kind of prompt, in alphabetical order.

    The intervals are per kind and uncorrected: of twenty slices, one is expected outside its own by luck alone.

    Raises:
        DataError: as `compare`.
    """
    policy, baseline = np.asarray(policy_scores, dtype=np.float64), np.asarray(baseline_scores, dtype=np.float64)
    check_rows(policy_scores=policy, baseline_scores=baseline, prompt_ids=prompt_ids, kinds=kinds)
    rows = []
    for kind in sorted(set(kinds)):
        kept = [i for i, k in enumerate(kinds) if k == kind]
        rate = compare(
            policy[kept],
            baseline[kept],
            [prompt_ids[i] for i in kept],
            tie_width=tie_width,
            level=level,
        )
        rows.append(KindRow(kind, float(policy[kept].mean()), float(baseline[kept].mean()), rate))
    return tuple(rows)


def lost_kinds(
    policy_scores: ArrayLike,
    baseline_scores: ArrayLike,
    prompt_ids: Sequence[str],
    kinds: Sequence[str],
    *,
    tie_width: float = 0.0,
    level: float = LEVEL,
) -> tuple[KindRow, ...]:
    """The kinds of prompt on which the policy loses to the baseline, whatever all kinds together say.

    The intervals hold for all kinds at once (Bonferroni: each has the level 1 - (1 - `level`) / kinds), so that a
    policy that is no worse anywhere is charged with a loss in at most a share 1 - `level` of evaluations. A single kind
    has nothing to add to the whole.

    Raises:
        DataError: as `compare`.
    """
    if len(set(kinds)) == 1:
        return ()
    each = 1 - (1 - level) / max(1, len(set(kinds)))
    rows = compare_kinds(policy_scores, baseline_scores, prompt_ids, kinds, tie_width=tie_width, level=each)
    return tuple(row for row in rows if row.win_rate.interval.high < EVEN)


def over_seeds(rates: Sequence[float], *, level: float = LEVEL) -> SeedRate:
    """The mean win rate of independent runs and its t interval, cut to [0, 1].

    Raises:
        DataError: fewer than two runs.
    """
    estimate: Estimate = mean_interval(rates, level=level)
    assert estimate.value is not None and estimate.interval is not None
    low, high = max(0.0, estimate.interval.low), min(1.0, estimate.interval.high)
    return SeedRate(estimate.value, Interval(low, high, level), len(rates))


def verdict(
    result: Rated,
    judge: Judge,
    *,
    policy: str = "the policy",
    baseline: str = "the baseline",
    lost: Sequence[KindRow] = (),
) -> Verdict:
    """What a win rate shows, in words.

    A win by the judge that the policy was trained on is no evidence of quality: `improved` is then None. Kinds of
    prompt on which the policy loses (`lost_kinds`) are named after it: a mean hides them.
    """
    overall = _overall(result, judge, policy, baseline)
    if not lost:
        return overall
    named = ", ".join(
        f"{row.kind or 'prompts of no kind'} (win rate {percent(row.win_rate.rate)}, {row.win_rate.evidence})"
        for row in lost
    )
    return Verdict(f"{overall.text} It loses on {named}.", overall.improved)


def _overall(result: Rated, judge: Judge, policy: str, baseline: str) -> Verdict:
    interval = result.interval
    figures = f"win rate {percent(result.rate)} ({percent_range(interval)}, {result.evidence}) by {judge.name}"
    if EVEN in interval:
        text = f"No evidence of improvement: {policy} against {baseline}, {figures}."
        return Verdict(_sentence(text), None)
    if interval.high < EVEN:
        return Verdict(_sentence(f"{policy} is worse than {baseline}: {figures}."), False)
    if judge.trained_on:
        text = (
            f"{policy} scores higher than {baseline}: {figures}. This is the score it was trained on: it shows that "
            f"optimisation worked, not that responses are better. Ask a held-out judge."
        )
        return Verdict(_sentence(text), None)
    return Verdict(_sentence(f"{policy} is better than {baseline}: {figures}."), True)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def percent_range(interval: Interval) -> str:
    return f"{interval.level:.0%} interval {100 * interval.low:.1f}–{100 * interval.high:.1f} %".replace("%", " %", 1)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
