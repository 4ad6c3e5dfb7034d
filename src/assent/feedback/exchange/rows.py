"""Cells of foreign rows, checked; and questions made of what stands in them."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from assent.errors import DataError
from assent.feedback.answers import Choice, PairAnswer, RankingAnswer
from assent.feedback.exchange.given import Beyond, Line
from assent.feedback.questions import MOST_RANKED, PairQuestion, RankingQuestion, identity
from assent.records import PromptText, prompt_from_json

T = TypeVar("T")


def value_of(row: Line, column: str, kind: type[T]) -> T:
    """What stands in a column.

    Raises:
        DataError: nothing, or another kind of value.
    """
    value = row.get(column)
    if not isinstance(value, kind):
        refuse(f"the column {column!r} must hold {kind.__name__}", row)
    return value


def text_of(row: Line, column: str) -> str:
    return value_of(row, column, str)


def prompt_of(row: Line, column: str) -> PromptText:
    """Text, or a dialogue."""
    try:
        return prompt_from_json(row.get(column))
    except (ValueError, KeyError, TypeError):
        refuse(f"the column {column!r} must hold a prompt: text, or messages with role and content", row)


def refuse(what: str, row: Line) -> NoReturn:
    raise DataError(
        what,
        got=str(dict(row))[:200],
        why="an answer is to a prompt and its responses, whole",
        fix="mend the row, or name the form that the file has (--format)",
    )


def ranked(
    prompt: PromptText, texts: Sequence[str], ranks: Mapping[str, Sequence[float]]
) -> tuple[PairQuestion | RankingQuestion, PairAnswer | RankingAnswer] | Beyond:
    """K responses with ranks by dimension, 1 being best and equal numbers ties, as a question and its answer.

    Two are a pair. The answer's places are indices into the responses.
    """
    k = len(texts)
    if not 2 <= k <= MOST_RANKED:
        return Beyond(f"rows with fewer than 2 or more than {MOST_RANKED} responses")
    dimensions = tuple(ranks)
    id = identity("order", prompt, tuple(texts), dimensions)
    closed = {name: from_one(r) for name, r in ranks.items()}
    if k == 2:
        choices = {n: Choice(None if r[0] == r[1] else int(r[0] > r[1])) for n, r in closed.items()}
        return PairQuestion(id, prompt, tuple(texts), dimensions), PairAnswer(choices)
    return RankingQuestion(id, prompt, tuple(texts), dimensions), RankingAnswer(closed)


def from_one(ranks: Sequence[float]) -> tuple[int, ...]:
    """Any numbers, lower being better, as ranks from 1; what can be ranks already stays as it is."""
    whole = tuple(int(r) for r in ranks if r == int(r))
    if len(whole) == len(ranks) and min(whole) == 1 and max(whole) <= len(whole):
        return whole
    order = sorted(set(ranks))
    return tuple(order.index(r) + 1 for r in ranks)


def prompt_to_json(prompt: PromptText) -> Any:
    """Text, or a list of messages."""
    return prompt if isinstance(prompt, str) else [{"role": m.role, "content": m.content} for m in prompt]
