"""The adaptive KL controller: its published numbers, its fixed point, its refusals."""

import pytest

from assent.functional.control import adaptive_kl


@pytest.mark.parametrize(
    ("observed", "factor"),
    [
        (60.0, 1 + 0.2 * 512 / 10000),
        (7.2, 1 + 0.2 * 512 / 10000),
        (6.6, 1 + 0.1 * 512 / 10000),
        (6.0, 1.0),
        (5.7, 1 - 0.05 * 512 / 10000),
        (0.0, 1 - 0.2 * 512 / 10000),
        (-3.0, 1 - 0.2 * 512 / 10000),
    ],
)
def test_by_hand(observed, factor):
    got = adaptive_kl(0.15, observed, target=6.0, horizon=10000, episodes=512)
    assert got == pytest.approx(0.15 * factor, rel=1e-12)


def test_it_drives_kl_to_its_target():
    coefficient = 0.2
    for _ in range(400):  # a world where KL falls with the coefficient: kl = .6 / coefficient
        coefficient = adaptive_kl(coefficient, 0.6 / coefficient, target=6.0, horizon=1000, episodes=256)
    assert coefficient == pytest.approx(0.1, rel=1e-3)


GOOD = {"coefficient": 0.1, "observed_kl": 1.0, "target": 6.0, "horizon": 100.0, "episodes": 10}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coefficient", -0.1),
        ("observed_kl", float("nan")),
        ("observed_kl", float("inf")),
        ("target", 0.0),
        ("horizon", -1.0),
        ("horizon", 0.0),
        ("episodes", 0),
        ("episodes", 500),
    ],
)
def test_refuses(name, value):
    with pytest.raises(ValueError, match=rf"{name} is outside .*\n  got: .*\n  fix: "):
        adaptive_kl(**GOOD | {name: value})
