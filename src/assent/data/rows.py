"""Files and hub data sets to rows that know where they stand.

Local: `.jsonl`, `.json` (a list of objects, or JSON lines under the wrong name), `.csv`, `.tsv`, `.parquet`, `.txt`
(the whole file as one row with the column `text`); all but Parquet also with `.gz`. A folder, and a name that is no
file, go through `datasets.load_dataset`.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast

from assent.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Args:
        values: by column.
        file: path or data set name, as given.
        line: line on which the row starts, from 1; the number of the row, from 1, where there are no lines.
    """

    values: Mapping[str, Any]
    file: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def name(self) -> str:
        """The same without the folder: an identity that does not depend on the machine."""
        return f"{Path(self.file).name}:{self.line}"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why; `DataError`'s four answers with the place."""

    file: str
    line: int
    what: str
    got: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}; got {self.got}; {self.why}; {self.fix}"


def read_rows(
    source: str | Path, split: str | None = None, *, subset: str | None = None, revision: str | None = None
) -> Iterator[Row | BadRow]:
    """Every row of a file, folder or hub data set, in order; a row that cannot be parsed comes as a `BadRow`.

    Args:
        source: path of a file or folder, or the name of a data set on the hub.
        split: of a folder or hub data set; may be left out where there is only one.
        subset: configuration of a hub data set, such as `main`.
        revision: commit of a hub data set; name it to be able to repeat the run.

    Raises:
        DataError: nothing is there, the file as a whole is damaged or of an unknown kind, or the split is not there.
    """
    path = Path(source).expanduser()
    reader = _READERS.get(_suffix(path))
    if path.is_file():
        if reader is None:
            raise _unknown_kind(path)
        if split or subset or revision:
            raise DataError(
                "a single file has no splits, subsets or revisions",
                got=f"{path} with {split=}, {subset=}, {revision=}",
                why="a setting that changes nothing would mislead",
                fix="leave them out, or name the folder that holds a file for each split",
            )
        return reader(path)
    if path.is_dir():
        return _hub(str(path), split, subset, revision)
    if reader is not None or path.is_absolute() or str(source).startswith((".", "~")):
        raise DataError("no such file", got=str(path), why="there is nothing to read", fix="check the path")
    return _hub(str(source), split, subset, revision)


# ------------------------------------------------------------------------------------------------ text files


def _suffix(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])


