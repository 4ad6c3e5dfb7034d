"""Ratings of an arena against closed forms, an independent fit, and votes drawn from known strengths."""

import math
import random

import numpy as np
import pytest
import torch

from assent.errors import DataError
from assent.feedback.strengths import CENTRE, POINTS, Vote, fitted, ratings


def drawn(strengths, count, seed):
    draw = random.Random(seed)
    names = sorted(strengths)
    for i in range(count):
        a, b = draw.sample(names, 2)
        wins = draw.random() < 1 / (1 + math.exp((strengths[b] - strengths[a]) / POINTS))
        yield Vote(a, b, 0.5 if draw.random() < 0.1 else float(wins), str(i))


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (3, 1), (10, 10), (50, 2)])
def test_two_policies_have_a_closed_form(wins, losses):
    votes = [Vote("a", "b", 1.0, f"{i}") for i in range(wins)] + [Vote("a", "b", 0.0, f"-{i}") for i in range(losses)]
    rated = {r.policy: r.rating for r in ratings(votes, resamples=10)}
    assert rated["a"] - rated["b"] == pytest.approx(400 * math.log10((wins + 0.5) / (losses + 0.5)), abs=1e-6)
    assert rated["a"] + rated["b"] == pytest.approx(2 * CENTRE)


def test_the_fit_is_that_of_another_optimiser():
    won = np.random.default_rng(3).integers(0, 9, (1, 4, 4)).astype(float)
    won[0][np.diag_indices(4)] = 0
    full = torch.tensor(won[0] + 0.5 * (1 - np.eye(4)))
    theta = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([theta], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        found = (full * torch.nn.functional.softplus(theta[None, :] - theta[:, None])).sum() + theta.sum() ** 2
        found.backward()
        return found

    optimiser.step(loss)
    best = theta.detach().numpy()
    assert fitted(won)[0] == pytest.approx(CENTRE + POINTS * (best - best.mean()), abs=1e-2)


def test_it_does_not_matter_who_is_named_first_and_a_tie_is_two_halves():
    votes = list(drawn({"a": 1000, "b": 1100, "c": 900}, 60, 1))
    turned = [Vote(v.second, v.first, 1 - v.share, v.dialogue) for v in votes]
    assert ratings(votes, resamples=50) == ratings(turned, resamples=50)


def test_intervals_hold_what_was_drawn_from_about_as_often_as_they_say():
    truth, held, count = {"a": 900.0, "b": 1000.0, "c": 1100.0}, 0, 40
    for seed in range(count):
        for r in ratings(drawn(truth, 300, seed), resamples=200, seed=seed):
            # Ties come from nowhere in this draw and pull one in ten halfway, so strengths are a little nearer.
            held += r.interval.low - 12 <= truth[r.policy] <= r.interval.high + 12
    assert held / (3 * count) > 0.9


def test_votes_of_one_dialogue_are_one_piece_of_luck():
    apart = [Vote("a", "b", float(i % 3 > 0), str(i)) for i in range(60)]
    together = [
        Vote(v.first, v.second, v.share, str(i // 15)) for i, v in enumerate(sorted(apart, key=lambda v: v.share))
    ]
    wide, narrow = ratings(together)[0].interval, ratings(apart)[0].interval
    assert wide.high - wide.low > narrow.high - narrow.low
    assert ratings([Vote("a", "b", 1.0, "x")] * 5)[0].interval is None
    with pytest.raises(DataError, match="no votes"):
        ratings([])
