"""Connections: SQLite with a write-ahead log, or PostgreSQL by URL; tables migrated when a store is opened."""

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError

from assent.errors import DataError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
"""How long a writer waits for another before it gives up."""
MIGRATION_LOCK = 4_151_202_611
"""Any number that nobody else locks in the same PostgreSQL database."""


def url_of(where: str) -> str:
    """The URL of a store: itself, or SQLite's of a path; `postgresql://` speaks through psycopg.

    Raises:
        DataError: it is neither SQLite nor PostgreSQL, or the driver of the latter is not installed.
    """
    if "://" not in where:
        return f"sqlite:///{Path(where).expanduser()}"
    try:
        url = make_url(where)
    except ArgumentError as error:
        raise _not_a_store(where, str(error)) from error
    if url.get_backend_name() == "sqlite":
        return where
    if url.get_backend_name() in ("postgresql", "postgres"):
        _need_driver()
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    raise _not_a_store(where, url.get_backend_name())


def _need_driver() -> None:
    if importlib.util.find_spec("psycopg") is None:
        raise DataError(
            "a store in PostgreSQL needs psycopg, which is not installed",
            got="no module psycopg",
            why="it is the driver that speaks to the server; stores in SQLite need none",
            fix="pip install 'assent[postgres]'",
        )


def _not_a_store(where: str, got: str) -> DataError:
    return DataError(
        f"{where} is not the URL of a store",
        got=got,
        why="feedback is kept in SQLite or in PostgreSQL",
        fix="give a path, sqlite:///path, or postgresql://user:password@host/database",
    )


class Database:
    """One engine with transactions that read and transactions that write."""

    def __init__(self, url: str) -> None:
        self.url = url_of(url)
        self.sqlite = self.url.startswith("sqlite")
        if self.sqlite and (path := make_url(self.url).database):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        # SQLite has who waits to write ask again and again, the longer the more seldom; of forty threads the unluckiest
        # waited three times as long as when they stand in line here.
        self._turn: AbstractContextManager[Any] = Lock() if self.sqlite else nullcontext()
        self.engine: Engine = create_engine(self.url, **({} if self.sqlite else {"pool_size": 20, "max_overflow": 20}))
        if self.sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        try:
            migrate(self.engine)
        except DatabaseError as error:
            raise DataError(
                f"the store {make_url(self.url).render_as_string()} cannot be opened",
                got=str(error.orig).strip(),
                why="feedback must be written before it is acknowledged",
                fix="check that the server runs, or that the file is a store in a folder that can be written to",
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that is on the disk when the block ends, or has not happened. On SQLite it is alone.

        Args:
            durable: without it a power cut, not a kill, may lose the transaction unless a durable one followed: the
                log is flushed in order. Enough for a showing, which is worth nothing without its answer.
        """
        options = {"assent_write": True, "assent_durable": durable}
        with self._turn, self.engine.connect().execution_options(**options) as connection, connection.begin():
            if not durable and not self.sqlite:
                connection.execute(text("SET LOCAL synchronous_commit = off"))
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A reader that turns writer half-way fails at once when another wrote meanwhile: writers lock from the start.
    options = connection.get_execution_options()
    if options.get("assent_write", False):
        # FULL: an acknowledged answer survives a power cut, not only a kill.
        connection.exec_driver_sql(
            f"PRAGMA synchronous = {'FULL' if options.get('assent_durable', True) else 'NORMAL'}"
        )
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")


def migrate(engine: Engine) -> None:
    """Bring the tables up to this version; a store that is up to date is only looked at.

    Raises:
        DataError: the store was written by a newer version.
    """
    script = ScriptDirectory(str(MIGRATIONS))
    with engine.connect() as connection:
        if MigrationContext.configure(connection).get_current_revision() == script.get_current_head():
            return
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.connect().execution_options(assent_write=True) as connection, connection.begin():
        if engine.dialect.name != "sqlite":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise DataError(
                "the store was written by a newer version of Assent",
                got=str(error),
                why="this version cannot know what its tables mean",
                fix="install that version, or open another store",
            ) from error
