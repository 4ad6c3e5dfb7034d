"""Data as a recipe names it: a format, where it is, and which columns hold what.

`{format: pairs, path: data.jsonl, chosen: better, reading: {on_bad_row: skip, held_out: 0.1}}`. Every format has
`read()`, which gives records of its kind with an account of the reading, and `records(row)`, which yields those of
one row with a `LeftOut` for each part of it that makes none, and raises `DataError` when the row is bad. A record's id
is the file's name and line unless a column gives one.

Common to all: `path` of a file or folder, or name of a data set on the hub; `reading`, see `Reading`.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field

from assent.config import External, Frozen
from assent.data.columns import PromptColumns, choice, documents, get, read_prompt, text, texts
from assent.data.dialogue import as_dialogue, brief, cut_response, dialogue, same_prompt
from assent.data.readers import LeftOut
from assent.data.reading import DataSet, Reading, read_data
from assent.data.rows import Row
from assent.errors import DataError
from assent.records import Comparison, Degree, Demonstration, Document, Message, Preference, PromptText, Task

DataPath = Annotated[str, External()]
"""A file or folder, which must exist before a run begins and whose contents are part of what is made; or a hub name."""


def _identity(row: Row, column: str | None) -> str:
    value = get(row, column) if column else row.name
    if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
        return str(value)
    raise DataError(
        f"the column {column!r} must hold an identity: text or a whole number",
        got=brief(value),
        why="records that share no identity cannot be traced",
        fix="mend the row, or leave `id` out to use file and line",
    )


def _label(row: Row, column: str | None) -> str:
    return text(row, column) if column else ""


class Text(Frozen):
    """Documents for pretraining. `cut_at: blank_line` makes each paragraph of a text a document of its own.

    Args:
        text: column with a text, or a list: each of its items is then a document, the texts of an item that is itself a
            list being joined by a space.
    """

    format: Literal["text"] = "text"
    path: DataPath
    text: str = "text"
    cut_at: Literal["nowhere", "blank_line"] = "nowhere"
    reading: Reading = Reading()

    def read(self) -> DataSet[Document]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Document | LeftOut]:
        listed = isinstance(get(row, self.text), list)
        wholes = documents(row, self.text) if listed else [text(row, self.text)]
        if not wholes:
            yield LeftOut("an empty list of texts")
        for whole in wholes:
            yield from (Document(part) for part in (paragraphs(whole) if self.cut_at == "blank_line" else [whole]))


def paragraphs(whole: str) -> Iterator[str]:
    """What stands between blank lines."""
    paragraph: list[str] = []
    for line in [*whole.split("\n"), ""]:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []


class Demonstrations(Frozen):
    """A prompt and the response to imitate."""

    format: Literal["demonstrations"] = "demonstrations"
    path: DataPath
    prompt: PromptColumns = "prompt"
    response: str = "response"
    reading: Reading = Reading()

    def read(self) -> DataSet[Demonstration]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Demonstration]:
        yield Demonstration(read_prompt(self.prompt, row), text(row, self.response))


class Messages(Frozen):
    """Dialogues: the last turn, which must be the assistant's, is the response, and all before it the prompt."""

    format: Literal["messages"] = "messages"
    path: DataPath
    messages: str = "messages"
    reading: Reading = Reading()

    def read(self) -> DataSet[Demonstration]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Demonstration]:
        prompt, response = cut_response(dialogue(get(row, self.messages), self.messages), self.messages)
        if not response.strip():
            raise DataError(
                f"the last turn in {self.messages!r} is empty",
                got=brief(response),
                why="there is nothing to imitate",
                fix="mend the row or leave it out",
            )
        yield Demonstration(prompt, response)


class Pairs(Frozen):
    """A preferred and a rejected response.

    Args:
        prompt: its column; null when `chosen` and `rejected` hold whole dialogues (lists of messages, or transcripts as
            in Anthropic HH-RLHF), whose common beginning is then the prompt. Dialogues beside a prompt column must
            begin with that prompt, or be the response alone.
        degree: column that says how much better (`significantly`, `better`, `slightly`, `negligibly`).
        id, kind, annotator: columns; by default file and line, and unknown.
    """

    format: Literal["pairs"] = "pairs"
    path: DataPath
    prompt: PromptColumns | None = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    degree: str | None = None
    id: str | None = None
    kind: str | None = None
    annotator: str | None = None
    reading: Reading = Reading()

    def read(self) -> DataSet[Comparison]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Comparison]:
        prompt, responses = self._sides(row)
        preference = Preference(0, 1, degree=self._degree(row))
        kind, annotator = _label(row, self.kind), _label(row, self.annotator)
        yield Comparison(_identity(row, self.id), prompt, responses, (preference,), annotator=annotator, kind=kind)

    def _sides(self, row: Row) -> tuple[PromptText, tuple[str, str]]:
        columns = (self.chosen, self.rejected)
        values = [get(row, c) for c in columns]
        given = read_prompt(self.prompt, row) if self.prompt else None
        if given is not None and all(isinstance(v, str) for v in values):
            return given, (values[0], values[1])
        (a, first), (b, second) = (self._cut(dialogue(v, c), c, given) for v, c in zip(values, columns, strict=True))
        prompt = same_prompt(a, b, columns)
        return prompt if given is None else given, (first, second)

    def _cut(
        self, messages: tuple[Message, ...], column: str, given: PromptText | None
    ) -> tuple[tuple[Message, ...], str]:
        if given is None:
            return cut_response(messages, column)
        asked = as_dialogue(given)
        whole = (*asked, *messages) if len(messages) == 1 else messages
        prompt, response = cut_response(whole, column)
        return same_prompt(asked, prompt, ("prompt", column)), response

    def _degree(self, row: Row) -> Degree:
        if self.degree is None:
            return Degree.UNSTATED
        said = text(row, self.degree).strip().lower()
        if said in list(Degree):
            return Degree(said)
        raise DataError(
            f"the column {self.degree!r} must name a degree",
            got=brief(said),
            why="the margin of the pair depends on it",
            fix=f"use one of {', '.join(Degree)}",
        )


