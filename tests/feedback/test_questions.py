"""Answers fit their questions, or are refused with the reason."""

import pytest

from assent.errors import DataError
from assent.feedback.answers import (
    Choice,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
    Remarks,
    StepsAnswer,
    answer_from_json,
    answer_to_json,
)
from assent.feedback.questions import (
    HELPFUL_HARMLESS_HONEST,
    DemonstrationQuestion,
    EditQuestion,
    Origin,
    PairQuestion,
    RankingQuestion,
    RatingQuestion,
    StepsQuestion,
    question_from_json,
    question_to_json,
)
from assent.records import Degree, Message, Rating

ORIGIN = Origin("abc", (), 2, "chat", (True, False), "the two reward models disagree", "t1")
PAIR = PairQuestion("p", "Hi", ("a", "b"), HELPFUL_HARMLESS_HONEST, ORIGIN)
RANKING = RankingQuestion("r", (Message("user", "Hi"),), ("a", "b", "c", "d"))
RATING = RatingQuestion("n", "Hi", ("a",), ("helpful",))
STEPS = StepsQuestion("s", "1+1+1", ("1+1=2\n", "2+1=3\n", "3"))
EDIT = EditQuestion("e", "Hi", ("a", "b"))
WRITE = DemonstrationQuestion("w", "Hi")
QUESTIONS = (PAIR, RANKING, RATING, STEPS, EDIT, WRITE)


def three(choice):
    return {name: choice for name in HELPFUL_HARMLESS_HONEST}


ANSWERS = (
    PairAnswer(three(Choice(1, Degree.SLIGHTLY)), "better", Remarks((0,), ("false",), "见下")),
    PairAnswer(three(Choice(None, both_bad=True))),
    RankingAnswer({"overall": (2, 1, 2, 4)}),
    RatingAnswer({"helpful": 7}),
    StepsAnswer((Rating.GOOD, Rating.BAD, None), False),
    EditAnswer("c"),
    DemonstrationAnswer("d"),
)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.kind)
def test_questions_return_from_json(question):
    assert question_from_json(question_to_json(question)) == question


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: a.kind)
def test_answers_return_from_json_and_fit_one_kind_of_question(answer):
    assert answer_from_json(answer_to_json(answer)) == answer
    fits = [q for q in QUESTIONS if _fits(q, answer)]
    assert [q.kind for q in fits] == [answer.kind]


def _fits(question, answer):
    try:
        question.check(answer)
    except DataError:
        return False
    return True


@pytest.mark.parametrize(
    ("question", "answer", "word"),
    [
        (PAIR, PairAnswer({"helpful": Choice(0)}), "every one of helpful, harmless, honest"),
        (PAIR, PairAnswer(three(Choice(2))), "preferred place"),
        (PAIR, PairAnswer(three(Choice(0)), remarks=Remarks((2,))), "unsafe"),
        (PAIR, PairAnswer(three(Choice(0)), edited="  "), "written"),
        (PAIR, PairAnswer(three(Choice(None)), edited="x"), "preferred response"),
        (RANKING, RankingAnswer({"overall": (1, 2, 3)}), "4 places"),
        (RANKING, RankingAnswer({"overall": (2, 3, 4, 4)}), "the best being 1"),
        (RANKING, RankingAnswer({"overall": (1, 2, 3, 5)}), "none above 4"),
        (RATING, RatingAnswer({"helpful": 8}), "from 1 to 7"),
        (STEPS, StepsAnswer((Rating.GOOD, Rating.GOOD)), "3 steps"),
        (STEPS, StepsAnswer((Rating.GOOD, None, None)), "after a bad step"),
        (STEPS, StepsAnswer((None, Rating.BAD, None)), "after a bad step"),
        (STEPS, StepsAnswer((None, None, None)), "no step"),
        (WRITE, DemonstrationAnswer(""), "written"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(question, answer, word):
    with pytest.raises(DataError, match=word):
        question.check(answer)


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"kind": "pair", "choices": {"overall": {"preferred": 0, "both_bad": True}}}, "both_bad"),
        ({"kind": "pair", "choices": {"overall": {"preferred": None, "degree": "better"}}}, "tie has no degree"),
        ({"kind": "pair", "choices": {"overall": {"preferred": 0, "degree": "hugely"}}}, "degree"),
        ({"kind": "ranking", "ranks": {"overall": [1, 2]}, "rank": 1}, "rank"),
        ({"kind": "guess"}, "guess"),
    ],
)
def test_faults_of_a_form_are_named(row, word):
    with pytest.raises(DataError, match=word):
        answer_from_json(row)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: PairQuestion("x", "p", ("a",)), "2 responses"),
        (lambda: RankingQuestion("x", "p", tuple("abcdefghij")), "3 to 9"),
        (lambda: PairQuestion("x", "p", ("a", "b"), ()), "dimensions"),
        (lambda: StepsQuestion("x", "p", ("a", "")), "steps"),
        (lambda: RatingQuestion("x", "p", ("a",), lowest=3, highest=3), "scale"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
