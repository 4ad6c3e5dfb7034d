"""A private PostgreSQL server for a test session: a folder of its own, a socket, no network; skipped where absent."""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACES = (*os.environ.get("PATH", "").split(os.pathsep), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))))


def _program(name):
    return next((p for p in (shutil.which(name, path=place) for place in PLACES) if p), None)


def _user():
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return None
    names = {u.pw_name for u in pwd.getpwall()}
    return next((n for n in ("postgres", "nobody") if n in names), None)


@contextmanager
def server():
    initdb, postgres, pg_ctl = (_program(n) for n in ("initdb", "postgres", "pg_ctl"))
    user = _user()
    if not (initdb and postgres and pg_ctl) or (user is None and not os.geteuid()):
        pytest.skip("PostgreSQL is not installed here (apt-get install postgresql), so only SQLite is tested")
    folder = Path(tempfile.mkdtemp(prefix="assent-pg-"))
    if user:
        shutil.chown(folder, user)

    def as_user(*command):
        subprocess.run(command, check=True, capture_output=True, user=user, cwd=folder, timeout=120)

    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=on -c max_connections=120"
    try:
        as_user(initdb, "-D", f"{folder}/data", "-U", "assent", "--auth=trust", "-E", "UTF8", "--no-sync")
        as_user(pg_ctl, "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
        yield f"postgresql://assent@/postgres?host={folder}"
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            as_user(pg_ctl, "-D", f"{folder}/data", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