class Rankings(Frozen):
    """K responses in a list and a list of their ranks, equal numbers being ties.

    Args:
        order: `rank` when 1 is best; `score` when the higher number is better.
    """

    format: Literal["rankings"] = "rankings"
    path: DataPath
    prompt: PromptColumns = "prompt"
    responses: str = "responses"
    ranks: str = "ranks"
    order: Literal["rank", "score"] = "rank"
    id: str | None = None
    kind: str | None = None
    annotator: str | None = None
    reading: Reading = Reading()

    def read(self) -> DataSet[Comparison]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Comparison]:
        responses, numbers = texts(row, self.responses), get(row, self.ranks)
        if not isinstance(numbers, list) or len(numbers) != len(responses) or not all(_is_number(n) for n in numbers):
            raise DataError(
                f"the column {self.ranks!r} must hold one number per response",
                got=f"{brief(numbers)} for {len(responses)} responses",
                why="the order is not known",
                fix="mend the row or leave it out",
            )
        levels = sorted(set(numbers), reverse=self.order == "score")
        yield Comparison.from_ranks(
            _identity(row, self.id),
            read_prompt(self.prompt, row),
            responses,
            [1 + levels.index(n) for n in numbers],
            annotator=_label(row, self.annotator),
            kind=_label(row, self.kind),
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


class RankedList(Frozen):
    """K responses in a list, the best first, no ties."""

    format: Literal["ranked_list"] = "ranked_list"
    path: DataPath
    prompt: PromptColumns = "prompt"
    responses: str = "responses"
    id: str | None = None
    kind: str | None = None
    reading: Reading = Reading()

    def read(self) -> DataSet[Comparison]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Comparison]:
        responses, kind = texts(row, self.responses), _label(row, self.kind)
        ranks = range(1, len(responses) + 1)
        yield Comparison.from_ranks(_identity(row, self.id), read_prompt(self.prompt, row), responses, ranks, kind=kind)


class QaFeedback(Frozen):
    """K responses in columns and a list of judgements of all their pairs: 0 tie, 1 the first, 2 the second.

    The pairs come in the order 1-2, 1-3, ..., 2-3, ... (`finegrained-qa-feedback`: "preference"). Judgements that
    contradict each other are kept as they are.
    """

    format: Literal["qa_feedback"] = "qa_feedback"
    path: DataPath
    prompt: PromptColumns = "question"
    responses: Annotated[tuple[str, ...], Field(min_length=2)] = (
        "prediction 1",
        "prediction 2",
        "prediction 3",
        "prediction 4",
    )
    preference: str = "preference"
    id: str | None = None
    kind: str | None = None
    reading: Reading = Reading()

    def read(self) -> DataSet[Comparison]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Comparison]:
        responses = tuple(text(row, c, may_be_empty=True) for c in self.responses)
        pairs, said = list(combinations(range(len(responses)), 2)), get(row, self.preference)
        if not isinstance(said, list) or len(said) != len(pairs):
            raise DataError(
                f"the column {self.preference!r} must hold one judgement for each of {len(pairs)} pairs",
                got=brief(said),
                why="a judgement cannot be matched with its pair",
                fix="mend the row or leave it out",
            )
        judged = [_judged(pair, choice(row, self.preference, s)) for pair, s in zip(pairs, said, strict=True)]
        prompt, kind = read_prompt(self.prompt, row), _label(row, self.kind)
        yield Comparison(_identity(row, self.id), prompt, responses, tuple(judged), kind=kind)


def _judged(pair: tuple[int, int], said: int) -> Preference:
    """0 tie, 1 the first of the pair, 2 the second."""
    better, worse = (pair[1], pair[0]) if said == 2 else pair
    return Preference(better, worse, tie=said == 0)