def _open(path: Path) -> BinaryIO:
    """Bytes, so that one bad character spoils one row and not the file."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _decoded(path: Path) -> str:
    with _open(path) as file:
        raw = file.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8 text",
            got=f"byte {raw[error.start]:#04x} on line {line}",
            why="guessing another encoding would train on garbled text",
            fix="convert the file to UTF-8",
        ) from error


def _jsonl(path: Path) -> Iterator[Row | BadRow]:
    with _open(path) as file:
        for line, raw in enumerate(file, start=1):
            raw = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
            if raw.strip():
                yield _parsed(path, line, raw)


def _parsed(path: Path, line: int, raw: bytes) -> Row | BadRow:
    try:
        text = raw.decode("utf-8")
        value = json.loads(text)
    except ValueError as error:  # of which UnicodeDecodeError and JSONDecodeError are kinds
        return _bad(path, line, "the line is not JSON", f"{error}: {_short(raw)}", "mend or delete the line")
    return _object(path, line, value, text)


def _object(path: Path, line: int, value: Any, text: str) -> Row | BadRow:
    """The row, when its JSON `text` was an object of characters that a tokenizer can take."""
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            got = f"{error.object[error.start]!r}"
            return _bad(path, line, "half of a surrogate pair is no character", got, "mend the escape, or delete it")
    if isinstance(value, dict):
        return Row(value, str(path), line)
    got = f"{type(value).__name__} {_short(value)}"
    return _bad(path, line, "a row must be a JSON object", got, 'write {"column": value, ...}')


def _bad(path: Path, line: int, what: str, got: str, fix: str) -> BadRow:
    return BadRow(str(path), line, what, got, "its columns cannot be read", fix)


def _json(path: Path) -> Iterator[Row | BadRow]:
    text = _decoded(path)
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] == "[":
        yield from _array(path, text, start + 1)
        return
    first = text[start:].partition("\n")[0]
    try:
        json.loads(first)
    except ValueError as error:
        raise DataError(
            f"{path} is neither a list of objects nor JSON lines",
            got=_short(text[start:]),
            why="rows must be the items of one list, or one to a line",
            fix="write the list that holds the rows to a file of its own",
        ) from error
    yield from _jsonl(path)


def _array(path: Path, text: str, at: int) -> Iterator[Row | BadRow]:
    """The items of a list one by one, so that each knows the line it starts on."""
    decoder, line, counted = json.JSONDecoder(), 1, 0
    while True:
        at = _skip(text, at, " \t\r\n")
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise _damaged(path, error.lineno, str(error)) from error
        yield _object(path, line, value, text[at:end])
        at = _skip(text, end, " \t\r\n")
        if text[at : at + 1] not in (",", "]"):
            raise _damaged(path, text.count("\n", 0, at) + 1, f"neither , nor ] but {_short(text[at:])}")
        at += text[at] == ","
    rest = text[at + 1 :].strip()
    if rest:
        raise _damaged(path, text.count("\n", 0, at) + 1, f"after the list's end: {_short(rest)}")


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _damaged(path: Path, line: int, got: str) -> DataError:
    return DataError(
        f"{path}:{line}: the list breaks off or is not JSON",
        got=got,
        why="what follows cannot be told from what precedes it, so no later row can be read",
        fix="mend the file, or write one object a line (.jsonl), where a broken line spoils only itself",
    )


def _csv(path: Path) -> Iterator[Row | BadRow]:
    delimiter = "\t" if _suffix(path) == ".tsv" else ","
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), delimiter=delimiter, strict=True)
    columns = next(reader, [])
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}:{line}: the table breaks off", got=error, why="quotes do not match", fix="mend the quotes"
            ) from error
        if len(cells) == len(columns):
            yield Row(dict(zip(columns, cells, strict=True)), str(path), line)
        elif cells:
            what = f"a row must have the {len(columns)} columns of the first line"
            yield _bad(path, line, what, f"{len(cells)} cells", "quote cells that hold a delimiter")


def _txt(path: Path) -> Iterator[Row | BadRow]:
    yield Row({"text": _decoded(path)}, str(path), 1)


# ------------------------------------------------------------------------------------------------ tables and the hub


def _parquet(path: Path) -> Iterator[Row | BadRow]:
    import pyarrow
    import pyarrow.parquet

    numbers = count(1)
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for values in batch.to_pylist():
                yield Row(values, str(path), next(numbers))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a whole Parquet file",
            got=error,
            why="its rows cannot be read",
            fix="write or copy it again",
        ) from error


def _hub(name: str, split: str | None, subset: str | None, revision: str | None) -> Iterator[Row | BadRow]:
    import datasets

    try:
        loaded = datasets.load_dataset(name, subset, split=split, revision=revision)
    except Exception as error:  # the library raises many kinds; whichever it is, nothing was read
        raise DataError(
            f"the data set {name!r} cannot be loaded",
            got=f"{type(error).__name__}: {error}",
            why="it is neither a file here nor could `datasets.load_dataset` fetch it",
            fix="check the path, name, subset, split and revision; without a network, download it first",
        ) from error
    if isinstance(loaded, dict):
        if len(loaded) != 1:
            raise DataError(
                f"the data set {name!r} has several splits",
                got=", ".join(loaded),
                why="one split is one set of rows; mixing train and test is not done in silence",
                fix="name one in `split`",
            )
        ((split, loaded),) = loaded.items()
    place = f"{name}[{split}]"
    return (Row(values, place, number) for number, values in enumerate(loaded, start=1))


_READERS: dict[str, Callable[[Path], Iterator[Row | BadRow]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".txt": _txt,
}


def _unknown_kind(path: Path) -> DataError:
    return DataError(
        "the kind of the file is not known",
        got=str(path),
        why="its rows cannot be told from its name",
        fix=f"use one of {', '.join(_READERS)}",
    )


def _short(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:59] + "…")
