"""Feedback in the forms of other tools, out of the store; their readers are the formats of `assent.data`.

A form writes what it has room for. What it has no room for is counted and said, never dropped in silence: a form of
chosen and rejected cannot hold a tie, and none but Assent's own holds degrees and the order shown.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from assent.errors import DataError
from assent.feedback.into_records import records
from assent.feedback.store.values import Answered
from assent.records import Comparison, Demonstration, Judgement, LabelledSolution, PromptText, Record, to_json

Line = Mapping[str, object]
HUMAN, ASSISTANT = "\n\nHuman: ", "\n\nAssistant: "


@dataclass(frozen=True, slots=True)
class Exported:
    """A written form.

    Args:
        text: the file's contents.
        rows: how many there are.
        left_out: what the form has no room for, counted by reason.
    """

    text: str
    rows: int
    left_out: Mapping[str, int]


class Beyond:
    """A part of an answer that a form cannot hold."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


Form = Callable[[Record], Iterator[Line | Beyond]]


def assent_jsonl(record: Record) -> Iterator[Line | Beyond]:
    """Records as they are, with their kind: nothing is left out."""
    yield {"record": type(record).__name__.lower(), **to_json(record)}


def hh_rlhf(record: Record) -> Iterator[Line | Beyond]:
    """Two whole dialogues, `chosen` and `rejected`, as Bai et al. 2022 (arXiv 2204.05862) publish them."""
    for pair in _ordered(record):
        if isinstance(pair, Beyond):
            yield pair
        else:
            prompt, chosen, rejected = pair
            head = _transcript(prompt) + ASSISTANT
            yield {"chosen": head + chosen, "rejected": head + rejected}


def trl_preference(record: Record) -> Iterator[Line | Beyond]:
    """`prompt`, `chosen` and `rejected`, one row for each ordered pair."""
    for pair in _ordered(record):
        if isinstance(pair, Beyond):
            yield pair
        else:
            prompt, chosen, rejected = pair
            yield _row(prompt, {"chosen": chosen, "rejected": rejected})


def _ordered(record: Record) -> Iterator[tuple[PromptText, str, str] | Beyond]:
    """Prompt, better and worse text of each pair that somebody ordered."""
    if not isinstance(record, Comparison):
        yield Beyond(f"{type(record).__name__.lower()}s have no chosen and rejected")
        return
    for p in record.preferences:
        if p.tie:
            yield Beyond("ties have no chosen and rejected")
        else:
            yield record.prompt, record.responses[p.better], record.responses[p.worse]


def trl_unpaired(record: Record) -> Iterator[Line | Beyond]:
    """`prompt`, `completion` and `label`."""
    if isinstance(record, Judgement):
        yield _row(record.prompt, {"completion": record.response}) | {"label": record.desirable}
    else:
        yield Beyond(f"{type(record).__name__.lower()}s are not thumbs up or down")


def _row(prompt: PromptText, texts: Mapping[str, str]) -> dict[str, object]:
    """Plain text, or for a dialogue lists of messages."""
    if isinstance(prompt, str):
        return {"prompt": prompt, **texts}
    turns = [{"role": m.role, "content": m.content} for m in prompt]
    return {"prompt": turns, **{name: [{"role": "assistant", "content": text}] for name, text in texts.items()}}


def _transcript(prompt: PromptText) -> str:
    if isinstance(prompt, str):
        return HUMAN + prompt
    heads = {"user": HUMAN, "assistant": ASSISTANT}
    strange = [m.role for m in prompt if m.role not in heads]
    if strange:
        raise DataError(
            "an HH-RLHF dialogue is between a human and an assistant",
            got=f"a turn of the role {strange[0]!r}",
            why="the form has no mark for it",
            fix="export as trl_preference or assent",
        )
    return "".join(heads[m.role] + m.content for m in prompt)


def for_people(record: Record) -> Iterator[Line | Beyond]:
    """A table row for each pair, step or text, to be read in a spreadsheet."""
    columns = dict.fromkeys(COLUMNS, "")
    prompt = record.prompt if hasattr(record, "prompt") else ""
    columns |= {"id": getattr(record, "id", ""), "annotator": getattr(record, "annotator", "")}
    columns["prompt"] = prompt if isinstance(prompt, str) else _transcript(prompt).strip()
    if isinstance(record, Comparison):
        for p in record.preferences:
            says = "tie" if p.tie else p.degree.value
            yield columns | {"better": record.responses[p.better], "worse": record.responses[p.worse], "says": says}
    elif isinstance(record, LabelledSolution):
        for step, label in zip(record.steps, record.labels, strict=True):
            yield columns | {"better": step, "says": "" if label is None else str(label)}
    elif isinstance(record, Judgement):
        yield columns | {"better": record.response, "says": "desirable" if record.desirable else "undesirable"}
    elif isinstance(record, Demonstration):
        yield columns | {"better": record.response, "says": "demonstration"}


COLUMNS = ("id", "annotator", "prompt", "better", "worse", "says")
FORMS: Mapping[str, Form] = {
    "assent": assent_jsonl,
    "hh_rlhf": hh_rlhf,
    "trl_preference": trl_preference,
    "trl_unpaired": trl_unpaired,
    "csv": for_people,
}


def export(answers: Iterable[Answered], form: str, dimension: str | None = None) -> Exported:
    """The answers in a form of `FORMS`; gold questions, whose answers were known, are left out and counted.

    Raises:
        DataError: there is no such form, or a prompt does not fit into it.
    """
    if form not in FORMS:
        raise DataError(
            f"there is no form {form!r}", got=form, why="only known forms are written", fix=f"one of {', '.join(FORMS)}"
        )
    rows: list[Line] = []
    left_out: Counter[str] = Counter()
    for answered in answers:
        if answered.gold is not None:
            left_out["answers to gold questions"] += 1
            continue
        for record in records(answered, dimension):
            for made in FORMS[form](record):
                if isinstance(made, Beyond):
                    left_out[made.reason] += 1
                else:
                    rows.append(made)
    return Exported(_table(rows) if form == "csv" else _lines(rows), len(rows), dict(left_out))


def _lines(rows: Iterable[Line]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _table(rows: Iterable[Line]) -> str:
    """A cell that a spreadsheet would take for a formula is quoted: responses are written by models, not by friends."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows({k: f"'{v}" if str(v).startswith(("=", "+", "-", "@")) else v for k, v in r.items()} for r in rows)
    return file.getvalue()
