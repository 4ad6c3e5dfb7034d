"""The controller of the KL coefficient."""

import math

from assent.functional import _guards

MAX_ERROR = 0.2


def adaptive_kl(coefficient: float, observed_kl: float, *, target: float, horizon: float, episodes: float) -> float:
    """coefficient * (1 + clip(observed_kl / target - 1, -.2, .2) * episodes / horizon).

    Args:
        coefficient: the one in use, not negative.
        observed_kl: nats per *sequence*: batch mean of the sum over tokens of logprobs - ref_logprobs. May be
            negative by chance.
        target: nats per sequence, positive; it depends on the length of responses (6 nats over 24 tokens in the paper).
        horizon: in episodes, positive; 10000 in the paper's code.
        episodes: how many the observation is from, positive; below 5 horizons, else the coefficient could reach 0.

    Returns:
        The next coefficient.

    Raises:
        ValueError: a number out of its range, or not finite.

    Source: Ziegler et al. 2019 (arXiv 1909.08593), openai/lm-human-preferences.
    """
    _guards.number("coefficient", coefficient, low=0.0, high=math.inf, open_high=True)
    _guards.number("observed_kl", observed_kl, low=-math.inf, high=math.inf, open_low=True, open_high=True)
    _guards.number("target", target, low=0.0, open_low=True, open_high=True)
    _guards.number("horizon", horizon, low=0.0, open_low=True, open_high=True)
    _guards.number("episodes", episodes, low=0.0, high=horizon / MAX_ERROR, open_low=True, open_high=True)
    error = min(max(observed_kl / target - 1.0, -MAX_ERROR), MAX_ERROR)
    return coefficient * (1.0 + error * episodes / horizon)
