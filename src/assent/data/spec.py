"""Data as a recipe names it: where, in which format, and what is held out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Generic, TypeVar, cast

from pydantic import Field

from assent.config import Frozen
from assent.data.formats import Format, FormatName, LeftOut, named
from assent.data.readers import OnBadRow, ReadReport, read_records
from assent.data.rows import Row, read_rows
from assent.data.splits import hold_out
from assent.errors import ConfigError
from assent.records import Comparison, Demonstration, Document, Task

R = TypeVar("R", Document, Demonstration, Comparison, Task)


@dataclass(frozen=True, slots=True)
class DataSet(Generic[R]):
    """Records to train on, records held out by prompt, and the account of the reading."""

    train: Sequence[R]
    held_out: Sequence[R]
    report: ReadReport


class DataSpec(Frozen):
    """A data set of a recipe.

    Args:
        path: of a file or folder, or the name of a data set on the hub.
        format: how a row becomes a record; its name, or its name and columns.
        split, subset, revision: of a folder or hub data set, see `read_rows`.
        on_bad_row: refuse the data, naming the rows, or skip them, listing them in the report.
        held_out: share of prompts kept from training, 0 for none.
        limit: records to read at most, the first ones; null for all.
        seed: decides which prompts are held out.
    """

    path: str
    format: FormatName | Format
    split: str | None = None
    subset: str | None = None
    revision: str | None = None
    on_bad_row: OnBadRow = "refuse"
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    limit: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0

    def read(self, kind: type[R]) -> DataSet[R]:
        """Read it as records of one kind.

        Raises:
            ConfigError: the format gives records of another kind.
            DataError: as `read_rows`, `read_records` and `hold_out` say.
        """
        format = named(self.format)
        if format.gives is not kind:
            raise ConfigError(
                f"this place needs {kind.__name__.lower()}s",
                got=f"{self.path} as {format.name!r}, which gives {format.gives.__name__.lower()}s",
                why="one kind of record cannot stand for another",
                fix="name data of that kind, or the format that reads it",
            )
        rows = read_rows(self.path, self.split, subset=self.subset, revision=self.revision)
        make = cast(Callable[[Row], Iterable[R | LeftOut]], format.records)  # by the check above
        records, report = read_records(rows, make, source=self.path, on_bad_row=self.on_bad_row, limit=self.limit)
        train, held_out = hold_out(records, self.held_out, self.seed)
        marked = [replace(r, split="held_out") if isinstance(r, Task) else r for r in held_out]
        return DataSet(train, marked, report)
