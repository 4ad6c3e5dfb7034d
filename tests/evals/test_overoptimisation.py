import itertools
import json
import math

import numpy as np
import pytest

from assent.errors import DataError
from assent.evals.overoptimisation import (
    CurvePoint,
    Overoptimisation,
    best_of_n_points,
    find,
    gold_at_equal_kl,
    overoptimisation,
    stretches,
)

KL = np.linspace(0.0, 26.0, 14)
DISTANCE = np.sqrt(KL)


def curve(proxy, gold, error=None):
    rows = zip(KL, proxy, gold, strict=True)
    return [CurvePoint(10 * i, float(k), float(p), float(g), error) for i, (k, p, g) in enumerate(rows)]


def test_flags_the_curve_of_gao_et_al():
    gold = DISTANCE * (1.0 - 0.28 * DISTANCE)
    finding = find(curve(0.9 * DISTANCE, gold, 0.05))
    assert finding.overoptimised and "Over-optimisation" in finding.text
    assert finding.peak_kl == pytest.approx((1 / 0.56) ** 2, abs=1.5)  # d* = a / 2b
    assert f"since step {finding.peak_step}" in finding.text
    assert find(curve(0.9 * DISTANCE, gold)).overoptimised  # and with the noise read off the curve


def test_silent_while_gold_rises():
    assert not find(curve(0.9 * DISTANCE, 0.5 * DISTANCE, 0.05)).overoptimised
    assert not find(curve(0.9 * DISTANCE, 0.5 * DISTANCE)).overoptimised


def test_seldom_flags_noise_on_a_plateau():
    rng = np.random.default_rng(0)
    known, unknown, runs = 0, 0, 400
    for _ in range(runs):
        gold = np.minimum(DISTANCE, 2.0) + rng.normal(0, 0.1, len(KL))
        known += find(curve(DISTANCE, gold, 0.1)).overoptimised
        unknown += find(curve(DISTANCE, gold)).overoptimised
    assert known / runs < 0.08 and unknown / runs < 0.15


def test_noise_is_read_off_the_curve():
    """On a smooth curve with noise .1, luck explains z sqrt(2) .1, as if the standard errors had been given."""
    rng = np.random.default_rng(1)
    x = np.linspace(0, 4, 400)
    gold = x * (2 - x / 4) + rng.normal(0, 0.1, 400)
    rows = [(i, float(k), float(k), float(g)) for i, (k, g) in enumerate(zip(x, gold, strict=True))]
    estimated = find([CurvePoint(*row) for row in rows]).noise
    known = find([CurvePoint(*row, 0.1) for row in rows]).noise
    assert estimated == pytest.approx(known, rel=0.12)


def test_a_fall_of_both_is_called_instability():
    gold = np.where(KL > 15, -1.0, DISTANCE)
    finding = find(curve(gold, gold, 0.05))
    assert not finding.overoptimised and "unstable" in finding.text


def test_too_little_is_refused():
    with pytest.raises(DataError, match="two or more"):
        find([CurvePoint(0, 0.0, 0.0, 0.0)])
    with pytest.raises(DataError, match="standard errors"):
        find([CurvePoint(0, 0.0, 0.0, 0.0), CurvePoint(1, 0.1, 0.2, 0.3)])


def test_best_of_n_is_the_enumeration():
    rng = np.random.default_rng(1)
    proxy, gold = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    points = best_of_n_points(proxy, gold, [1, 2, 4])
    for point in points:
        picks = [
            gold[p][max(subset, key=lambda i: proxy[p][i])]
            for p in range(3)
            for subset in itertools.combinations(range(6), point.n)
        ]
        assert point.gold.value == pytest.approx(np.mean(picks))
    assert points[0].kl == 0.0 and points[2].kl == pytest.approx(np.log(4) - 0.75)
    halfway = gold_at_equal_kl(points, (points[1].kl + points[2].kl) / 2)
    assert halfway == pytest.approx((points[1].gold.value + points[2].gold.value) / 2)
    assert gold_at_equal_kl(points, 3.0) is None
    with pytest.raises(DataError, match="same samples"):
        best_of_n_points(proxy, gold[:2], [1])


def test_json_round_trip():
    points = best_of_n_points(np.eye(4), np.eye(4), [1, 2])
    whole = overoptimisation(curve(DISTANCE, DISTANCE, 0.1)[::-1], best_of_n=points, judge="the held-out reward model")
    assert whole.points[0].step == 0
    assert Overoptimisation.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_stretches_are_means_over_equal_numbers_of_steps_with_their_errors():
    points = [CurvePoint(i, float(i), 2.0 * i, 10.0 - i) for i in range(6)]
    one, two = stretches(points, most=2)
    assert (one.step, one.kl, one.proxy, one.gold) == (2, 1.0, 2.0, 9.0)
    assert (two.step, two.kl, two.proxy, two.gold) == (5, 4.0, 8.0, 6.0)
    assert one.gold_error == pytest.approx(1 / math.sqrt(3)) and two.proxy_error == pytest.approx(2 / math.sqrt(3))
    assert stretches(points, most=99) == tuple(points)
