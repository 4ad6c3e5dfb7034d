"""Simulated step markers."""

import random

import pytest

from assent.feedback.markers import SimulatedMarker
from assent.records import Rating

G, N, B = Rating.GOOD, Rating.NEUTRAL, Rating.BAD


def test_without_noise_it_says_what_is_so_and_stops_at_the_first_error():
    marker = SimulatedMarker("m", 0.0, 0.0)
    assert marker.label([G, N, B, G, B], rng=random.Random(0)) == (G, N, B, None, None)
    assert SimulatedMarker("m", 0.0, 0.0, stops=False).label([G, B, G], rng=random.Random(0)) == (G, B, G)


def test_it_errs_as_often_as_it_says():
    marker, rng = SimulatedMarker("m", overlooks=0.2, doubts=0.1, stops=False), random.Random(1)
    said = [marker.label([B, G], rng=rng) for _ in range(4000)]
    assert sum(s[0] is G for s in said) / 4000 == pytest.approx(0.2, abs=0.02)
    assert sum(s[1] is B for s in said) / 4000 == pytest.approx(0.1, abs=0.02)


def test_a_state_gives_one_answer_and_a_draw_is_made_for_every_step():
    one, two = random.Random(3), random.Random(3)
    SimulatedMarker("m", doubts=1.0).label([G, G, G], rng=one)
    for _ in range(3):
        two.random()
    assert one.random() == two.random()


@pytest.mark.parametrize("field", ["overlooks", "doubts"])
def test_what_is_no_probability_is_refused(field):
    with pytest.raises(ValueError, match=field):
        SimulatedMarker("m", **{field: 1.2})
