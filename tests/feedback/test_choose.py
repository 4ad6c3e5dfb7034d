"""Choosing what to ask, against its definitions."""

import itertools
import math

import numpy as np
import pytest

from assent.errors import DataError
from assent.feedback.choose import (
    ByDoubleThompson,
    ByInformationGain,
    ByVariance,
    Candidates,
    choose,
    distinct,
    double_thompson,
    information_gain,
    preference_variance,
    reserved,
)


def win(scores, i, j):
    return 1 / (1 + math.exp(scores[j] - scores[i]))


def mutual_information(scores_MC, i, j):
    """I(answer; member) by enumeration of the joint distribution of a uniform member and its answer."""
    m = len(scores_MC)
    joint = {(k, a): (win(s, i, j) if a else 1 - win(s, i, j)) / m for k, s in enumerate(scores_MC) for a in (0, 1)}
    answer = {a: sum(p for (_, b), p in joint.items() if b == a) for a in (0, 1)}
    return sum(p * math.log(p / (answer[a] / m)) for (_, a), p in joint.items() if p > 0)


@pytest.mark.parametrize("seed", range(3))
def test_information_gain_by_enumeration(seed):
    scores = np.random.default_rng(seed).normal(0, 2, (5, 4))
    gain = information_gain(scores)
    for i, j in itertools.product(range(4), repeat=2):
        assert gain[i, j] == pytest.approx(mutual_information(scores, i, j) if i != j else 0.0, abs=1e-12)


def test_information_gain_is_not_mere_doubt():
    """Three responses: all members are unsure of (0, 1) alike, and sure but opposed on (0, 2)."""
    gain = information_gain([[0.0, 0.0, 9.0], [0.0, 0.0, -9.0]])
    assert gain[0, 1] == 0.0 and gain[0, 2] == pytest.approx(math.log(2), abs=2e-3)


def test_information_gain_of_extremes():
    assert information_gain([[0.0, 5000.0], [5000.0, 0.0]])[0, 1] == pytest.approx(math.log(2))
    assert (information_gain([[1.0, 2.0, 3.0]]) == 0).all()


def test_variance_by_definition():
    scores = np.random.default_rng(1).normal(0, 2, (6, 3))
    found = preference_variance(scores)
    for i, j in itertools.permutations(range(3), 2):
        assert found[i, j] == pytest.approx(np.var([win(s, i, j) for s in scores]))


def test_double_thompson_follows_its_law():
    """Members favour 0, 0, 1 and 2: first 0 with 1/2, then 1 or 2 alike; first 1, then 0 twice as often as 2."""
    scores = [[3.0, 0, 0], [3.0, 1, 0], [0, 3.0, 0], [0, 0, 3.0]]
    rng = np.random.default_rng(0)
    drawn = [double_thompson(scores, rng) for _ in range(6000)]
    share = lambda p: drawn.count(p) / len(drawn)  # noqa: E731
    expected = {(0, 1): 1 / 4, (0, 2): 1 / 4, (1, 0): 1 / 6, (1, 2): 1 / 12, (2, 0): 1 / 6, (2, 1): 1 / 12}
    for pair, p in expected.items():
        assert share(pair) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 6000))


def test_double_thompson_where_all_agree():
    """The second is any other one, and one candidate makes no pair."""
    rng = np.random.default_rng(0)
    drawn = [double_thompson([[0.0, 9.0, 1.0]] * 3, rng, tries=2) for _ in range(400)]
    assert {a for a, _ in drawn} == {1} and 150 < sum(b == 0 for _, b in drawn) < 250
    assert double_thompson([[1.0]], rng) is None


@pytest.mark.parametrize("scores", [[[float("nan"), 1.0]], [1.0, 2.0], np.zeros((0, 3))])
def test_scores_that_choose_nothing_are_refused(scores):
    with pytest.raises(DataError, match="finite score"):
        information_gain(scores)


# ----------------------------------------------------------------------------------------------------- near-duplicates


def slow_distinct(texts, alike):
    def sets(text):
        words = ["", *text.split(), ""]
        return {tuple(words[i : i + 2]) for i in range(len(words) - 1)}

    kept = []
    for i, text in enumerate(texts):
        a = sets(text)
        if all(len(a & sets(texts[j])) / len(a | sets(texts[j])) < alike for j in kept):
            kept.append(i)
    return tuple(kept)


@pytest.mark.parametrize("alike", [0.3, 0.6, 1.0])
def test_distinct_by_definition(alike):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["a", "b", "c"], rng.integers(0, 6))) for _ in range(80)]
    assert distinct(texts, alike=alike) == slow_distinct(texts, alike)


def test_case_and_punctuation_do_not_matter_and_scripts_without_spaces_do_not_hide():
    assert distinct(["Yes, of course!", "yes of course", "no"]) == (0, 2)
    same, other = "今天天气很好我们去公园散步吧", "明天要下雨所以留在家里看书"
    assert distinct([same, same + "！", other]) == (0, 2)
    assert distinct(["", ""]) == (0,)


