"""Agreement coefficients: published examples, and the definitions written out slowly."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from assent.data.formats import Votes
from assent.errors import DataError
from assent.feedback.agreement import agreement, gwet, identity, linear, ordinal, quadratic
from assent.feedback.ratings import Ratings, pair_ratings
from assent.records import Comparison, Degree, Preference

_ = None
KRIPPENDORFF = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3),
    (_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _),
)
"""Four observers, twelve units, with gaps: Krippendorff 2011, Computing Krippendorff's alpha-reliability, section C."""

FLEISS = (
    (0, 0, 0, 6, 0), (0, 3, 0, 0, 3), (0, 1, 4, 0, 1), (0, 0, 0, 0, 6), (0, 3, 0, 3, 0), (2, 0, 4, 0, 0),
    (0, 0, 4, 0, 2), (2, 0, 3, 1, 0), (2, 0, 0, 4, 0), (0, 0, 0, 0, 6), (1, 0, 0, 5, 0), (1, 1, 0, 4, 0),
    (0, 3, 3, 0, 0), (1, 0, 0, 5, 0), (0, 2, 0, 3, 1), (0, 0, 5, 0, 1), (3, 0, 0, 1, 2), (5, 1, 0, 0, 0),
    (0, 2, 0, 4, 0), (1, 0, 2, 0, 3), (0, 0, 0, 0, 6), (0, 1, 0, 5, 0), (0, 2, 0, 1, 3), (2, 0, 0, 4, 0),
    (1, 0, 0, 4, 1), (0, 5, 0, 1, 0), (4, 0, 0, 0, 2), (0, 2, 0, 4, 0), (1, 0, 5, 0, 0), (0, 0, 0, 0, 6),
)  # fmt: skip
"""Thirty patients, six psychiatrists, five diagnoses: Fleiss 1971, Measuring nominal scale agreement, table 1."""


def of_rows(rows, **said):
    """Rows are units, columns annotators, None where nobody spoke."""
    return Ratings.of(
        [(u, f"a{a}", x) for u, row in enumerate(rows) for a, x in enumerate(row) if x is not None], **said
    )


