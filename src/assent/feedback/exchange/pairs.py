"""Rows of two responses, or of one that is good or bad: HH-RLHF, and TRL's preference and unpaired rows."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from assent.errors import DataError
from assent.feedback.answers import Choice, PairAnswer, RatingAnswer
from assent.feedback.exchange.given import Beyond, Form, Given, Line
from assent.feedback.exchange.rows import prompt_of, text_of, value_of
from assent.feedback.into_records import records
from assent.feedback.questions import OVERALL, PairQuestion, RatingQuestion, identity
from assent.feedback.store.values import Answered
from assent.records import Comparison, Judgement, Message, PromptText, Record

HUMAN, ASSISTANT = "\n\nHuman: ", "\n\nAssistant: "
NOTHING: frozenset[str] = frozenset()


def ordered(record: Record) -> Iterator[tuple[PromptText, str, str] | Beyond]:
    """Prompt, better and worse text of each pair that somebody ordered."""
    if not isinstance(record, Comparison):
        yield Beyond(f"{type(record).__name__.lower()}s have no chosen and rejected")
        return
    for p in record.preferences:
        if p.tie:
            yield Beyond("ties have no chosen and rejected")
        else:
            yield record.prompt, record.responses[p.better], record.responses[p.worse]


def preferred(prompt: PromptText, chosen: str, rejected: str) -> Given | Beyond:
    """A pair as a question and its answer; which response stands first says nothing."""
    if chosen == rejected:
        return Beyond("pairs of two equal responses say nothing")
    texts = tuple(sorted((chosen, rejected)))
    question = PairQuestion(identity("pair", prompt, texts), prompt, texts)
    return Given(question, PairAnswer({OVERALL[0]: Choice(texts.index(chosen))}))


# ------------------------------------------------------------------------------------------------ HH-RLHF


def _write_hh(answered: Answered, dimension: str | None) -> Iterator[Line | Beyond]:
    """Two whole dialogues, `chosen` and `rejected`, as Bai et al. 2022 (arXiv 2204.05862) publish them."""
    for record in records(answered, dimension):
        for pair in ordered(record):
            if isinstance(pair, Beyond):
                yield pair
            else:
                prompt, chosen, rejected = pair
                head = transcript(prompt) + ASSISTANT
                yield {"chosen": head + chosen, "rejected": head + rejected}


def _read_hh(rows: Iterable[Line]) -> Iterator[Given | Beyond]:
    for row in rows:
        chosen, rejected = text_of(row, "chosen"), text_of(row, "rejected")
        head = _shared_head(chosen, rejected)
        if head is None:
            yield Beyond("dialogues that differ before their last turn")
        else:
            yield preferred(_turns(head), chosen[len(head) + len(ASSISTANT) :], rejected[len(head) + len(ASSISTANT) :])


def _shared_head(chosen: str, rejected: str) -> str | None:
    """What both dialogues have before the last turn of the assistant that begins at the same place in both."""
    end = min(len(chosen), len(rejected))
    while (at := chosen.rfind(ASSISTANT, 0, end)) >= 0:
        if rejected[: at + len(ASSISTANT)] == chosen[: at + len(ASSISTANT)]:
            return chosen[:at]
        end = at + len(ASSISTANT) - 1
    return None


def transcript(prompt: PromptText) -> str:
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


def _turns(head: str) -> PromptText:
    """The messages of a transcript; one of the human alone is a plain prompt."""
    turns: list[Message] = []
    for part in ("\n\n" + head.lstrip("\n")).split("\n\n"):
        role = next(
            (r for r, mark in (("user", HUMAN), ("assistant", ASSISTANT)) if f"\n\n{part}".startswith(mark)), ""
        )
        if role == "user":
            turns.append(Message("user", part[len(HUMAN) - 2 :]))
        elif role == "assistant":
            turns.append(Message("assistant", part[len(ASSISTANT) - 2 :]))
        elif turns:
            turns[-1] = Message(turns[-1].role, f"{turns[-1].content}\n\n{part}")
    return turns[0].content if len(turns) == 1 and turns[0].role == "user" else tuple(turns)


# ------------------------------------------------------------------------------------------------ TRL


def _write_preference(answered: Answered, dimension: str | None) -> Iterator[Line | Beyond]:
    for record in records(answered, dimension):
        for pair in ordered(record):
            if isinstance(pair, Beyond):
                yield pair
            else:
                prompt, chosen, rejected = pair
                yield _row(prompt, {"chosen": chosen, "rejected": rejected})


def _write_unpaired(answered: Answered, dimension: str | None) -> Iterator[Line | Beyond]:
    for record in records(answered, dimension):
        if isinstance(record, Judgement):
            yield {**_row(record.prompt, {"completion": record.response}), "label": record.desirable}
        else:
            yield Beyond(f"{type(record).__name__.lower()}s are not thumbs up or down")


def _row(prompt: PromptText, texts: Mapping[str, str]) -> dict[str, Any]:
    """Plain text, or for a dialogue lists of messages."""
    if isinstance(prompt, str):
        return {"prompt": prompt, **texts}
    turns = [{"role": m.role, "content": m.content} for m in prompt]
    return {"prompt": turns, **{name: [{"role": "assistant", "content": text}] for name, text in texts.items()}}


def _read_preference(rows: Iterable[Line]) -> Iterator[Given | Beyond]:
    for row in rows:
        yield preferred(prompt_of(row, "prompt"), _said(row, "chosen"), _said(row, "rejected"))


def _read_unpaired(rows: Iterable[Line]) -> Iterator[Given | Beyond]:
    for row in rows:
        prompt, response, label = prompt_of(row, "prompt"), _said(row, "completion"), value_of(row, "label", bool)
        id = identity("thumb", prompt, response)
        question = RatingQuestion(id, prompt, (response,), lowest=0, highest=1)
        yield Given(question, RatingAnswer({OVERALL[0]: int(label)}))


def _said(row: Line, column: str) -> str:
    """A response: text, or one message of the assistant."""
    said = row.get(column)
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], Mapping):
        return text_of(said[0], "content")
    return text_of(row, column)


HH_RLHF = Form(_write_hh, _read_hh, NOTHING)
TRL_PREFERENCE = Form(_write_preference, _read_preference, NOTHING)
TRL_UNPAIRED = Form(_write_unpaired, _read_unpaired, NOTHING)