# ------------------------------------------------------------------------------------------------------------ choosing


def pool(prompts=40, candidates=5, members=4, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Candidates(
            f"p{n}",
            tuple(f"text {n} {i} {rng.random()}" for i in range(candidates)),
            rng.normal(0, 2, (members, candidates)),
        )
        for n in range(prompts)
    ]


def keys(questions):
    return [(q.prompt_id, q.first, q.second) for q in questions]


@pytest.mark.parametrize("chooser", [ByInformationGain(), ByVariance(), ByDoubleThompson(draws=4)])
def test_the_share_the_cap_and_no_question_twice(chooser):
    made = choose(pool(), 60, chooser=chooser, rng=np.random.default_rng(1), random_share=0.25, per_prompt=2)
    assert len(made) == 60 == len(set(keys(made)))
    assert sum(q.by == "random" for q in made) == 15
    random = [q.prompt_id for q in made if q.by == "random"]
    for prompt in {q.prompt_id for q in made if q.by != "random"}:
        chosen = sum(q.prompt_id == prompt and q.by != "random" for q in made)
        assert chosen + random.count(prompt) <= 2


def test_the_chooser_gets_the_best_of_what_is_open():
    candidates = pool()
    made = choose(candidates, 20, chooser=ByInformationGain(), rng=np.random.default_rng(1), random_share=0.5)
    worth = {
        (c.prompt_id, i, j): mutual_information(c.scores_MC, i, j)
        for c in candidates
        for i, j in itertools.combinations(range(5), 2)
        if not reserved(c, (i, j), 0.5)
    }
    assert {k for k in keys(q for q in made if q.by != "random")} == set(sorted(worth, key=worth.get)[-10:])
    for q in made:
        assert q.worth is None or q.worth == pytest.approx(worth[q.prompt_id, q.first, q.second])


def test_random_questions_are_unbiased_however_long_the_chooser_goes_on():
    """The mean of a figure that the chooser hunts for, over the random questions of all rounds, is that of the pool."""
    found, hunted = [], []
    for seed in range(30):
        candidates = pool(seed=seed)
        figure = {
            (c.prompt_id, i, j): information_gain(c.scores_MC)[i, j]
            for c in candidates
            for i, j in itertools.combinations(range(5), 2)
        }
        rng, asked = np.random.default_rng(seed), []
        for _ in range(5):
            made = choose(candidates, 50, chooser=ByInformationGain(), rng=rng, random_share=0.2, asked=asked)
            asked += keys(made)
            found += [figure[k] - np.mean(list(figure.values())) for k in keys(q for q in made if q.by == "random")]
            hunted += [figure[k] - np.mean(list(figure.values())) for k in keys(q for q in made if q.by != "random")]
        assert len(set(asked)) == len(asked)
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3.5 * error and np.mean(hunted) > 20 * error


def test_the_reserve_is_a_share_and_knows_no_order():
    candidates = pool(prompts=300)
    flags = [reserved(c, p, 0.2) for c in candidates for p in itertools.combinations(range(5), 2)]
    assert np.mean(flags) == pytest.approx(0.2, abs=0.03)
    c = candidates[0]
    turned = Candidates(c.prompt_id, c.responses[::-1])
    assert all(reserved(c, (i, j), 0.5) == reserved(turned, (4 - i, 4 - j), 0.5) for i in range(5) for j in range(i))


def test_near_duplicates_are_never_asked_about():
    same = Candidates(
        "p", ("one two three", "One, two, three!", "four five six"), np.array([[0, 9, 1.0], [0, -9, 1.0]])
    )
    for seed in range(5):
        made = choose([same], 3, chooser=None, rng=np.random.default_rng(seed))
        assert keys(made) == [("p", 0, 2)]


def test_without_scores_all_questions_are_random():
    made = choose([Candidates("p", ("a", "b", "c"))], 9, chooser=None, rng=np.random.default_rng(0))
    assert sorted(keys(made)) == [("p", 0, 1), ("p", 0, 2), ("p", 1, 2)] and {q.by for q in made} == {"random"}


def test_a_short_reserve_gives_the_chooser_less():
    candidates = pool(prompts=4)
    asked = []
    for seed in range(20):
        made = choose(
            candidates, 10, chooser=ByVariance(), rng=np.random.default_rng(seed), random_share=0.3, asked=asked
        )
        random = sum(q.by == "random" for q in made)
        assert len(made) == 0 or random / len(made) >= 0.3 - 1e-9
        asked += keys(made)
    assert not made


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"random_share": 0.0}, "random"),
        ({"random_share": 1.5}, "random"),
        ({"count": 0}, "at least one"),
        ({"pool": [Candidates("p", ("a", "b"))]}, "needs scores"),
        ({"pool": pool(1) * 2}, "once"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(said, match):
    given = {"pool": pool(2), "count": 3} | said
    with pytest.raises(DataError, match=match):
        choose(
            given["pool"],
            given["count"],
            chooser=ByVariance(),
            rng=np.random.default_rng(0),
            random_share=given.get("random_share", 0.2),
        )
