"""A table for people, to be read, and filled in, in a spreadsheet: one row for each pair, step or text."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from assent.feedback.answers import (
    Answer,
    Choice,
    DemonstrationAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
    StepsAnswer,
)
from assent.feedback.exchange.given import DEGREES, NAMES, Beyond, Form, Given, Line
from assent.feedback.exchange.pairs import transcript
from assent.feedback.exchange.rows import refuse
from assent.feedback.into_records import records
from assent.feedback.questions import (
    OVERALL,
    DemonstrationQuestion,
    PairQuestion,
    Question,
    RankingQuestion,
    RatingQuestion,
    StepsQuestion,
    identity,
)
from assent.feedback.store.values import Answered
from assent.records import Comparison, Degree, Demonstration, Judgement, LabelledSolution, Rating, Record

COLUMNS = ("id", "annotator", "prompt", "better", "worse", "says")
TIE, DEMONSTRATION, NOT_MARKED = "tie", "demonstration", "not marked"
DESIRABLE, UNDESIRABLE = "desirable", "undesirable"
FORMULA = ("=", "+", "-", "@", "'", "\t", "\r")
"""What a spreadsheet would take for a formula, and the mark that quotes one."""


def _write(answered: Answered, dimension: str | None) -> Iterator[Line | Beyond]:
    for record in records(answered, dimension):
        prompt = getattr(record, "prompt", "")
        if not isinstance(prompt, str):
            yield Beyond("dialogues as such: they are written as one text")
        columns = dict.fromkeys(COLUMNS, "") | {
            "id": answered.question.id,
            "annotator": answered.annotator,
            "prompt": prompt if isinstance(prompt, str) else transcript(prompt).strip(),
        }
        for cells in _cells(record):
            yield {name: quoted(cell) for name, cell in (columns | cells).items()}


def _cells(record: Record) -> Iterator[dict[str, str]]:
    if isinstance(record, Comparison):
        for p in record.preferences:
            says = TIE if p.tie else p.degree.value
            yield {"better": record.responses[p.better], "worse": record.responses[p.worse], "says": says}
    elif isinstance(record, LabelledSolution):
        for step, label in zip(record.steps, record.labels, strict=True):
            yield {"better": step, "says": NOT_MARKED if label is None else str(label)}
    elif isinstance(record, Judgement):
        yield {"better": record.response, "says": DESIRABLE if record.desirable else UNDESIRABLE}
    elif isinstance(record, Demonstration):
        yield {"better": record.response, "says": DEMONSTRATION}


def quoted(cell: str) -> str:
    """Responses are written by models, not by friends."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _plain(cell: str | None) -> str:
    return (cell or "").removeprefix("'")


def _read(rows: Iterable[Line]) -> Iterator[Given | Beyond]:
    """Neighbouring rows of one id, annotator and prompt are one answer."""
    plain = [{name: _plain(row.get(name)) for name in COLUMNS} for row in rows]
    for _, some in groupby(plain, lambda r: (r["id"], r["annotator"], r["prompt"], _sort(r))):
        group = list(some)
        question, answer = _answer(group)
        yield Given(question, answer, group[0]["annotator"])


def _sort(row: Line) -> str:
    """What a row is part of."""
    says = row["says"]
    marks = {*Rating, NOT_MARKED}
    return "pair" if row["worse"] else "steps" if says in marks else says


def _answer(group: Sequence[dict[str, str]]) -> tuple[Question, Answer]:
    first = group[0]
    prompt, text, says = first["prompt"], first["better"], first["says"]
    if first["worse"]:
        return _ordered(group)
    if says == DEMONSTRATION:
        return DemonstrationQuestion(identity("write", prompt), prompt), DemonstrationAnswer(text)
    if says in (DESIRABLE, UNDESIRABLE):
        question = RatingQuestion(identity("thumb", prompt, text), prompt, (text,), lowest=0, highest=1)
        return question, RatingAnswer({OVERALL[0]: int(says == DESIRABLE)})
    if _sort(first) == "steps":
        steps = tuple(row["better"] for row in group)
        marks = tuple(None if row["says"] == NOT_MARKED else Rating(row["says"]) for row in group)
        return StepsQuestion(identity("steps", prompt, steps), prompt, steps), StepsAnswer(marks)
    known = (*Degree, TIE, *Rating, NOT_MARKED, DESIRABLE, UNDESIRABLE, DEMONSTRATION)
    refuse(f"the column 'says' holds one of {', '.join(known)}", first)


def _ordered(group: Sequence[dict[str, str]]) -> tuple[Question, Answer]:
    """A pair, or the ranking that all pairs of several responses make."""
    prompt = group[0]["prompt"]
    strange = next((row for row in group if row["says"] not in (*Degree, TIE)), None)
    if strange is not None:
        refuse(f"of a pair the column 'says' holds one of {', '.join((*Degree, TIE))}", strange)
    texts = tuple(sorted({row[name] for row in group for name in ("better", "worse")}))
    if len(texts) == 2 and len(group) == 1:
        says = group[0]["says"]
        tie = says == TIE
        choice = Choice(None) if tie else Choice(texts.index(group[0]["better"]), Degree(says))
        return PairQuestion(identity("pair", prompt, texts), prompt, texts), PairAnswer({OVERALL[0]: choice})
    ahead = {t: sum(r["worse"] == t and r["says"] != TIE for r in group) for t in texts}
    ranks = tuple(1 + ahead[t] for t in texts)
    said = {(r["better"], r["worse"]) for r in group if r["says"] != TIE}
    rank = dict(zip(texts, ranks, strict=True))
    means = {(a, b) for a in texts for b in texts if rank[a] < rank[b]}
    if len(group) != len(texts) * (len(texts) - 1) // 2 or said != means:
        refuse("rows of one id and annotator are all pairs of one ranking", group[0])
    return RankingQuestion(identity("order", prompt, texts), prompt, texts), RankingAnswer({OVERALL[0]: ranks})


CSV = Form(_write, _read, frozenset({NAMES, DEGREES}), "table")
