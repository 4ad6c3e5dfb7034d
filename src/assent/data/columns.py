"""What a column holds, checked: text, numbers, prompts. Errors name the column."""

from typing import Annotated, Any

from pydantic import Field

from assent.config import Frozen
from assent.data.dialogue import brief, dialogue
from assent.data.rows import Row
from assent.errors import DataError
from assent.records import Message, PromptText


def get(row: Row, column: str) -> Any:
    """The value of a column; `instances.0.output` goes into objects and lists where no column has that whole name.

    Raises:
        DataError: there is no such column.
    """
    if column in row.values:
        return row.values[column]
    value: Any = row.values
    for part in column.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise DataError(
                f"there is no column {column!r}",
                got=f"columns {', '.join(row.values) or 'none'}",
                why="the record cannot be built without it",
                fix="name the column that holds it in the recipe, or mend the row",
            )
    return value


def text(row: Row, column: str, *, may_be_empty: bool = False) -> str:
    """A column that holds text. Numbers and bools are refused: how to write them is for the file to say."""
    value = get(row, column)
    if isinstance(value, str) and (may_be_empty or value.strip()):
        return value
    raise DataError(
        f"the column {column!r} must hold text",
        got=brief(value),
        why="there is nothing to learn from it"
        if isinstance(value, str)
        else "it is not text, and is not turned into it",
        fix="mend the row or leave it out; quote the value if it is meant as text",
    )


def texts(row: Row, column: str) -> tuple[str, ...]:
    """A column that holds a list of two or more texts."""
    value = get(row, column)
    if isinstance(value, list) and len(value) >= 2 and all(isinstance(v, str) for v in value):
        return tuple(value)
    raise DataError(
        f"the column {column!r} must hold a list of at least two texts",
        got=brief(value),
        why="one response cannot be compared with itself",
        fix="mend the row or leave it out",
    )


def documents(row: Row, column: str) -> list[str]:
    """A column that holds a list of texts, or of lists of texts, each of which is joined by a space; may be empty."""
    value = get(row, column)
    if isinstance(value, list):
        items = [item if isinstance(item, list) else [item] for item in value]
        if all(isinstance(part, str) for item in items for part in item):
            return [whole for whole in (" ".join(item) for item in items) if whole.strip()]
    raise DataError(
        f"the column {column!r} must hold a list of texts, or of lists of texts",
        got=brief(value),
        why="documents are made of text",
        fix="mend the row, or name a column that holds text",
    )


def choice(row: Row, column: str, value: Any) -> int:
    """A judgement coded 0 tie, 1 the first, 2 the second."""
    if value in (0, 1, 2) and isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DataError(
        f"the column {column!r} must hold 0 (tie), 1 (the first) or 2 (the second)",
        got=brief(value),
        why="which response was preferred is not known",
        fix="mend the row or leave it out",
    )


class PromptFrom(Frozen):
    """Where the prompt stands, in full; see `PromptColumns` for the short forms.

    Args:
        columns: texts joined by an empty line, empty ones left out (instruction and input); or one column that holds
            a list of messages.
        history: column with the turns before, as a list of [user, assistant] pairs; the prompt is then a dialogue.
        system: column with the system message; the prompt is then a dialogue. Empty means no such message.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("prompt",)
    history: str | None = None
    system: str | None = None

    def read(self, row: Row) -> PromptText:
        """The prompt of a row.

        Raises:
            DataError: a column is missing or not of its kind, or the prompt is empty.
        """
        value = get(row, self.columns[0])
        before = (*self._system_turn(row), *self._history_turns(row))
        if isinstance(value, list) and len(self.columns) == 1:
            return (*before, *dialogue(value, self.columns[0]))
        parts = [text(row, column, may_be_empty=True) for column in self.columns]
        whole = "\n\n".join(p for p in parts if p.strip())
        if not whole:
            raise DataError(
                f"the prompt is empty: {', '.join(self.columns)}",
                got="no text",
                why="there is nothing to answer",
                fix="mend the row or leave it out",
            )
        return (*before, Message("user", whole)) if self.history or self.system else whole

    def _system_turn(self, row: Row) -> tuple[Message, ...]:
        said = text(row, self.system, may_be_empty=True) if self.system else ""
        return (Message("system", said),) if said else ()

    def _history_turns(self, row: Row) -> tuple[Message, ...]:
        pairs = get(row, self.history) if self.history else []
        if isinstance(pairs, list) and all(_is_exchange(p) for p in pairs):
            return tuple(m for q, a in pairs for m in (Message("user", q), Message("assistant", a)))
        raise DataError(
            f"the column {self.history!r} must hold [user, assistant] pairs of texts",
            got=brief(pairs),
            why="what was said before cannot be told",
            fix="mend the row, or give the dialogue as a list of messages",
        )


def _is_exchange(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)


PromptColumns = str | Annotated[tuple[str, ...], Field(min_length=1)] | PromptFrom
"""Where the prompt stands: a column, columns to join, or both with history and system."""


def read_prompt(columns: PromptColumns, row: Row) -> PromptText:
    """The prompt of a row; raises as `PromptFrom.read`.

    The short forms are not turned into `PromptFrom` by a validator because pydantic's strict mode, in which recipes are
    read, then takes no list for a tuple.
    """
    if isinstance(columns, str):
        columns = (columns,)
    return (PromptFrom(columns=columns) if isinstance(columns, tuple) else columns).read(row)
