"""Rows to records, with an account of everything that was read: kept, bad, or left out."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from assent.data.rows import BadRow, Row
from assent.errors import DataError

R = TypeVar("R")
OnBadRow = Literal["refuse", "skip"]
_SHOWN = 10
"""Bad rows that an error or a printed report spells out; the report itself holds all of them."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of a good row that makes no record; counted in the report under `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What became of every row.

    Args:
        source: path or name that was read.
        read: rows looked at; `read == kept + len(bad)`.
        kept: rows without a fault.
        records: records made of them; a row may make several, or none.
        bad: the skipped rows, all of them.
        left_out: parts of good rows that make no record, counted by reason.
        limited: reading stopped because the limit was reached.
    """

    source: str
    read: int
    kept: int
    records: int
    bad: tuple[BadRow, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    limited: bool = False

    def __str__(self) -> str:
        first = f"{self.source}: read {self.read:,} rows, kept {self.kept:,}, made {self.records:,} records"
        lines = [first + (" (stopped at the limit)" if self.limited else "")]
        lines += [f"  left out {n:,}: {reason}" for reason, n in self.left_out.items()]
        if self.bad:
            lines.append(f"  skipped {len(self.bad):,} bad rows")
        return "\n".join([*lines, *_listed(self.bad)])


def _listed(bad: Iterable[BadRow]) -> list[str]:
    lines = [f"    {row}" for row in bad]
    return lines[:_SHOWN] + ([f"    and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else [])


@dataclass(slots=True)
class _Account(Generic[R]):
    """The tally while rows go by."""

    records: list[R] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    read: int = 0

    def take(self, row: Row | BadRow, make: Callable[[Row], Iterable[Any]]) -> None:
        """Count the row, and keep what it makes; a row that is bad in one part is bad as a whole."""
        self.read += 1
        if isinstance(row, BadRow):
            self.bad.append(row)
            return
        try:
            made = list(make(row))
        except DataError as error:
            self.bad.append(BadRow(row.file, row.line, error.what, str(error.got), error.why, error.fix))
            return
        self.records += [m for m in made if not isinstance(m, LeftOut)]
        self.left_out.update(m.reason for m in made if isinstance(m, LeftOut))


def read_records(
    rows: Iterable[Row | BadRow],
    make: Callable[[Row], Iterable[R | LeftOut]],
    *,
    source: str,
    on_bad_row: OnBadRow = "refuse",
    limit: int | None = None,
) -> tuple[list[R], ReadReport]:
    """Make records of rows.

    Args:
        rows: from `read_rows`.
        make: `records` of a format, or any function of a row that yields records and raises `DataError`.
        source: what to call the rows in the report.
        on_bad_row: `refuse` reads on to count them all and then raises; `skip` goes on and lists them in the report.
        limit: records to make at most, the first ones.

    Raises:
        DataError: rows are bad and `on_bad_row` is `refuse`, or no record was made.
    """
    account: _Account[R] = _Account()
    limited = False
    for row in rows:
        account.take(row, make)
        limited = limit is not None and len(account.records) >= limit
        if limited:
            break
    if account.bad and on_bad_row == "refuse":
        raise _refused(account.bad, account.read)
    records, bad = account.records[:limit], tuple(account.bad)
    report = ReadReport(source, account.read, account.read - len(bad), len(records), bad, account.left_out, limited)
    if not records:
        raise DataError(
            f"{source} gave no record",
            got=str(report),
            why="an empty data set trains nothing",
            fix="check the path, the format and the names of its columns",
        )
    return records, report


def _refused(bad: list[BadRow], read: int) -> DataError:
    first = bad[0]
    if len(bad) == 1:
        what = f"{first.file}:{first.line}: {first.what}"
        return DataError(what, got=first.got, why=first.why, fix=f"{first.fix}; or set on_bad_row: skip")
    return DataError(
        f"{len(bad):,} of {read:,} rows of {first.file} are bad",
        got="\n" + "\n".join(_listed(bad)),
        why="rows that vanish in silence change what is trained on",
        fix="mend them, or set on_bad_row: skip, which lists them in the report",
    )
