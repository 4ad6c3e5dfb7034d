"""Answers as records: what was clicked, with places on the screen turned into responses, is what is trained on."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from assent.errors import DataError
from assent.feedback.answers import (
    Choice,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
    StepsAnswer,
)
from assent.feedback.questions import RatingQuestion, StepsQuestion
from assent.feedback.store.values import Answered
from assent.records import Comparison, Demonstration, Judgement, LabelledSolution, Preference, Record


def records(answered: Answered, dimension: str | None = None) -> list[Record]:
    """Everything that one answer teaches.

    Args:
        dimension: whose choices become comparisons and judgements; the question's first when None.
    """
    made: list[Record] = [*comparisons(answered, dimension), *demonstrations(answered)]
    return [*made, *solutions(answered), *judgements(answered, dimension)]


def comparisons(answered: Answered, dimension: str | None = None) -> Iterator[Comparison]:
    """A pair or a ranking as it was answered, ties, degrees and order included; an edit as edited > chosen > rejected.

    `both_bad` is a tie, as far as a comparison can tell. What a model said has the probabilities that it gave.

    Raises:
        DataError: the question has no such dimension.
    """
    answer, k = answered.answer, len(answered.question.responses)
    if isinstance(answer, PairAnswer):
        name = _dimension(answered, dimension)
        pairs = _graded(answered, name) or [_choice(answer.choices[name], answered.order)]
        edited, worse = answer.edited, _of_first(answer, answered.order)
    elif isinstance(answer, RankingAnswer):
        name = _dimension(answered, dimension)
        ranks = _by_response(answer.ranks[name], answered.order)
        pairs = _graded(answered, name) or [_ranked(i, j, ranks) for i, j in combinations(range(k), 2)]
        edited, worse = None, ()
    elif isinstance(answer, EditAnswer):
        pairs, edited, worse = [Preference(0, 1)] if k == 2 else [], answer.text, tuple(range(k))
    else:
        return
    responses = answered.question.responses
    if edited is not None and edited not in responses:
        pairs += [Preference(k, i) for i in worse]
        responses = (*responses, edited)
    if len(responses) > 1:
        yield _comparison(answered, responses, pairs, k)


def _comparison(answered: Answered, responses: Sequence[str], pairs: Sequence[Preference], asked: int) -> Comparison:
    origin, unsafe = answered.question.origin, answered.answer.remarks.unsafe
    added = len(responses) - asked
    called = {answered.order[place] for place in unsafe or ()}
    return Comparison(
        f"{answered.question.id}/{answered.annotator}",
        answered.question.prompt,
        tuple(responses),
        tuple(pairs),
        annotator=answered.annotator,
        shown=answered.order if answered.order_known else (),
        kind=origin.slice,
        ended=(*origin.ended, *[True] * added) if origin.ended else (),
        unsafe=() if unsafe is None or added else tuple(i in called for i in range(asked)),
    )


def _graded(answered: Answered, dimension: str) -> list[Preference]:
    """The pairs with the probabilities that a model gave; empty where there are none."""
    said = answered.by.get("probabilities", {}).get(dimension, []) if answered.by_model else []
    return [Preference.likely(i, j, p) for i, j, p in said]


def ranks_of(answered: Answered) -> dict[str, tuple[int, ...]]:
    """By dimension, the rank of each response; 1 is best, equal numbers are ties. Of pairs and rankings."""
    answer, order = answered.answer, answered.order
    if isinstance(answer, RankingAnswer):
        return {name: tuple(_by_response(ranks, order)) for name, ranks in answer.ranks.items()}
    if isinstance(answer, PairAnswer):
        places = {name: _pair_ranks(choice) for name, choice in answer.choices.items()}
        return {name: tuple(_by_response(ranks, order)) for name, ranks in places.items()}
    raise TypeError(f"an answer of the kind {answer.kind!r} orders nothing; ask of pairs and rankings")


def _pair_ranks(choice: Choice) -> tuple[int, int]:
    return (1, 1) if choice.preferred is None else (1, 2) if choice.preferred == 0 else (2, 1)


def _dimension(answered: Answered, dimension: str | None) -> str:
    asked: tuple[str, ...] = getattr(answered.question, "dimensions", ())
    if dimension is None:
        return asked[0]
    if dimension not in asked:
        raise DataError(
            f"nobody was asked about {dimension!r}",
            got=f"the question {answered.question.id!r} asks about {', '.join(asked)}",
            why="a dimension that was not asked has no answer",
            fix="choose one of these",
        )
    return dimension


def _choice(choice: Choice, order: Sequence[int]) -> Preference:
    if choice.preferred is None:
        return Preference(0, 1, tie=True)
    return Preference(order[choice.preferred], order[1 - choice.preferred], degree=choice.degree)


def _of_first(answer: PairAnswer, order: Sequence[int]) -> tuple[int, ...]:
    """The responses that an edit is better than: the one edited, then the one it was preferred to."""
    preferred = next(iter(answer.choices.values())).preferred
    return () if preferred is None else (order[preferred], order[1 - preferred])


def _by_response(by_place: Sequence[int], order: Sequence[int]) -> list[int]:
    return [rank for _, rank in sorted(zip(order, by_place, strict=True))]


def _ranked(i: int, j: int, ranks: Sequence[int]) -> Preference:
    better, worse = (i, j) if ranks[i] <= ranks[j] else (j, i)
    return Preference(better, worse, tie=ranks[i] == ranks[j])


def demonstrations(answered: Answered) -> Iterator[Demonstration]:
    """What was written by hand: a demonstration, or the edit of a response."""
    answer = answered.answer
    text = answer.edited if isinstance(answer, PairAnswer) else None
    if isinstance(answer, (DemonstrationAnswer, EditAnswer)):
        text = answer.text
    if text is not None:
        yield Demonstration(answered.question.prompt, text)


def solutions(answered: Answered) -> Iterator[LabelledSolution]:
    """The steps with their marks."""
    question, answer = answered.question, answered.answer
    if isinstance(question, StepsQuestion) and isinstance(answer, StepsAnswer):
        yield LabelledSolution(
            f"{question.id}/{answered.annotator}",
            question.prompt,
            question.steps,
            answer.marks,
            correct=answer.correct,
            annotator=answered.annotator,
            kind=question.origin.slice,
            ended=all(question.origin.ended),
        )


def judgements(answered: Answered, dimension: str | None = None) -> Iterator[Judgement]:
    """A rating above the middle of its scale is desirable, one below is not, and one on it says neither."""
    question, answer = answered.question, answered.answer
    if isinstance(question, RatingQuestion) and isinstance(answer, RatingAnswer):
        twice = 2 * answer.scores[_dimension(answered, dimension)] - question.lowest - question.highest
        if twice:
            yield Judgement(
                f"{question.id}/{answered.annotator}",
                question.prompt,
                question.responses[0],
                twice > 0,
                annotator=answered.annotator,
                kind=question.origin.slice,
                ended=all(question.origin.ended),
            )
