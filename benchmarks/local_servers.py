"""Servers of this machine that benchmarks measure and tests use: the page on a free port, and a private PostgreSQL."""

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLACES = (*os.environ.get("PATH", "").split(os.pathsep), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))))

UNASKED = range(10_000, 16_000)
"""Ports left to those who name one: Linux hands out from 32768 by itself, macOS from 49152, gVisor from 16000."""


class Absent(Exception):
    """What is needed is not installed here."""


def free_port() -> int:
    """A port that nobody holds, from below those that the system hands out by itself.

    One of those would go to whoever asks next while a server that is being restarted does not hold it.
    """
    for port in random.SystemRandom().sample(UNASKED, len(UNASKED)):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            return port
    raise OSError(f"every port from {UNASKED[0]} to {UNASKED[-1]} is taken; end some servers")


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """The application on a free port of this machine, in a thread of this process; yields its address."""
    import uvicorn

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    assert server.started
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def _program(name: str) -> str | None:
    return next((p for p in (shutil.which(name, path=place) for place in PLACES) if p), None)


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return None
    names = {u.pw_name for u in pwd.getpwall()}
    return next((n for n in ("postgres", "nobody") if n in names), None)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A private PostgreSQL server: a folder of its own, a socket, no network; yields its URL.

    Raises:
        Absent: its programs are not installed, or there is nobody to run them as.
    """
    initdb, postgres, pg_ctl = (_program(n) for n in ("initdb", "postgres", "pg_ctl"))
    user = _user()
    if not (initdb and postgres and pg_ctl) or (user is None and not os.geteuid()):
        raise Absent("PostgreSQL is not installed here (apt-get install postgresql), so only SQLite is used")
    folder = Path(tempfile.mkdtemp(prefix="assent-pg-"))
    if user:
        shutil.chown(folder, user)

    def as_user(*command: str) -> None:
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
