"""What was clicked is what is trained on: from places on a screen to the tensors that reach the loss."""

import json

import pytest
import torch

from assent.data.comparisons import ComparisonBatches, OrderedPairs
from assent.data.tokenise import Budget, tokenise_comparisons
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
)
from assent.feedback.into_records import comparisons, records
from assent.feedback.questions import (
    DemonstrationQuestion,
    EditQuestion,
    Origin,
    PairQuestion,
    RankingQuestion,
    RatingQuestion,
    StepsQuestion,
)
from assent.feedback.store import Store
from assent.records import Degree, Demonstration, Judgement, LabelledSolution, Rating, comparison_from_json, to_json

MARGINS = {Degree.SIGNIFICANTLY: 3.0, Degree.BETTER: 2.0, Degree.SLIGHTLY: 1.0, Degree.NEGLIGIBLY: 0.5}
ASKED = [
    *[PairQuestion(f"p{i}", f"P{i}", (f"one{i}", f"two{i}"), ("helpful", "honest")) for i in range(8)],
    *[RankingQuestion(f"r{i}", f"R{i}", tuple(f"{x}{i}" for x in "abcd")) for i in range(6)],
]


def clicked(shown, n):
    """What somebody presses, and in the same words what it means: (better text, worse text) to margin."""
    said = [*MARGINS, None][n % 5]
    if isinstance(shown.question, RankingQuestion):
        ranks = [(1, 2, 3, 4), (2, 1, 1, 4), (3, 1, 1, 1)][n % 3]
        texts = shown.responses
        meant = {(texts[i], texts[j]): 0.0 for i in range(4) for j in range(4) if ranks[i] < ranks[j]}
        return RankingAnswer({"overall": ranks}), meant
    left, right = shown.responses
    if said is None:
        return PairAnswer({"helpful": Choice(None, both_bad=n % 2 == 0), "honest": Choice(0)}), {}
    place = n % 2
    meant = {((left, right) if place == 0 else (right, left)): MARGINS[said]}
    return PairAnswer({"helpful": Choice(place, said), "honest": Choice(1 - place)}), meant


def test_clicks_become_the_tensors_of_the_loss(tmp_path):
    store, meant, seen = Store.open(f"{tmp_path}/s.db", gold_every=0), {}, {}
    store.add(ASKED)
    for n in range(len(ASKED)):
        shown = store.next("ada")
        answer, says = clicked(shown, n)
        meant |= says
        seen[shown.question.id] = shown.responses
        store.answer(shown.token, answer, 1.0, annotator="ada")
    lines = [json.dumps(to_json(c)) for a in store.answers() for c in comparisons(a)]
    read = [comparison_from_json(json.loads(line)) for line in lines]
    assert {c.id.split("/")[0]: tuple(c.responses[i] for i in c.shown) for c in read} == seen
    assert {frozenset((c.responses[0], c.responses[1])) for c in read if c.preferences[0].tie and len(c.responses) == 2}
    made, _ = tokenise_comparisons(read, lambda p: [1, *map(ord, p)], lambda t: [*map(ord, t), 2], Budget())
    reached = {}
    labels = OrderedPairs(lambda degree: MARGINS.get(degree, 0.0))
    for _, batch in ComparisonBatches(made, batch_size=3, epochs=1, seed=0, labels=labels):
        texts = ["".join(chr(t) for t in row[:-1] if t) for row in _responses(batch.sequences)]
        for better, worse, margin in zip(batch.better_P, batch.worse_P, batch.margin_P, strict=True):
            reached[texts[better], texts[worse]] = float(margin)
    assert reached == meant and len(meant) > 20
    store.close()


def _responses(sequences):
    for ids, mask in zip(sequences.response_ids_BT, sequences.mask_BT, strict=True):
        assert isinstance(ids, torch.Tensor)
        yield [int(t) for t, kept in zip(ids, mask, strict=True) if kept]


def asked(tmp_path, question, answer):
    store = Store.open(f"{tmp_path}/s.db")
    store.add([question])
    shown = store.next("ada")
    answer = answer(shown) if callable(answer) else answer
    made = store.answer(shown.token, answer, 4.0, annotator="ada")
    store.close()
    return made


@pytest.mark.parametrize("place", [0, 1])
def test_an_edit_is_better_than_chosen_and_chosen_than_rejected(tmp_path, place):
    question = PairQuestion("p", "P", ("x", "y"), origin=Origin(ended=(True, False), slice="chat"))
    answer = PairAnswer({"overall": Choice(place, Degree.SLIGHTLY)}, edited="z", remarks=Remarks(unsafe=()))
    made = asked(tmp_path, question, answer)
    chosen, rejected = (question.responses[i] for i in (made.order[place], made.order[1 - place]))
    comparison, demonstration = records(made)
    says = {(comparison.responses[p.better], comparison.responses[p.worse]): p.degree for p in comparison.preferences}
    assert says == {
        (chosen, rejected): Degree.SLIGHTLY,
        ("z", chosen): Degree.UNSTATED,
        ("z", rejected): Degree.UNSTATED,
    }
    assert demonstration == Demonstration("P", "z") and comparison.ended == (True, False, True)


def test_unsafe_places_become_labels_of_responses(tmp_path):
    made = asked(tmp_path, PairQuestion("p", "P", ("x", "y")), lambda s: PairAnswer(
        {"overall": Choice(0)}, remarks=Remarks(unsafe=(s.order.index(1),))))  # fmt: skip
    assert records(made)[0].unsafe == (False, True)


def test_every_other_kind_goes_where_it_teaches(tmp_path):
    marks = (Rating.GOOD, Rating.BAD, None)
    solution = asked(tmp_path / "a", StepsQuestion("s", "P", ("1", "2", "3")), StepsAnswer(marks, False))
    assert records(solution) == [LabelledSolution("s/ada", "P", ("1", "2", "3"), marks, False, "ada")]
    written = asked(tmp_path / "b", DemonstrationQuestion("w", "P"), DemonstrationAnswer("text"))
    assert records(written) == [Demonstration("P", "text")]
    edited = asked(tmp_path / "c", EditQuestion("e", "P", ("good", "worse")), EditAnswer("best"))
    pairs = [(p.better, p.worse) for p in records(edited)[0].preferences]
    assert sorted(pairs) == [(0, 1), (2, 0), (2, 1)] and records(edited)[1] == Demonstration("P", "best")
    for score, desirable in ((7, True), (1, False), (4, None)):
        rated = asked(tmp_path / f"r{score}", RatingQuestion("n", "P", ("x",)), RatingAnswer({"overall": score}))
        want = [] if desirable is None else [Judgement("n/ada", "P", "x", desirable, "ada")]
        assert records(rated) == want


def test_a_dimension_that_was_not_asked_has_no_answer(tmp_path):
    made = asked(tmp_path, PairQuestion("p", "P", ("x", "y")), PairAnswer({"overall": Choice(0)}))
    with pytest.raises(DataError, match="nobody was asked about 'honest'"):
        list(comparisons(made, "honest"))
