"""What stands between the page and the world: headers, hosts, forged requests, floods and over-long bodies."""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing inline, nothing from elsewhere: were escaping ever to fail, the browser would still refuse to run it."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
LONGEST_BODY = 1024 * 1024
"""Bytes of one request; a demonstration of 100,000 Chinese letters, percent-encoded to 9 bytes each, fits."""

BURST, REFILL_PER_SECOND = 60, 10.0
"""Requests a visitor may make at once, and how fast they come back: far above any person, far below a flood."""

MOST_VISITORS = 10_000
"""Visitors whose pace is remembered; the one seen longest ago is forgotten first."""


def csrf_token(session: str) -> str:
    """What a form must carry, derived from the cookie that another site can neither read nor guess."""
    return hmac.new(session.encode(), b"assent form", hashlib.sha256).hexdigest()


def csrf_fits(session: str, token: str) -> bool:
    """Whether a form belongs to the session; where there is none, none does."""
    return bool(session) and hmac.compare_digest(csrf_token(session).encode(), token.encode())


def new_session() -> str:
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Pace:
    """A bucket of requests for each visitor.

    Args:
        burst: requests at once.
        per_second: requests that come back in a second.
        clock: seconds, rising.
    """

    def __init__(
        self,
        burst: float = BURST,
        per_second: float = REFILL_PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, visitor: str) -> bool:
        now = self._clock()
        left, since = self._left.pop(visitor, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        allowed = left >= 1
        self._left[visitor] = (left - 1 if allowed else left, now)
        if len(self._left) > MOST_VISITORS:
            self._left.popitem(last=False)
        return allowed


class _TooLong(Exception):
    """A body above the limit."""


class _Gone(Exception):
    """Whoever was sending hung up."""


class Guard:
    """The outermost layer of the application: refuses before anything of a request is read, and sets the headers.

    Args:
        app: what is guarded.
        hosts: names that a request may ask for; None for any. On this machine alone they keep a site that has its own
            name point here (DNS rebinding) from being answered.
        pace: how many requests one address may make.
        longest_body: bytes.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str] | None, pace: Pace, longest_body: int = LONGEST_BODY
    ) -> None:
        self._app, self._hosts, self._pace, self._longest = app, hosts, pace, longest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal:
            await refusal(scope, receive, send_guarded)
            return
        try:
            body = await self._body(scope, receive)
        except _TooLong:
            await _plain("This is too long to send; shorten it.", 413)(scope, receive, send_guarded)
            return
        except _Gone:
            return
        await self._app(scope, _replayed(body, receive), send_guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and urlsplit(f"//{host}").hostname not in self._hosts:
            return _plain("This name is not served here; open the address that the terminal printed.", 421)
        if scope["method"] not in ("GET", "HEAD") and not _same_origin(headers):
            return _plain("This request came from another site.", 403)
        visitor = scope["client"][0] if scope.get("client") else ""
        if not scope["path"].startswith("/static/") and not self._pace.allows(visitor):
            return _plain("Too many requests; wait a few seconds and reload.", 429, {"retry-after": "5"})
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self._longest:
            return _plain("This is too long to send; shorten it.", 413)
        return None

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, read here so that one sent in pieces without a length is held to the same limit.

        Raises:
            _TooLong: it is longer than that.
            _Gone: the connection broke off within it. Half a form can look like an answer, and would stand in the way
                of the whole one that is sent next.
        """
        if scope["method"] in ("GET", "HEAD"):
            return b""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            body += message.get("body", b"")
            if len(body) > self._longest:
                raise _TooLong
            if not message.get("more_body", False):
                return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _same_origin(headers: Headers) -> bool:
    """Browsers say where a form was sent from; a client that says nothing still needs the token of the form."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _plain(text: str, status: int, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(text, status_code=status, headers=headers)
