"""Who a request comes from: the cookies of sign-in, language and theme."""

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request, Response

from assent.feedback.page.security import csrf_token
from assent.feedback.page.wording import LANGUAGES, Words, preferred

SESSION, ADMIN, LANGUAGE, THEME = "assent_session", "assent_admin", "assent_language", "assent_theme"
THEMES = ("light", "dark")
KEPT_SECONDS = 90 * 24 * 3600
"""How long a browser stays signed in."""

NAME = re.compile(r"[\w .@-]{1,60}")


@dataclass(frozen=True, slots=True)
class Visitor:
    """One request's sender.

    Args:
        session: the secret of this browser: a link token, or `secret:name` where names are typed; empty before sign-in.
        annotator: who answers; None before sign-in, or where the link is unknown.
        is_admin: whether the key of the admin page came along.
        words: the interface in the visitor's language.
        theme: `light` or `dark`; empty to follow the system.
    """

    session: str
    annotator: str | None
    is_admin: bool
    words: Words
    theme: str

    @property
    def csrf(self) -> str:
        return csrf_token(self.session)


def visitor_of(request: Request, *, name_of_token: Callable[[str], str | None] | None, admin_token: str) -> Visitor:
    """Read the cookies.

    Args:
        request: what came.
        name_of_token: whose a link token is; None where names are typed and no tokens asked for.
        admin_token: the key of the admin page.
    """
    session = request.cookies.get(SESSION, "")
    if name_of_token is None:
        secret, _, name = session.partition(":")
        annotator = name if secret and NAME.fullmatch(name) else None
    else:
        annotator = name_of_token(session) if session else None
    language = request.cookies.get(LANGUAGE, "")
    if language not in LANGUAGES:
        language = preferred(request.headers.get("accept-language", ""))
    theme = request.cookies.get(THEME, "")
    is_admin = hmac.compare_digest(request.cookies.get(ADMIN, "").encode(), admin_token.encode())
    return Visitor(session, annotator, is_admin, Words(language), theme if theme in THEMES else "")


def remember(response: Response, request: Request, name: str, value: str, *, path: str = "/") -> None:
    """Set a cookie that scripts cannot read and other sites cannot send."""
    response.set_cookie(
        name,
        value,
        max_age=KEPT_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path=path,
    )
