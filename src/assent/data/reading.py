"""From a path to a data set: rows, records, and what is held out, as a recipe asks for it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Generic, TypeVar

from pydantic import Field, model_validator

from assent.config import Frozen
from assent.data.readers import LeftOut, OnBadRow, ReadReport, read_records
from assent.data.rows import Row, read_rows
from assent.data.splits import hold_out
from assent.records import Comparison, Demonstration, Document, Judgement, LabelledSolution, Task

R = TypeVar("R", Document, Demonstration, Comparison, Judgement, Task, LabelledSolution)


@dataclass(frozen=True, slots=True)
class DataSet(Generic[R]):
    """Records to train on, records held out by prompt, and the account of the reading."""

    train: Sequence[R]
    held_out: Sequence[R]
    report: ReadReport


class Reading(Frozen):
    """How a data set is read, whatever its format.

    Args:
        split, subset, revision: of a folder or hub data set, see `read_rows`.
        on_bad_row: refuse the data, naming the rows, or skip them, listing them in the report.
        limit: records to read at most, the first ones; null for all.
        held_out: share of prompts kept from training, 0 for none.
        seed: decides which prompts are held out.
        swap: train on what would be held out and hold out the rest: the other half of the prompts, for a second reward
            model that judges a policy trained on the first.
    """

    split: str | None = None
    subset: str | None = None
    revision: str | None = None
    on_bad_row: OnBadRow = "refuse"
    limit: Annotated[int, Field(ge=1)] | None = None
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: int = 0
    swap: bool = False

    @model_validator(mode="after")
    def _something_to_swap(self) -> "Reading":
        if self.swap and not self.held_out:
            raise ValueError("swap trains on what is held out; set held_out above 0, or leave swap out")
        return self


def read_data(path: str, reading: Reading, make: Callable[[Row], Iterable[R | LeftOut]]) -> DataSet[R]:
    """Read what is at `path`, making records of each row with `make`.

    Raises:
        DataError: as `read_rows`, `read_records` and `hold_out` say.
    """
    rows = read_rows(path, reading.split, subset=reading.subset, revision=reading.revision)
    records, report = read_records(rows, make, source=path, on_bad_row=reading.on_bad_row, limit=reading.limit)
    train, held_out = hold_out(records, reading.held_out, reading.seed)
    if reading.swap:
        train, held_out = held_out, train
    marked = [replace(r, split="held_out") if isinstance(r, Task) else r for r in held_out]
    return DataSet(train, marked, report)
