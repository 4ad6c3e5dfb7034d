"""Several annotators on the same responses as one comparison with shares of votes."""

import json

import pytest

from assent.data.votes import pool_votes
from assent.records import Comparison, Degree, Preference, comparison_from_json, to_json


def said(annotator: str, *preferences: Preference, prompt: str = "Why?", responses=("a", "b", "c")) -> Comparison:
    return Comparison(f"1/{annotator}", prompt, responses, preferences, annotator)


def test_shares_are_the_mean_over_all_that_was_said():
    votes = [
        said("ada", Preference(0, 1), Preference(2, 1), Preference(0, 2, tie=True)),
        said("ben", Preference(1, 0), Preference(1, 2), Preference(0, 2, tie=True)),
        said("cleo", Preference(0, 1, degree=Degree.BETTER), Preference(1, 2, tie=True)),
    ]
    (pooled,) = pool_votes(votes)
    assert pooled.annotator == "ada+ben+cleo"
    assert {(p.better, p.worse): (p.probability, p.tie) for p in pooled.preferences} == {
        (0, 1): (pytest.approx(2 / 3), False),
        (1, 2): (0.5, True),
        (0, 2): (0.5, True),
    }


def test_a_majority_for_the_second_response_turns_the_pair_around():
    votes = [said("ada", Preference(1, 0)), said("ben", Preference(1, 0)), said("cleo", Preference(0, 1, tie=True))]
    (pooled,) = pool_votes(votes)
    (p,) = pooled.preferences
    assert (p.better, p.worse, p.tie) == (1, 0, False) and p.probability == pytest.approx(5 / 6)


def test_a_judge_s_probability_is_averaged_with_the_others():
    (pooled,) = pool_votes([said("ai", Preference(0, 1, probability=0.7)), said("ada", Preference(1, 0))])
    (p,) = pooled.preferences
    assert (p.better, p.probability) == (1, pytest.approx(0.65))


def test_other_responses_and_other_prompts_stay_apart_and_one_voice_stays_as_it_is():
    alone = said("ada", Preference(0, 1, degree=Degree.SLIGHTLY))
    other = said("ada", Preference(0, 1), responses=("a", "b"))
    third = said("ben", Preference(0, 1), prompt="Why not?")
    assert pool_votes([alone, other, third]) == [alone, other, third]
    again = said("ben", Preference(1, 0), prompt="  why? ")
    assert len(pool_votes([alone, other, third, again])) == 3


@pytest.mark.parametrize(("probability", "tie"), [(0.4, False), (1.1, False), (0.5, False), (0.7, True)])
def test_a_probability_that_does_not_fit_its_pair_is_refused(probability, tie):
    with pytest.raises(ValueError, match="a probability above"):
        Preference(0, 1, tie=tie, probability=probability)


def test_a_probability_comes_back_from_json_and_older_files_have_none():
    whole = said("ai", Preference(0, 1, probability=0.75), Preference(1, 2))
    row = json.loads(json.dumps(to_json(whole)))
    assert comparison_from_json(row) == whole
    for p in row["preferences"]:
        del p["probability"]
    assert [p.target for p in comparison_from_json(row).preferences] == [1.0, 1.0]
