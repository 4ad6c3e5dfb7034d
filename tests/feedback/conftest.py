"""A store on SQLite and on a real, private PostgreSQL server."""

import time

import pytest
from benchmarks.local_servers import Absent, postgresql
from sqlalchemy import text

from assent.feedback.store import Store


@pytest.fixture(scope="session")
def postgres():
    try:
        with postgresql() as url:
            yield url
    except Absent as absent:
        pytest.skip(str(absent))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """Of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/feedback.db"
    base = request.getfixturevalue("postgres")
    name = f"t{time.time_ns()}"
    admin = Store.open(base)
    with admin.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.close()
    return base.replace("/postgres?", f"/{name}?")
