"""Argilla's records as JSON: fields, and responses by question and user; in a ranking rank 1 is best."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from assent.feedback.answers import (
    Answer,
    Choice,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
)
from assent.feedback.exchange.given import BOTH_BAD, DEGREES, DIMENSIONS, NAMES, ORDERS, Beyond, Form, Given, Line
from assent.feedback.exchange.label_studio import BOTH, TIE, transcript_of
from assent.feedback.exchange.rows import from_one, prompt_of, prompt_to_json, refuse, text_of
from assent.feedback.questions import (
    DemonstrationQuestion,
    EditQuestion,
    PairQuestion,
    Question,
    RankingQuestion,
    RatingQuestion,
    identity,
)
from assent.feedback.store.values import Answered
from assent.records import Degree, PromptText

RESPONSE, MUCH, TEXT = "response-", "-degree", "text"
SUBMITTED = "submitted"


def _write(answered: Answered, dimension: str | None) -> Iterator[Line | Beyond]:
    question, answer, order = answered.question, answered.answer, answered.order
    if isinstance(answer, PairAnswer) and answer.edited is not None:
        yield Beyond("edits of the preferred response")
    values = _values(answer)
    if values is None:
        yield Beyond(f"{answer.kind} answers have no question")
        return
    prompt = question.prompt
    texts = [question.responses[i] for i in order]
    scale = {"lowest": question.lowest, "highest": question.highest} if isinstance(question, RatingQuestion) else {}
    yield {
        "id": question.id,
        "fields": {
            "prompt": prompt if isinstance(prompt, str) else transcript_of(prompt),
            **({} if isinstance(prompt, str) else {"messages": prompt_to_json(prompt)}),
            **{f"{RESPONSE}{place}": text for place, text in enumerate(texts, start=1)},
        },
        "metadata": {
            "kind": question.kind,
            "dimensions": list(getattr(question, "dimensions", ())),
            **({"order": list(order)} if answered.order_known else {}),
            **scale,
        },
        "suggestions": {},
        "responses": {
            name: [{"value": value, "user_id": answered.annotator, "status": SUBMITTED}]
            for name, value in values.items()
        },
    }


def _values(answer: Answer) -> dict[str, Any] | None:
    """Value by question."""
    if isinstance(answer, PairAnswer):
        made: dict[str, Any] = {}
        for name, choice in answer.choices.items():
            tie = choice.preferred is None
            made[name] = _ranks((1, 1) if tie else (1, 2) if choice.preferred == 0 else (2, 1))
            made[name + MUCH] = BOTH if choice.both_bad else TIE if tie else choice.degree.value
        return made
    if isinstance(answer, RankingAnswer):
        return {name: _ranks(ranks) for name, ranks in answer.ranks.items()}
    if isinstance(answer, RatingAnswer):
        return dict(answer.scores)
    if isinstance(answer, (EditAnswer, DemonstrationAnswer)):
        return {TEXT: answer.text}
    return None


def _ranks(ranks: Sequence[int]) -> list[dict[str, Any]]:
    return [{"value": f"{RESPONSE}{place}", "rank": rank} for place, rank in enumerate(ranks, start=1)]


def _read(rows: Iterable[Line]) -> Iterator[Given | Beyond]:
    for row in rows:
        fields, responses = row.get("fields"), row.get("responses")
        if not isinstance(fields, Mapping) or not isinstance(responses, Mapping):
            refuse("a record has fields and responses", row)
        by_user: dict[str, dict[str, Any]] = defaultdict(dict)
        for name, given in responses.items():
            for one in given:
                if one.get("status", SUBMITTED) == SUBMITTED:
                    by_user[str(one.get("user_id") or "")][name] = one["value"]
                else:
                    yield Beyond("responses that were not submitted")
        for user, values in by_user.items():
            made = _made(row, fields, values)
            if isinstance(made, Beyond):
                yield made
            else:
                order = (row.get("metadata") or {}).get("order")
                yield Given(*made, user, None if order is None else tuple(order))


def _made(row: Line, fields: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[Question, Answer] | Beyond:
    known = row.get("metadata") or {}
    prompt = prompt_of(fields, "messages" if "messages" in fields else "prompt")
    places = [name for name in fields if name.startswith(RESPONSE)]
    shown = [text_of(fields, name) for name in sorted(places, key=lambda name: int(name.removeprefix(RESPONSE)))]
    order = known.get("order") or range(len(shown))
    texts = tuple(text for _, text in sorted(zip(order, shown, strict=True)))
    ranks = {n: _ranks_of(v, len(texts)) for n, v in values.items() if isinstance(v, list)}
    id = str(row.get("id") or identity("argilla", prompt, texts, tuple(ranks)))
    if TEXT in values:
        return _written(id, prompt, texts, values[TEXT])
    if ranks:
        ordered = {n: r for n, r in ranks.items() if r is not None}
        if set(ranks) != set(ordered):
            return Beyond("rankings of only some of the responses")
        return _ordered(id, prompt, texts, tuple(known.get("dimensions") or ranks), ordered, values)
    scores = {name: value for name, value in values.items() if isinstance(value, int)}
    if len(texts) == 1 and scores:
        dimensions = tuple(known.get("dimensions") or scores)
        lowest, highest = known.get("lowest", 1), known.get("highest", 5)
        return RatingQuestion(id, prompt, texts, dimensions, lowest, highest), RatingAnswer(scores)
    return Beyond("responses that are no ranking, rating or text")


def _written(id: str, prompt: PromptText, texts: tuple[str, ...], text: str) -> tuple[Question, Answer]:
    if texts:
        return EditQuestion(id, prompt, texts), EditAnswer(text)
    return DemonstrationQuestion(id, prompt), DemonstrationAnswer(text)


def _ordered(
    id: str,
    prompt: PromptText,
    texts: tuple[str, ...],
    dimensions: tuple[str, ...],
    ranks: Mapping[str, tuple[int, ...]],
    values: Mapping[str, Any],
) -> tuple[Question, Answer] | Beyond:
    if set(dimensions) != set(ranks):
        return Beyond("rankings of which not every dimension was answered")
    if len(texts) > 2:
        return RankingQuestion(id, prompt, texts, dimensions), RankingAnswer({n: ranks[n] for n in dimensions})
    choices = {}
    for name in dimensions:
        says, (first, second) = values.get(name + MUCH, Degree.UNSTATED.value), ranks[name]
        if first == second:
            choices[name] = Choice(None, both_bad=says == BOTH)
        else:
            choices[name] = Choice(int(first > second), Degree(says))
    return PairQuestion(id, prompt, texts, dimensions), PairAnswer(choices)


def _ranks_of(value: Sequence[Any], count: int) -> tuple[int, ...] | None:
    """Ranks by place; of names alone the first is best. None where a response has none."""
    pairs = [(v["value"], v["rank"]) if isinstance(v, Mapping) else (v, i) for i, v in enumerate(value, start=1)]
    found = {name: rank for name, rank in pairs if rank is not None}
    names = [f"{RESPONSE}{place}" for place in range(1, count + 1)]
    return from_one([found[name] for name in names]) if all(name in found for name in names) else None


ARGILLA = Form(_write, _read, frozenset({NAMES, ORDERS, DEGREES, BOTH_BAD, DIMENSIONS}), "array")
