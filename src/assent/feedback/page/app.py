"""The application: sign in, be asked, answer, skip, flag, take back; and everyone's answers for who holds the key.

Every form works without scripts, where the reply to a post is a redirect; with htmx it is the next question.
"""

import contextlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined

from assent.errors import DataError
from assent.feedback.arena import BATCH
from assent.feedback.page.cards import card_of
from assent.feedback.page.forms import LONGEST_COMMENT, answer_of, written_in
from assent.feedback.page.lists import Listed, people_of, rows_of, standing_of
from assent.feedback.page.security import Guard, Pace, csrf_fits, csrf_token, new_session
from assent.feedback.page.visitor import ADMIN, LANGUAGE, NAME, SESSION, THEME, THEMES, Visitor, remember, visitor_of
from assent.feedback.page.wording import LANGUAGES
from assent.feedback.store import Shown, Store
from assent.feedback.strengths import ratings, votes_of

FLAGS = ("unreadable", "unsafe", "personal", "unsure", "other")
MOST_FIELDS = 400
"""Of one form; a solution of some hundred steps fits."""


@dataclass(frozen=True)
class Desk:
    """What the handlers share.

    Args:
        store: where questions come from and answers go.
        passwordless: whether a typed name signs in, and no link token.
        admin_token: the key of the admin page.
        home: the page that signing in leads to.
    """

    store: Store
    passwordless: bool
    admin_token: str
    home: str
    templates: Environment = field(
        default_factory=lambda: Environment(
            loader=PackageLoader("assent.feedback.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
    )


def create_app(
    store: Store,
    *,
    passwordless: bool = True,
    admin_token: str | None = None,
    hosts: frozenset[str] | None = None,
    pace: Pace | None = None,
    home: str = "/",
) -> FastAPI:
    """The page over a store.

    Args:
        store: an open store.
        passwordless: whether a typed name signs in; else only the link of an invitation does.
        admin_token: the key of the admin page; a new one where none is given.
        hosts: names that requests may ask for; None for any.
        pace: the limit on requests.
        home: the page that signing in leads to, where it is not the questions.
    """
    app = FastAPI(title="Assent", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.desk = Desk(store, passwordless, admin_token or secrets.token_urlsafe(24), home)
    app.add_middleware(Guard, hosts=hosts, pace=pace or Pace())
    app.mount("/static", StaticFiles(packages=[("assent.feedback.page", "static")]))
    app.add_api_route("/", ask, methods=["GET"])
    app.add_api_route("/answer", answer, methods=["POST"])
    app.add_api_route("/skip", skip, methods=["POST"])
    app.add_api_route("/flag", flag, methods=["POST"])
    app.add_api_route("/undo", undo, methods=["POST"])
    app.add_api_route("/mine", mine, methods=["GET"])
    app.add_api_route("/admin", everyone, methods=["GET"])
    app.add_api_route("/admin/ratings", rated, methods=["GET"])
    app.add_api_route("/join/{token}", join, methods=["GET"])
    app.add_api_route("/sign-in", sign_in, methods=["POST"])
    app.add_api_route("/sign-out", sign_out, methods=["POST"])
    app.add_api_route("/settings", settings, methods=["POST"])
    return app


# ---- what a request brings -----------------------------------------------------------


def desk_of(request: Request) -> Desk:
    return request.app.state.desk


def visitor(request: Request, desk: Annotated[Desk, Depends(desk_of)]) -> Visitor:
    whose = None if desk.passwordless else desk.store.who
    return visitor_of(request, name_of_token=whose, admin_token=desk.admin_token)


async def fields(request: Request, who: Annotated[Visitor, Depends(visitor)]) -> Mapping[str, str]:
    """The form, after its token was found to be that of this browser."""
    form = await request.form(max_files=0, max_fields=MOST_FIELDS)
    entered = {name: value for name, value in form.items() if isinstance(value, str)}
    if not csrf_fits(who.session, entered.pop("csrf", "")):
        raise HTTPException(403, "This form does not belong to your session; reload the page.")
    return entered


TheDesk = Annotated[Desk, Depends(desk_of)]
Who = Annotated[Visitor, Depends(visitor)]
Entered = Annotated[Mapping[str, str], Depends(fields)]


# ---- questions -----------------------------------------------------------------------


def ask(request: Request, desk: TheDesk, who: Who) -> Response:
    """The question that the visitor has before them, or the next."""
    if who.annotator is None:
        return _sign_in_page(request, desk, who)
    return HTMLResponse(_work(desk, who, who.annotator, desk.store.next(who.annotator), page="page.jinja"))


def answer(request: Request, desk: TheDesk, who: Who, entered: Entered) -> Response:
    name = signed_in(who)
    try:
        shown = desk.store.shown(entered.get("claim", ""), name)
    except DataError:
        return _next(request, desk, who, name, message="form_expired")
    try:
        said = answer_of(shown.question, entered)
    except DataError:
        page = "work.jinja" if swaps(request) else "page.jinja"
        html = _work(desk, who, name, shown, page=page, message="incomplete", wrong=True, entered=entered)
        return HTMLResponse(html, status_code=422)
    seconds = _seconds(entered.get("seconds", ""))
    if seconds is None:  # no script counted: the time since it was shown, which includes other tabs and tea
        seconds = max(0.0, time.time() - shown.at)
    try:
        desk.store.answer(shown.token, said, seconds, annotator=name)
    except DataError:  # answered before, and otherwise: the first answer stands until it is taken back
        return _next(request, desk, who, name, message="answered_before")
    return _next(request, desk, who, name)


def skip(request: Request, desk: TheDesk, who: Who, entered: Entered) -> Response:
    name = signed_in(who)
    with contextlib.suppress(DataError):  # a form sent twice, or an old one: what is next is next all the same
        desk.store.skip(entered.get("claim", ""), annotator=name)
    return _next(request, desk, who, name)


def flag(request: Request, desk: TheDesk, who: Who, entered: Entered) -> Response:
    name = signed_in(who)
    reason = entered.get("flag", "")
    if reason not in FLAGS:
        raise HTTPException(422, f"A report names one of {', '.join(FLAGS)}.")
    note = entered.get("note", "").strip()[:LONGEST_COMMENT]
    with contextlib.suppress(DataError):
        desk.store.flag(entered.get("claim", ""), f"{reason}: {note}" if note else reason, annotator=name)
    return _next(request, desk, who, name)


def undo(request: Request, desk: TheDesk, who: Who, entered: Entered) -> Response:
    """Take the last answer back. A text that was written for it stands in the form again, to be mended."""
    name = signed_in(who)
    last = desk.store.latest(name, 1)
    again = desk.store.undo(name)
    mine = again is not None and bool(last) and last[0].question.id == again.question.id
    message = "undone" if again else "nothing_to_undo"
    return _next(request, desk, who, name, message=message, entered=written_in(last[0].answer) if mine else None)


# ---- lists ---------------------------------------------------------------------------


def mine(desk: TheDesk, who: Who, before: int | None = None) -> Response:
    """The visitor's own answers, and nobody else's."""
    name = signed_in(who)
    listed = rows_of(desk.store, name, who.words, before)
    heading, older = who.words("mine"), {"before": listed.older}
    return _render(desk, who, "answers.jinja", heading=heading, listed=listed, older=older, people=None, selected=name)


def everyone(
    request: Request, desk: TheDesk, who: Who, token: str = "", annotator: str = "", before: int | None = None
) -> Response:
    """Everyone's answers, one annotator at a time; the key moves from the address into a cookie, out of sight."""
    if token:
        if not hmac.compare_digest(token.encode(), desk.admin_token.encode()):
            raise HTTPException(403, "This is not the key of the admin page.")
        response = RedirectResponse("/admin", status_code=303)
        remember(response, request, ADMIN, token, path="/admin")
        return response
    _is_admin(who)
    people = people_of(desk.store)
    listed = rows_of(desk.store, annotator, who.words, before) if annotator else Listed((), None)
    heading, older = who.words("everyone"), {"annotator": annotator, "before": listed.older}
    return _render(
        desk, who, "answers.jinja", heading=heading, listed=listed, older=older, people=people, selected=annotator
    )


def rated(desk: TheDesk, who: Who) -> Response:
    """How strong the policies of the arena are, by its votes."""
    _is_admin(who)
    votes = votes_of(desk.store.answers(batch=BATCH, kind="pair"))
    return _render(desk, who, "ratings.jinja", rated=ratings(votes) if votes else [])


def _is_admin(who: Visitor) -> None:
    if not who.is_admin:
        raise HTTPException(403, "The admin page opens with the address that the terminal printed.")


# ---- sign-in and settings ------------------------------------------------------------


def join(request: Request, desk: TheDesk, who: Who, token: str) -> Response:
    """The link of an invitation: it signs this browser in, also where a typed name would have been enough."""
    name = desk.store.who(token)
    if name is None:
        return _sign_in_page(request, desk, who, message="bad_link", status=403)
    response = RedirectResponse(desk.home, status_code=303)
    remember(response, request, SESSION, f"{new_session()}:{name}" if desk.passwordless else token)
    return response


def sign_in(request: Request, desk: TheDesk, entered: Entered) -> Response:
    """A typed name, where names are enough."""
    name = " ".join(entered.get("name", "").split())
    if not desk.passwordless or not NAME.fullmatch(name):
        raise HTTPException(403, "Signing in by name is not possible here, or not with this name.")
    response = RedirectResponse(desk.home, status_code=303)
    remember(response, request, SESSION, f"{new_session()}:{name}")
    return response


def sign_out(entered: Entered) -> Response:
    response = RedirectResponse("/", status_code=303)
    response.delete_cookie(SESSION, path="/")
    return response


def settings(request: Request, desk: TheDesk, entered: Entered) -> Response:
    response = RedirectResponse(desk.home, status_code=303)
    for name, cookie, allowed in (("language", LANGUAGE, LANGUAGES), ("theme", THEME, THEMES)):
        if entered.get(name) in allowed:
            remember(response, request, cookie, entered[name])
    return response


# ---- replies -------------------------------------------------------------------------


def signed_in(who: Visitor) -> str:
    if who.annotator is None:
        raise HTTPException(401, "Sign in first; open the first page.")
    return who.annotator


def swaps(request: Request) -> bool:
    """Whether htmx asked, and puts the reply in place of the last question."""
    return request.headers.get("hx-request") == "true"


def _next(
    request: Request,
    desk: Desk,
    who: Visitor,
    name: str,
    message: str = "",
    entered: Mapping[str, str] | None = None,
) -> Response:
    if not swaps(request):
        return RedirectResponse("/", status_code=303)
    shown = desk.store.next(name)
    return HTMLResponse(_work(desk, who, name, shown, page="work.jinja", message=message, entered=entered))


def _work(
    desk: Desk,
    who: Visitor,
    name: str,
    shown: Shown | None,
    *,
    page: str,
    message: str = "",
    wrong: bool = False,
    entered: Mapping[str, str] | None = None,
) -> str:
    return desk.templates.get_template(page).render(
        words=who.words,
        csrf=who.csrf,
        theme=who.theme,
        card=card_of(shown.question, shown.order, who.words) if shown else None,
        claim=shown.token if shown else "",
        progress=standing_of(desk.store, name, finished=shown is None),
        message=who.words(message) if message else "",
        wrong=wrong,
        entered=entered or {},
        flags=FLAGS,
    )


def _render(desk: Desk, who: Visitor, page: str, **what: object) -> Response:
    common = {"words": who.words, "csrf": who.csrf, "theme": who.theme, "home": desk.home}
    return HTMLResponse(desk.templates.get_template(page).render(**common, **what))


def _sign_in_page(request: Request, desk: Desk, who: Visitor, message: str = "", status: int = 200) -> Response:
    """The form to sign in; its token needs a cookie, which comes with it where there is none yet."""
    session = who.session or new_session()
    html = desk.templates.get_template("sign_in.jinja").render(
        words=who.words,
        csrf=csrf_token(session),
        theme=who.theme,
        message=who.words(message) if message else "",
        wrong=bool(message),
        passwordless=desk.passwordless,
    )
    response = HTMLResponse(html, status_code=status)
    if not who.session:
        remember(response, request, SESSION, session)
    return response


def _seconds(entered: str) -> float | None:
    """Seconds in sight, as the browser counted them; None where it did not."""
    try:
        seconds = float(entered)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None
