"""UltraFeedback's rows: several completions of one instruction, each with ratings (Cui et al., arXiv 2310.01377)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from assent.feedback.answers import PairAnswer, RankingAnswer
from assent.feedback.exchange.given import DIMENSIONS, Beyond, Form, Given, Line
from assent.feedback.exchange.rows import prompt_of, prompt_to_json, ranked, refuse, text_of, value_of
from assent.feedback.into_records import ranks_of
from assent.feedback.questions import OVERALL, Origin
from assent.feedback.store.values import Answered

NO_RATING = "N/A"


def _write(answered: Answered, dimension: str | None) -> Iterator[Line | Beyond]:
    """A rating is K + 1 - rank, so that the best of K has K; equal ratings are ties."""
    answer, question = answered.answer, answered.question
    if not isinstance(answer, (PairAnswer, RankingAnswer)):
        yield Beyond(f"{answer.kind} answers compare no completions")
        return
    if isinstance(answer, PairAnswer) and answer.edited is not None:
        yield Beyond("edits of the preferred response")
    k, ranks = len(question.responses), ranks_of(answered)
    overall = ranks[dimension or next(iter(ranks))]
    completions = [
        {
            "model": (question.origin.policies or (question.origin.policy,) * k)[i],
            "response": text,
            "annotations": {
                name: {"Rating": str(k + 1 - r[i]), "Rationale": ""} for name, r in ranks.items() if name != OVERALL[0]
            },
            "overall_score": float(k + 1 - overall[i]),
        }
        for i, text in enumerate(question.responses)
    ]
    yield {
        "source": "assent",
        "instruction": prompt_to_json(question.prompt),
        "models": [c["model"] for c in completions],
        "completions": completions,
    }


def _read(rows: Iterable[Line]) -> Iterator[Given | Beyond]:
    for row in rows:
        completions = value_of(row, "completions", list)
        if not all(isinstance(c, Mapping) for c in completions):
            refuse("the column 'completions' must hold objects with a response", row)
        texts = [text_of(c, "response") for c in completions]
        rated, missing = _ratings(completions)
        yield from [Beyond(f"ratings of {name}, which not every completion has") for name in missing]
        if len(set(texts)) < len(texts):
            yield Beyond("rows with two equal completions")
        elif not rated:
            yield Beyond("rows without a rating of every completion")
        else:
            made = ranked(prompt_of(row, "instruction"), texts, rated)
            yield made if isinstance(made, Beyond) else Given(replace(made[0], origin=_origin(completions)), made[1])


def _origin(completions: list[Mapping[str, Any]]) -> Origin:
    models = tuple(str(c.get("model") or "") for c in completions)
    return Origin(policies=models) if any(models) else Origin()


def _ratings(completions: list[Mapping[str, Any]]) -> tuple[dict[str, list[float]], list[str]]:
    """By dimension, a number per completion, lower being better; and the dimensions that have holes.

    The overall score is given as a dimension where no other says the same.
    """
    names = dict.fromkeys(name for c in completions for name in c.get("annotations") or {})
    said = {name: [_number((c.get("annotations") or {}).get(name)) for c in completions] for name in names}
    scores = [c.get("overall_score") for c in completions]
    overall = [float(s) if isinstance(s, int | float) else None for s in scores]
    whole = {name: [-n for n in numbers if n is not None] for name, numbers in said.items() if None not in numbers}
    if None not in overall and overall not in said.values():
        whole = {OVERALL[0]: [-n for n in overall if n is not None]} | whole
    return whole, [name for name, numbers in said.items() if None in numbers and any(n is not None for n in numbers)]


def _number(annotation: Any) -> float | None:
    rating = annotation.get("Rating") if isinstance(annotation, Mapping) else None
    try:
        return None if rating in (None, NO_RATING) else float(rating)
    except (TypeError, ValueError):
        return None


ULTRAFEEDBACK = Form(_write, _read, frozenset({DIMENSIONS}))
