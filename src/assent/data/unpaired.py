"""Responses that were judged each by itself, as a recipe names them: `{format: unpaired, path: thumbs.jsonl}`."""

from collections.abc import Iterator
from typing import Literal

from assent.config import Frozen
from assent.data.columns import PromptColumns, get, read_prompt, text
from assent.data.dialogue import brief, cut_response, dialogue
from assent.data.formats import DataPath
from assent.data.reading import DataSet, Reading, read_data
from assent.data.rows import Row
from assent.errors import DataError
from assent.records import Judgement, PromptText


class Unpaired(Frozen):
    """A prompt, a response, and whether it was desirable: TRL's unpaired preference format as it stands.

    Args:
        prompt: its column; null when `response` holds a whole dialogue, whose last turn is then the response.
        response: its column, text or a list of messages that is the assistant's turn.
        label: its column: true or false, or 1 and 0.
    """

    format: Literal["unpaired"] = "unpaired"
    path: DataPath
    prompt: PromptColumns | None = "prompt"
    response: str = "completion"
    label: str = "label"
    annotator: str | None = None
    kind: str | None = None
    reading: Reading = Reading()

    def read(self) -> DataSet[Judgement]:
        return read_data(self.path, self.reading, self.records)

    def records(self, row: Row) -> Iterator[Judgement]:
        said = get(row, self.label)
        if not (isinstance(said, (bool, int)) and said in (0, 1)):
            raise DataError(
                f"the column {self.label!r} must hold true or false",
                got=brief(said),
                why="whether the response was desirable is not known",
                fix="mend the row or leave it out; a rating must be cut into good and bad first",
            )
        prompt, response = self._asked_and_said(row)
        annotator = text(row, self.annotator) if self.annotator else ""
        kind = text(row, self.kind) if self.kind else ""
        yield Judgement(row.name, prompt, response, bool(said), annotator=annotator, kind=kind)

    def _asked_and_said(self, row: Row) -> tuple[PromptText, str]:
        value = get(row, self.response)
        if self.prompt is None:
            return cut_response(dialogue(value, self.response), self.response)
        prompt = read_prompt(self.prompt, row)
        if isinstance(value, str):
            return prompt, text(row, self.response)
        turns = dialogue(value, self.response)
        if len(turns) == 1 and turns[0].role == "assistant":
            return prompt, turns[0].content
        raise DataError(
            f"the column {self.response!r} must hold a text, or one turn of the assistant",
            got=brief(value),
            why="what was judged cannot be told from what was asked",
            fix="give the response alone, or set prompt to null where the column holds the whole dialogue",
        )
