"""Win rate with the pull of length taken out: what it would be if both sides wrote equally long responses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from assent.errors import NonFiniteError
from assent.evals.intervals import (
    LEVEL,
    Floats,
    Interval,
    bootstrap_weights,
    check_rows,
    cluster_numbers,
    percentile_interval,
)
from assent.evals.win_rate import outcomes

LENGTH_PRIOR = 0.04
"""Weight of the penalty 0.5 w phi^2, a normal prior on phi with deviation 5. AlpacaEval regularises too, with an L1
term chosen by cross-validation; a fixed weak one keeps the fit finite when the longer response always wins, and
nothing more."""

RARE = 0.05
"""Share of pairs below which one side of equal length counts as unseen; ours."""

RESAMPLES = 500
"""Refits of the bootstrap; FastChat's leaderboard uses 100."""


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A length-controlled win rate.

    Args:
        rate: sigma(theta): the rate at no difference of length.
        interval: bootstrap over prompts, the whole fit repeated.
        length_effect: phi, in log-odds; positive when the judge favours the longer response beyond what the policy's
            quality explains. A difference of one standard deviation is worth 0.76 phi.
        policy_length: mean, in the caller's unit.
        baseline_length: mean, in the caller's unit.
        prompts: distinct prompts.
        extrapolated: fewer than 5 % of the pairs lie on either side of equal length, so the rate at equal length is a
            guess from the model's form rather than something seen.
    """

    rate: float
    interval: Interval
    length_effect: float
    policy_length: float
    baseline_length: float
    prompts: int
    extrapolated: bool

    @property
    def evidence(self) -> str:
        note = ", extrapolated: hardly any pair is equally long" if self.extrapolated else ""
        return f"{self.prompts} prompts, length-controlled{note}"


def length_controlled(
    policy_scores: ArrayLike,
    baseline_scores: ArrayLike,
    policy_lengths: ArrayLike,
    baseline_lengths: ArrayLike,
    prompt_ids: Sequence[str],
    *,
    tie_width: float = 0.0,
    level: float = LEVEL,
    seed: int = 0,
) -> LengthControlled:
    """P(win) = sigma(theta + phi tanh(d / std d)), d the difference of lengths; the answer is sigma(theta).

    A tie is half a win. One imaginary tie at d = 0 keeps theta finite for an undefeated policy. Exchanging the two
    sides gives exactly one minus the rate.

    Differs from its source in two ways: no term for the difficulty of a prompt, which takes many models to estimate,
    and a fixed weak normal prior on phi in place of a cross-validated L1 penalty.

    Args:
        policy_scores, baseline_scores, policy_lengths, baseline_lengths, prompt_ids: [n], paired by row.

    Raises:
        DataError: columns differ in length, are empty, or hold a number that is not finite.
        NonFiniteError: the fit did not converge.

    Source: Dubois et al. 2024 (arXiv 2404.04475), length-controlled AlpacaEval.
    """
    columns = {
        "policy_scores": np.asarray(policy_scores, dtype=np.float64),
        "baseline_scores": np.asarray(baseline_scores, dtype=np.float64),
        "policy_lengths": np.asarray(policy_lengths, dtype=np.float64),
        "baseline_lengths": np.asarray(baseline_lengths, dtype=np.float64),
    }
    check_rows(**columns, prompt_ids=prompt_ids)
    won = outcomes(columns["policy_scores"], columns["baseline_scores"], tie_width=tie_width)
    difference = columns["policy_lengths"] - columns["baseline_lengths"]
    spread = float(difference.std())
    term = np.tanh(difference / spread) if spread > 0 else np.zeros_like(difference)
    whole = fit_logistic(term, won, np.ones((1, len(won))))
    number = cluster_numbers(prompt_ids)
    clusters = int(number.max()) + 1
    weights = bootstrap_weights(clusters, resamples=RESAMPLES, seed=seed)[:, number]
    draws = fit_logistic(term, won, weights, start=whole[0])
    return LengthControlled(
        rate=float(_sigmoid(whole[0, 0])),
        interval=percentile_interval(_sigmoid(draws[:, 0]), level),
        length_effect=float(whole[0, 1]),
        policy_length=float(columns["policy_lengths"].mean()),
        baseline_length=float(columns["baseline_lengths"].mean()),
        prompts=clusters,
        extrapolated=bool(spread > 0 and min((difference >= 0).mean(), (difference <= 0).mean()) < RARE),
    )


def fit_logistic(term: Floats, won: Floats, weights: Floats, *, start: Floats | None = None) -> Floats:
    """Newton's method for (theta, phi) of many weightings of the same rows at once.

    Args:
        term: [n], what phi multiplies.
        won: [n], targets in [0, 1].
        weights: [R, n].
        start: [2], where every fit begins; zeros by default.

    Returns:
        [R, 2].

    Raises:
        NonFiniteError: no convergence within 100 steps.
    """
    coefficients = np.tile(np.zeros(2) if start is None else start, (len(weights), 1))
    for _ in range(100):
        chance = _sigmoid(coefficients[:, :1] + coefficients[:, 1:] * term)
        residual = weights * (won - chance)
        curvature = weights * chance * (1 - chance)
        imagined = _sigmoid(coefficients[:, 0])  # the tie at no difference of length, which phi does not touch
        slope_0 = residual.sum(1) + 0.5 - imagined
        slope_1 = residual @ term - LENGTH_PRIOR * coefficients[:, 1]
        bend_00 = curvature.sum(1) + imagined * (1 - imagined)
        bend_01 = curvature @ term
        bend_11 = curvature @ np.square(term) + LENGTH_PRIOR
        determinant = bend_00 * bend_11 - np.square(bend_01)
        step = (
            np.stack([bend_11 * slope_0 - bend_01 * slope_1, bend_00 * slope_1 - bend_01 * slope_0], axis=1)
            / determinant[:, None]
        )
        # Far from the optimum a full Newton step of a logistic fit can overshoot for good.
        coefficients = coefficients + step.clip(-2.0, 2.0)
        if float(np.abs(step).max()) < 1e-9:
            return coefficients
    raise NonFiniteError(
        "the length-controlled win rate did not converge",
        got=f"largest last step {float(np.abs(step).max()):.3g} log-odds",
        why="an unconverged fit is not the win rate it claims to be",
        fix="check scores and lengths for constants or extreme outliers; fall back on the raw win rate",
    )


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * x))
