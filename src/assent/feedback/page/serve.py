"""Serving the page: on this machine without passwords, elsewhere only with link tokens."""

import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from assent.errors import ConfigError, DataError
from assent.feedback.arena import Arena, Policy
from assent.feedback.page.app import create_app
from assent.feedback.page.security import is_loopback
from assent.feedback.page.talk import HOME, add_arena
from assent.feedback.page.visitor import NAME
from assent.feedback.store import Store

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


EVERYWHERE = ("0.0.0.0", "::")
"""Hosts that name every interface, and no address that a browser could open."""

STORE_OF_A_RUN = "feedback.db"
"""Where the folder of a run keeps its store."""


def open_store(where: str, *, new: bool = False, **settings: Any) -> Store:
    """The store that is to be labelled.

    Args:
        where: the folder of a run, the file of a store, or a URL.
        new: make the file where there is none.
        settings: those of `Store`.

    Raises:
        DataError: there is nothing at that path, or it is not a store.
    """
    if "://" in where:
        return Store.open(where, **settings)
    path = Path(where).expanduser()
    file = path / STORE_OF_A_RUN if path.is_dir() else path
    if not file.is_file() and not new:
        raise DataError(
            f"there is no store at {where}",
            got=f"no file {file}",
            why="a new store would have no questions, and a slip in the path would go unnoticed",
            fix="give the folder of a run that asks people, or the file that questions were added to",
        )
    return Store.open(str(file), **settings)


def invite(store: Store, name: str, address: str) -> str:
    """A link that signs `name` in at the page served at `address`.

    Raises:
        DataError: the page could not show this name.
    """
    if not NAME.fullmatch(name):
        raise DataError(
            "this name cannot sign in",
            got=name,
            why="names stand in lists, exports and file names",
            fix="use letters, digits, spaces, dots, hyphens and @, 60 at most",
        )
    return f"{address.rstrip('/')}/join/{store.invite(name)}"


def check_address(host: str, *, tokens: bool) -> None:
    """Refuse to listen where others can reach the page while anybody could answer under any name.

    Raises:
        ConfigError: `host` is not this machine's own, and sign-in by tokens is off.
    """
    if not is_loopback(host) and not tokens:
        raise ConfigError(
            "the page cannot be served to other machines without sign-in",
            got=f"host {host!r} without tokens",
            why="whoever reaches the address could answer in anybody's name, and read what was asked",
            fix="invite each annotator with `assent label invite NAME STORE` and serve with --tokens, or leave out "
            "--host to serve this machine alone",
        )


def check_proxies(proxies: Sequence[str], *, tokens: bool) -> None:
    """Refuse proxies that cannot be told from everybody else, and a page that a proxy opens to others without sign-in.

    Raises:
        ConfigError: one is no address or network of addresses, or is every address, or sign-in by tokens is off.
    """
    for proxy in proxies:
        try:
            named = ipaddress.ip_network(proxy).prefixlen > 0
        except ValueError:
            named = False
        if not named:
            raise ConfigError(
                "a proxy is trusted by its address",
                got=proxy,
                why="whoever is trusted says who is asking: anybody else could take the name of another address",
                fix="give the address that the proxy connects from, such as 127.0.0.1 or 10.0.0.0/24",
            )
    if proxies and not tokens:
        raise ConfigError(
            "the page cannot be served behind a proxy without sign-in",
            got=f"proxies {', '.join(proxies)} without tokens",
            why="whoever reaches the proxy could answer in anybody's name, and read what was asked",
            fix="invite each annotator with `assent label invite NAME STORE` and serve with --tokens",
        )


def server_settings(app: ASGIApp, proxies: Sequence[str] = ()) -> uvicorn.Config:
    """Of the server, apart from where it listens.

    Without proxies `X-Forwarded-For` and `X-Forwarded-Proto` are nobody's to say. uvicorn by itself believes them from
    this machine, or from whom the variable FORWARDED_ALLOW_IPS names.
    """
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
    )


def listen(host: str, port: int) -> socket.socket:
    """Bound before any address is told: the key of a page that never opens is of no use to anybody.

    Raises:
        ConfigError: something else listens there, or it is no address of this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"the page cannot be served at {host}, port {port}",
            got=error,
            why="a port belongs to one program at a time, and only this machine's own addresses can be listened to",
            fix=f"end what runs there, or choose another port: --port {port + 1}",
        ) from error


def serve(
    store: Store,
    *,
    host: str = "127.0.0.1",
    port: int = 8321,
    tokens: bool = False,
    proxies: Sequence[str] = (),
    say: Callable[[str], None] = print,
    policies: Sequence[Policy] = (),
) -> None:
    """Serve until Ctrl-C.

    Args:
        store: where questions come from and answers go.
        host: the interface to listen on.
        port: 8321 unless said otherwise.
        tokens: whether annotators sign in by the link that they were sent, and not by a name that they type.
        proxies: addresses or networks from which it is believed who asks, and whether by https.
        say: where the addresses are told.
        policies: served in an arena, which signing in then leads to.

    Raises:
        ConfigError: see `check_address`, `check_proxies`, `listen` and `Arena`.
    """
    check_address(host, tokens=tokens)
    check_proxies(proxies, tokens=tokens)
    listening = listen(host, port)
    admin = secrets.token_urlsafe(24)
    # Behind a proxy the page is asked for by the proxy's name.
    hosts = frozenset({*LOCAL_NAMES, host}) if is_loopback(host) and not proxies else None
    home = HOME if policies else "/"
    app = create_app(store, passwordless=not tokens, admin_token=admin, hosts=hosts, home=home)
    if policies:
        add_arena(app, Arena(store, policies))
    seen = "localhost" if host in EVERYWHERE else host
    named = f"[{seen}]" if ":" in seen else seen
    what = "Talk" if policies else "Answer"
    if tokens:
        say(f"{what} with the link of an invitation; {host}, port {port}, is listened to")
    else:
        say(f"{what} at http://{named}:{port}/")
    say(f"Everyone's answers: http://{named}:{port}/admin?token={admin}")
    say("Ctrl-C ends it; every answer is in the store at once.")
    uvicorn.Server(server_settings(app, proxies)).run(sockets=[listening])
