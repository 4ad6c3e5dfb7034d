"""Label Studio's JSON: an array of tasks with their annotations, and the labelling set-up that shows them.

A pair is `<Pairwise>` (`left` or `right`) with `<Choices>` for its degree, a tie or "both bad"; a ranking is a
`<Ranker>` with a `<Bucket>` for each rank, 1 being best, so that ties are two in one bucket. Without buckets the first
of a ranker's list stands highest on the screen and is best.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from assent.feedback.answers import (
    Answer,
    Choice,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
)
from assent.feedback.exchange.given import (
    BOTH_BAD,
    DEGREES,
    DIMENSIONS,
    NAMES,
    ORDERS,
    TIMES,
    Beyond,
    Form,
    Given,
    Line,
)
from assent.feedback.exchange.pairs import transcript
from assent.feedback.exchange.rows import from_one, prompt_of, prompt_to_json, refuse, text_of
from assent.feedback.questions import (
    OVERALL,
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

TIE, BOTH = "tie", "both bad"
SIDES = ("left", "right")
HOW_MUCH = "how much: "
"""Before the name of a dimension, the name of the control that takes its degree."""


def labelling_set_up(question: Question) -> str:
    """The XML with which a Label Studio project shows tasks of this kind.

    Raises:
        ValueError: it has no control for this kind.
    """
    head = '<View><Text name="prompt" value="$prompt"/>'
    if isinstance(question, PairQuestion):
        texts = "".join(f'<Text name="{side}" value="${side}"/>' for side in SIDES)
        return f"{head}{texts}{''.join(map(_pairwise, question.dimensions))}</View>"
    if isinstance(question, RankingQuestion):
        ranks = range(1, len(question.responses) + 1)
        buckets = "".join(f'<Bucket name="{r}" title="{r}{" (best)" if r == 1 else ""}"/>' for r in ranks)
        controls = [f'<Ranker name={quoteattr(d)} toName="responses">{buckets}</Ranker>' for d in question.dimensions]
        return f'{head}<List name="responses" value="$responses"/>{"".join(controls)}</View>'
    if isinstance(question, RatingQuestion):
        most = question.highest
        controls = [f'<Rating name={quoteattr(d)} toName="response" maxRating="{most}"/>' for d in question.dimensions]
        return f'{head}<Text name="response" value="$response"/>{"".join(controls)}</View>'
    if isinstance(question, (EditQuestion, DemonstrationQuestion)):
        value = ' value="$response"' if question.responses else ""
        return f'{head}<TextArea name="text" toName="prompt"{value}/></View>'
    raise ValueError(f"Label Studio has no control for questions of the kind {question.kind!r}; export as assent")


def _pairwise(dimension: str) -> str:
    says = "".join(f'<Choice value="{d.value}"/>' for d in Degree) + f'<Choice value="{TIE}"/><Choice value="{BOTH}"/>'
    named, much = quoteattr(dimension), quoteattr(HOW_MUCH + dimension)
    return (
        f'<Pairwise name={named} toName="left,right"/><Choices name={much} toName="prompt" choice="single">{says}'
        "</Choices>"
    )


# ------------------------------------------------------------------------------------------------ out


def _write(answered: Answered, dimension: str | None) -> Iterator[Line | Beyond]:
    question, answer = answered.question, answered.answer
    if isinstance(answer, PairAnswer) and answer.edited is not None:
        yield Beyond("edits of the preferred response")
    result = _result(question, answer, answered.order)
    if result is None:
        yield Beyond(f"{answer.kind} answers have no control")
        return
    prompt = question.prompt
    data = {
        "id": question.id,
        "kind": question.kind,
        "dimensions": list(getattr(question, "dimensions", ())),
        "prompt": prompt if isinstance(prompt, str) else transcript_of(prompt),
        **({} if isinstance(prompt, str) else {"messages": prompt_to_json(prompt)}),
        **_texts(question, answered.order),
        **({"order": list(answered.order)} if answered.order_known else {}),
    }
    by = {"completed_by": {"email": answered.annotator}, "lead_time": answered.seconds, "result": result}
    yield {"data": data, "annotations": [by]}


def transcript_of(prompt: PromptText) -> str:
    """A dialogue to be read; any roles."""
    if isinstance(prompt, str) or all(m.role in ("user", "assistant") for m in prompt):
        return transcript(prompt).strip()
    return "\n\n".join(f"{m.role}: {m.content}" for m in prompt)


def _texts(question: Question, order: Sequence[int]) -> dict[str, Any]:
    texts = question.responses
    if isinstance(question, PairQuestion):
        return dict(zip(SIDES, (texts[i] for i in order), strict=True))
    if isinstance(question, RankingQuestion):
        return {"responses": [{"id": str(i), "body": texts[i]} for i in order]}
    if isinstance(question, RatingQuestion):
        return {"response": texts[0], "lowest": question.lowest, "highest": question.highest}
    return {"response": texts[0], "worse": list(texts[1:])} if texts else {}


def _result(question: Question, answer: Answer, order: Sequence[int]) -> list[dict[str, Any]] | None:
    if isinstance(answer, PairAnswer):
        return [region for name, choice in answer.choices.items() for region in _regions(name, choice)]
    if isinstance(answer, RankingAnswer):
        return [_region(n, "responses", "ranker", _buckets(ranks, order)) for n, ranks in answer.ranks.items()]
    if isinstance(answer, RatingAnswer):
        return [_region(name, "response", "rating", score) for name, score in answer.scores.items()]
    if isinstance(answer, (EditAnswer, DemonstrationAnswer)):
        return [_region("text", "prompt", "textarea", [answer.text], key="text")]
    return None


def _regions(name: str, choice: Choice) -> Iterator[dict[str, Any]]:
    if choice.preferred is not None:
        yield _region(name, name, "pairwise", SIDES[choice.preferred], key="selected")
    says = BOTH if choice.both_bad else TIE if choice.preferred is None else choice.degree.value
    yield _region(HOW_MUCH + name, "prompt", "choices", [says])


def _buckets(ranks: Sequence[int], order: Sequence[int]) -> dict[str, list[str]]:
    return {
        str(rank): [str(i) for i, r in zip(order, ranks, strict=True) if r == rank] for rank in range(1, len(ranks) + 1)
    }


def _region(control: str, shown: str, type: str, value: Any, *, key: str = "") -> dict[str, Any]:
    return {"from_name": control, "to_name": shown, "type": type, "value": {key or type: value}}


# ------------------------------------------------------------------------------------------------ in


def _read(rows: Iterable[Line]) -> Iterator[Given | Beyond]:
    for row in rows:
        data = row.get("data")
        if not isinstance(data, Mapping):
            refuse("a task has its texts under 'data'", row)
        for annotation in row.get("annotations") or []:
            if annotation.get("was_cancelled"):
                yield Beyond("annotations that were skipped")
                continue
            made = _made(data, annotation.get("result") or [], row)
            if isinstance(made, Beyond):
                yield made
                continue
            question, answer = made
            order = data.get("order")
            seconds = annotation.get("lead_time")
            yield Given(question, answer, _who(annotation), None if order is None else tuple(order), seconds)


def _who(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, Mapping):
        return str(by.get("email") or by.get("username") or by.get("id") or "")
    return "" if by is None else str(by)


def _made(data: Mapping[str, Any], result: Sequence[Mapping[str, Any]], row: Line) -> tuple[Question, Answer] | Beyond:
    types = {r.get("type") for r in result}
    prompt = prompt_of(data, "messages" if "messages" in data else "prompt")
    id = str(data.get("id") or "")
    if types & {"pairwise"} or (types == {"choices"} and "left" in data):
        return _pair(id, prompt, data, result)
    if "ranker" in types:
        return _ranking(id, prompt, data, result, row)
    if "rating" in types:
        scores = {r["from_name"]: int(r["value"]["rating"]) for r in result if r.get("type") == "rating"}
        text, lowest, highest = text_of(data, "response"), data.get("lowest", 1), data.get("highest", 5)
        dimensions = _named(data, scores)
        id = id or identity("rating", prompt, text, dimensions)
        return RatingQuestion(id, prompt, (text,), dimensions, lowest, highest), RatingAnswer(scores)
    if "textarea" in types:
        written = "\n".join(next(r["value"]["text"] for r in result if r.get("type") == "textarea"))
        if "response" not in data:
            return DemonstrationQuestion(id or identity("write", prompt), prompt), DemonstrationAnswer(written)
        texts = (text_of(data, "response"), *data.get("worse", ()))
        return EditQuestion(id or identity("edit", prompt, texts), prompt, texts), EditAnswer(written)
    return Beyond("annotations without a choice, a ranking, a rating or a text")


def _named(data: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[str, ...]:
    """Dimensions in the order asked."""
    return tuple(data.get("dimensions") or said or OVERALL)


def _pair(
    id: str, prompt: PromptText, data: Mapping[str, Any], result: Sequence[Mapping[str, Any]]
) -> tuple[Question, Answer] | Beyond:
    sides = {r["from_name"]: r["value"]["selected"] for r in result if r.get("type") == "pairwise"}
    says = {r["from_name"]: r["value"]["choices"][0] for r in result if r.get("type") == "choices"}
    much = {name.removeprefix(HOW_MUCH): said for name, said in says.items() if name.startswith(HOW_MUCH)}
    dimensions = _named(data, sides | much)
    if set(dimensions) - {*sides, *much}:
        return Beyond("pairs of which not every dimension was answered")
    choices = {}
    for name in dimensions:
        said = much.get(name, Degree.UNSTATED.value)
        if name in sides:
            choices[name] = Choice(SIDES.index(sides[name]), Degree(said))
        else:
            choices[name] = Choice(None, both_bad=said == BOTH)
    shown = tuple(text_of(data, side) for side in SIDES)
    texts = _by_response(shown, data.get("order"))
    id = id or identity("pair", prompt, texts, dimensions)
    return PairQuestion(id, prompt, texts, dimensions), PairAnswer(choices)


def _by_response(shown: Sequence[str], order: Sequence[int] | None) -> tuple[str, ...]:
    return tuple(shown) if order is None else tuple(text for _, text in sorted(zip(order, shown, strict=True)))


def _ranking(
    id: str, prompt: PromptText, data: Mapping[str, Any], result: Sequence[Mapping[str, Any]], row: Line
) -> tuple[Question, Answer] | Beyond:
    items = data.get("responses")
    if not isinstance(items, list):
        refuse("a task with a ranker has its items under 'responses'", row)
    ids, shown = [str(item["id"]) for item in items], [str(item.get("body") or item.get("title")) for item in items]
    ranks = {}
    for region in result:
        if region.get("type") == "ranker":
            place = _places(region["value"]["ranker"], region["from_name"])
            if not set(ids) <= set(place):
                return Beyond("rankings of only some of the responses")
            ranks[region["from_name"]] = from_one([place[i] for i in ids])
    dimensions, texts = _named(data, ranks), _by_response(shown, data.get("order"))
    id = id or identity("order", prompt, texts, dimensions)
    return RankingQuestion(id, prompt, texts, dimensions), RankingAnswer(ranks)


def _places(ranker: Any, control: str) -> dict[str, int]:
    """Rank by id: of buckets that are named by a number, or of a list whose first is best."""
    if isinstance(ranker, Mapping) and all(name.isdecimal() for name in ranker):
        return {id: int(name) for name, ids in ranker.items() for id in ids}
    ids = ranker if isinstance(ranker, list) else ranker.get(control) or next(iter(ranker.values()))
    return {id: rank for rank, id in enumerate(ids, start=1)}


LABEL_STUDIO = Form(_write, _read, frozenset({NAMES, ORDERS, TIMES, DEGREES, BOTH_BAD, DIMENSIONS}), "array")