def of_table(table):
    """Two annotators, from the table of how often they said what."""
    rows = [(k, j) for k, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return of_rows(rows, scale=range(len(table)))


def of_counts(counts):
    rows = [[q for q, n in enumerate(row) for _ in range(n)] for row in counts]
    return of_rows(rows, scale=range(len(counts[0])))


# ------------------------------------------------------------------------------------------------- published examples


def test_krippendorff_2011():
    found = agreement(of_rows(zip(*KRIPPENDORFF, strict=True)))
    assert round(found.alpha_nominal.value, 3) == 0.743
    assert round(found.alpha_ordinal.value, 3) == 0.815
    assert (found.units, found.shared, found.labels, found.annotators) == (12, 11, 41, 4)


def test_gwet_on_the_same_data():
    """AC1 0.77544 and Fleiss' kappa 0.76117 in the overview of his R package irrCAC (cac.raw4raters)."""
    found = agreement(of_rows(zip(*KRIPPENDORFF, strict=True)))
    assert found.ac1.value == pytest.approx(0.77544, abs=5e-6)
    assert found.fleiss.value == pytest.approx(0.76117, abs=5e-6)
    assert found.raw.value == pytest.approx(0.8181818, abs=1e-6)


def test_fleiss_1971():
    assert agreement(of_counts(FLEISS)).fleiss.value == pytest.approx(0.430, abs=5e-4)


def test_cohen_by_hand():
    """The table 20 5 / 10 15: observed 0.70, expected 0.50, kappa 0.40."""
    found = agreement(of_table([[20, 5], [10, 15]]))
    assert found.raw.value == pytest.approx(0.7)
    assert found.cohen.value == pytest.approx(0.4) == found.cohen_of["a0", "a1"]


def test_the_three_abstractors():
    """Gwet 2014, table of 100 charts: Cohen's kappa 0.7964, AC1 0.8493 (vignette of irrCAC)."""
    found = agreement(of_table([[13, 0, 0], [0, 20, 7], [0, 4, 56]]))
    assert found.cohen.value == pytest.approx(0.7964094, abs=1e-6)
    assert found.ac1.value == pytest.approx(0.8493305, abs=1e-6)


# ------------------------------------------------------------------------------------------------------ by definition


def slow(rows, q, distance):
    """Krippendorff's alpha from every ordered two of labels, without a coincidence table."""
    units = [[x for x in row if x is not None] for row in rows]
    units = [u for u in units if len(u) >= 2]
    every = [x for u in units for x in u]
    often = [every.count(k) for k in range(q)]
    apart = lambda a, b: distance(a, b, often)  # noqa: E731
    inside = sum(Fraction(1, len(u) - 1) * apart(a, b) for u in units for a, b in itertools.permutations(u, 2))
    among = sum(apart(a, b) for a, b in itertools.permutations(every, 2))
    return 1 - inside / len(every) / (Fraction(among) / (len(every) * (len(every) - 1)))


def nominal_distance(a, b, often):
    return int(a != b)


def ordinal_distance(a, b, often):
    low, high = min(a, b), max(a, b)
    return (sum(often[low : high + 1]) - Fraction(often[a] + often[b], 2)) ** 2


def slow_gwet(rows, q, weight):
    """Over the twos of each unit, and two labels drawn at random of which chance agreement is a share."""
    units = [[x for x in row if x is not None] for row in rows]
    units = [u for u in units if u]
    shares = [np.mean([u.count(k) / len(u) for u in units]) for k in range(q)]
    observed = np.mean([np.mean([weight(a, b) for a, b in itertools.permutations(u, 2)]) for u in units if len(u) > 1])
    total = sum(weight(k, j) for k in range(q) for j in range(q))
    expected = total / (q * (q - 1)) * sum(p * (1 - p) for p in shares)
    return (observed - expected) / (1 - expected)


def slow_fleiss(rows, q):
    units = [[x for x in row if x is not None] for row in rows]
    units = [u for u in units if u]
    observed = np.mean([np.mean([a == b for a, b in itertools.permutations(u, 2)]) for u in units if len(u) > 1])
    expected = sum(np.mean([u.count(k) / len(u) for u in units]) ** 2 for k in range(q))
    return (observed - expected) / (1 - expected)


def slow_cohen(rows, q):
    kappas = []
    for a, b in itertools.combinations(range(len(rows[0])), 2):
        both = [(r[a], r[b]) for r in rows if r[a] is not None and r[b] is not None]
        if not both:
            continue
        observed = np.mean([x == y for x, y in both])
        expected = sum(np.mean([x == k for x, _ in both]) * np.mean([y == k for _, y in both]) for k in range(q))
        kappas.append((observed - expected) / (1 - expected))
    return np.mean(kappas)


@pytest.mark.parametrize("seed", range(6))
def test_against_the_definitions(seed):
    rng = np.random.default_rng(seed)
    q, truth = 4, rng.integers(0, 4, 25)
    said = np.where(rng.random((25, 5)) < 0.6, truth[:, None], rng.integers(0, 4, (25, 5)))
    missing = rng.random(said.shape) < (0.35 if seed % 2 else 0.0)
    rows = [
        [None if gone else int(x) for x, gone in zip(r, m, strict=True)] for r, m in zip(said, missing, strict=True)
    ]
    ratings = of_rows(rows, scale=range(q))
    found = agreement(ratings, resamples=50)
    steps = lambda a, b: abs(a - b) * (abs(a - b) + 1) / (q * (q - 1))  # noqa: E731
    assert found.alpha_nominal.value == pytest.approx(float(slow(rows, q, nominal_distance)), abs=1e-12)
    assert found.alpha_ordinal.value == pytest.approx(float(slow(rows, q, ordinal_distance)), abs=1e-12)
    assert found.fleiss.value == pytest.approx(slow_fleiss(rows, q), abs=1e-12)
    assert found.cohen.value == pytest.approx(slow_cohen(rows, q), abs=1e-12)
    assert found.ac1.value == pytest.approx(slow_gwet(rows, q, lambda a, b: a == b), abs=1e-12)
    assert found.ac2.value == pytest.approx(slow_gwet(rows, q, lambda a, b: 1 - steps(a, b)), abs=1e-12)
    assert gwet(ratings, linear(q)) == pytest.approx(slow_gwet(rows, q, lambda a, b: 1 - abs(a - b) / 3), abs=1e-12)
    squares = slow_gwet(rows, q, lambda a, b: 1 - (a - b) ** 2 / 9)
    assert gwet(ratings, quadratic(q)) == pytest.approx(squares, abs=1e-12)
    assert gwet(ratings, identity(q)) == pytest.approx(found.ac1.value)


def test_weights_of_two_labels_are_the_identity():
    for weights in (linear, quadratic, ordinal):
        assert np.array_equal(weights(2), identity(2))


def test_guessing_agrees_by_chance_only():
    rng = np.random.default_rng(3)
    found = agreement(of_rows(rng.integers(0, 3, (4000, 3)).tolist()), resamples=100)
    for estimate in (found.cohen, found.fleiss, found.alpha_nominal, found.alpha_ordinal, found.ac1, found.ac2):
        assert abs(estimate.value) < 0.03
    assert found.raw.value == pytest.approx(1 / 3, abs=0.02)


def test_one_label_for_all_is_undefined_except_to_gwet():
    """No chance-corrected coefficient knows whether they agree or cannot say anything else."""
    found = agreement(of_rows([[1, 1]] * 10, scale=(0, 1)))
    undefined = (found.cohen, found.fleiss, found.alpha_nominal, found.alpha_ordinal)
    assert [e.value for e in undefined] == [None] * 4
    assert found.raw.value == found.ac1.value == found.ac2.value == 1.0
    assert "undefined" in found.table()


def test_nobody_shares_a_unit():
    found = agreement(Ratings.of([("x", "ada", 1), ("y", "ben", 2)]))
    assert found.shared == 0 and found.raw.value is None and found.cohen_of == {("ada", "ben"): None}


def test_bootstrap_covers():
    """The population is a mixture of units of known raw agreement 0.68; 95 % intervals hold it about that often."""
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = (rng.random((60, 2)) < np.where(rng.random(60) < 0.5, 0.2, 0.8)[:, None]).astype(int).tolist()
        inside += 0.68 in agreement(of_rows(rows, scale=(0, 1)), resamples=200, seed=seed).raw.interval
    assert 88 <= inside <= 99


def test_clusters_are_drawn_whole():
    """Ten copies of each unit are no more evidence than one."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (40, 2)).tolist()
    once = agreement(of_rows(rows)).raw
    copied = agreement(of_rows(rows * 10, clusters=list(range(40)) * 10)).raw
    blind = agreement(of_rows(rows * 10)).raw
    width = lambda e: e.interval.high - e.interval.low  # noqa: E731
    assert width(copied) == pytest.approx(width(once), rel=1e-9) and copied.clusters == 40
    assert width(blind) < 0.5 * width(once)


def test_labels_off_the_scale_are_refused():
    with pytest.raises(DataError, match="not among"):
        Ratings.of([("x", "ada", 7)], scale=(0, 1))
    with pytest.raises(DataError, match="no label"):
        Ratings.of([])


def test_the_last_label_counts():
    ratings = Ratings.of([("x", "ada", 0), ("x", "ben", 1), ("x", "ada", 1)])
    assert agreement(ratings).raw.value == 1.0 and ratings.replaced == 1


# --------------------------------------------------------------------------------------------------- from comparisons


def said(annotator, responses, preference, prompt="p"):
    return Comparison(f"{annotator}/{responses}", prompt, responses, (preference,), annotator)


def test_the_same_pair_the_other_way_round_is_the_same_unit():
    ratings = pair_ratings([
        said("ada", ("x", "y"), Preference(0, 1)),
        said("ben", ("y", "x"), Preference(1, 0)),
        said("cleo", ("y", "x"), Preference(0, 1)),
    ])  # fmt: skip
    assert len(ratings.units) == 1
    assert [ratings.scale[i] for i in ratings.label_N] == [1, 1, -1]


def test_a_pair_asked_again_is_another_unit_of_the_same_prompt():
    again = [said(a, ("x", "y"), Preference(0, 1)) for a in ("ada", "ben")] * 2
    ratings = pair_ratings(again)
    assert len(ratings.units) == 2 and ratings.cluster_U.tolist() == [0, 0]


def test_degrees_widen_the_scale():
    ratings = pair_ratings(
        [
            said("ada", ("x", "y"), Preference(0, 1, degree=Degree.SIGNIFICANTLY)),
            said("ben", ("x", "y"), Preference(1, 0, degree=Degree.SLIGHTLY)),
            said("cleo", ("x", "y"), Preference(0, 1, tie=True)),
            said("dan", ("x", "y"), Preference(0, 1)),
        ],
        degrees=True,
    )
    assert [ratings.scale[i] for i in ratings.label_N] == [4, -2, 0]


def test_a_ranking_is_all_its_pairs_and_equal_texts_are_no_question():
    c = Comparison.from_ranks("c", "p", ["x", "y", "x", "z"], [1, 2, 3, 3], annotator="ada")
    assert len(pair_ratings([c]).label_N) == 5


def test_nobody_agrees_with_nobody():
    with pytest.raises(DataError, match="name the annotators"):
        pair_ratings([said("", ("x", "y"), Preference(0, 1))])


def test_pandalm(data_folder: Path):
    """Cohen's kappas of 0.85, 0.88 and 0.87, as docs/experiments/agreement.md has them."""
    path = data_folder / "pandalm-3annotators/testset-v1.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    made = TypeAdapter(Votes).validate_python({"path": str(path), "reading": {"on_bad_row": "skip"}}).read()
    found = agreement(pair_ratings(made.train), resamples=200)
    assert [round(k, 3) for k in found.cohen_of.values()] == [0.851, 0.884, 0.867]
    assert (found.units, found.shared, found.labels, found.raw.clusters) == (993, 993, 2979, 170)
    rounded = [round(e.value, 3) for e in (found.raw, found.alpha_nominal, found.alpha_ordinal, found.ac1)]
    assert rounded == [0.922, 0.867, 0.878, 0.890]