class Votes(Frozen):
    """Two responses and one vote per annotator (0 tie, 1 the first, 2 the second): one comparison per annotator.

    A null vote means that the annotator was not asked.
    """

    format: Literal["votes"] = "votes"
    path: DataPath
    prompt: PromptColumns = ("instruction", "input")
    responses: tuple[str, str] = ("response1", "response2")
    votes: Annotated[tuple[str, ...], Field(min_length=1)] = ("annotator1", "annotator2", "annotator3")
    id: str | None = None
    kind: str | None = None
    reading: Reading = Reading()

    def read(self) -> DataSet[Comparison]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Comparison | LeftOut]:
        prompt, identity, kind = read_prompt(self.prompt, row), _identity(row, self.id), _label(row, self.kind)
        responses = tuple(text(row, c, may_be_empty=True) for c in self.responses)
        for annotator in self.votes:
            vote = get(row, annotator)
            if vote is None:
                yield LeftOut("no vote of an annotator")
                continue
            preference = _judged((0, 1), choice(row, annotator, vote))
            yield Comparison(
                f"{identity}/{annotator}", prompt, responses, (preference,), annotator=annotator, kind=kind
            )


class OasstTrees(Frozen):
    """OpenAssistant message trees: a comparison for each user turn with at least two ranked replies.

    The prompt is the dialogue from the root; ranks start at 0, which is best. Replies without a rank and branches that
    begin with a deleted message make nothing and are counted.
    """

    format: Literal["oasst_trees"] = "oasst_trees"
    path: DataPath
    prompt: str = "prompt"
    reading: Reading = Reading()

    def read(self) -> DataSet[Comparison]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Comparison | LeftOut]:
        yield from self._below(row, get(row, self.prompt), ())

    def _below(self, row: Row, node: Any, before: tuple[Message, ...]) -> Iterator[Comparison | LeftOut]:
        if not _is_tree(node):
            raise DataError(
                "a message of the tree lacks its text, role or replies",
                got=brief(node),
                why="the dialogue that leads to a reply is part of its prompt",
                fix="mend the row or leave it out",
            )
        if node.get("deleted"):
            yield LeftOut("a branch that begins with a deleted message")
            return
        so_far = (*before, *dialogue([{"role": node["role"], "content": node["text"]}], self.prompt))
        if so_far[-1].role == "user":
            yield from self._judged(str(node.get("message_id", row.name)), so_far, node["replies"])
        for reply in node["replies"]:
            yield from self._below(row, reply, so_far)

    def _judged(
        self, identity: str, prompt: tuple[Message, ...], replies: Sequence[Any]
    ) -> Iterator[Comparison | LeftOut]:
        alive = [r for r in replies if _is_tree(r) and not r.get("deleted")]
        ranked = [r for r in alive if isinstance(r.get("rank"), int)]
        yield from [LeftOut("a reply without a rank")] * (len(alive) - len(ranked))
        if len(ranked) < 2:
            yield LeftOut("a user turn with fewer than two ranked replies")
            return
        lowest = min(r["rank"] for r in ranked)
        ranks = [1 + r["rank"] - lowest for r in ranked]
        yield Comparison.from_ranks(identity, prompt, [r["text"] for r in ranked], ranks)


def _is_tree(node: Any) -> bool:
    return (
        isinstance(node, dict)
        and isinstance(node.get("text"), str)
        and isinstance(node.get("role"), str)
        and isinstance(node.get("replies"), list)
    )


class Tasks(Frozen):
    """Prompts to answer.

    Args:
        answer: column with the reference answer that rules check responses against; null when there is none.
        answer_after: the answer is what follows the last of these marks in its column, as `####` in GSM8K.
        id, kind: columns; by default file and line, and unknown.
    """

    format: Literal["tasks"] = "tasks"
    path: DataPath
    prompt: PromptColumns = "prompt"
    answer: str | None = None
    answer_after: Annotated[str, Field(min_length=1)] | None = None
    id: str | None = None
    kind: str | None = None
    reading: Reading = Reading()

    def read(self) -> DataSet[Task]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Task]:
        answer = "" if self.answer is None else _answer(row, self.answer, self.answer_after)
        prompt, kind = read_prompt(self.prompt, row), _label(row, self.kind)
        yield Task(_identity(row, self.id), prompt, kind=kind, answer=answer)


def _answer(row: Row, column: str, mark: str | None) -> str:
    """The reference answer in a column."""
    said = text(row, column)
    answer = said if mark is None else said.rpartition(mark)[2] if mark in said else ""
    if answer.strip():
        return answer.strip()
    raise DataError(
        f"the column {column!r} must hold an answer" + ("" if mark is None else f" after {mark!r}"),
        got=brief(said),
        why="a rule would have nothing to check a response against",
        fix="mend the row or leave it out, or name another mark in `answer_after`",
    )


DemonstrationData = Annotated[Demonstrations | Messages, Field(discriminator="format")]

ComparisonData = Annotated[
    Pairs | Rankings | RankedList | QaFeedback | Votes | OasstTrees, Field(discriminator="format")
]
