"""Exports and imports as files, with an account of what was written and what was not."""

from collections.abc import Callable, Mapping
from pathlib import Path

from assent.errors import DataError
from assent.feedback.exchange import bring_in, export
from assent.feedback.store import Store

Say = Callable[[str], None]


def export_file(
    store: Store, out: Path, form: str, *, batch: str | None = None, dimension: str | None = None, say: Say = print
) -> None:
    """Write the answers that stand.

    Raises:
        DataError: there is no such form, a prompt does not fit into it, nobody has answered, or the file cannot be
            written.
    """
    written = export(store.answers(batch=batch), form, dimension)
    if not written.rows:
        raise DataError(
            f"there is nothing to export as {form}",
            got=_account(written.left_out) or "no answer that stands",
            why="an empty file would be taken for a whole one",
            fix="have questions answered, or choose a form that has room for these answers; `assent` has for all",
        )
    try:
        out.write_text(written.text, encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(
            f"{out} cannot be written",
            got=error,
            why="answers go into one file",
            fix="name one in a folder that is there",
        ) from error
    say(f"{out}: {written.rows:,} rows" + ("" if written.left_out else "; nothing was left out"))
    _say_left(written.left_out, "the form has no room for them", say)


def import_file(path: Path, store: str, form: str, *, batch: str | None, annotator: str, say: Say = print) -> None:
    """Read a file into a store, which is made when absent.

    Raises:
        DataError: the file is missing, or a row of it is not of the form; nothing has been written then.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read", got=error, why="answers are text, in UTF-8", fix="check the path and the encoding"
        ) from error
    opened = Store.open(store)
    try:
        brought = bring_in(opened, text, form, batch=batch or path.stem, annotator=annotator)
    finally:
        opened.close()
    known = f", {brought.known:,} were there before" if brought.known else ""
    say(f"{store}: {brought.answers:,} answers to {brought.questions:,} new questions{known}")
    _say_left(brought.left_out, "not taken", say)


def _account(left_out: Mapping[str, int]) -> str:
    return "; ".join(f"{n:,}: {reason}" for reason, n in left_out.items())


def _say_left(left_out: Mapping[str, int], why: str, say: Say) -> None:
    for reason, n in left_out.items():
        say(f"  left out {n:,}: {reason} ({why})")
