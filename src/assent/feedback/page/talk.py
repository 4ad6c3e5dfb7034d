"""The page of the arena: say something, read two answers, vote; nothing on it tells which policy is which."""

from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup

from assent.errors import AssentError, DataError
from assent.feedback.arena import LONGEST_MESSAGE, VOTES, Arena
from assent.feedback.page.app import Entered, TheDesk, Who, signed_in, swaps
from assent.feedback.page.cards import LETTERS
from assent.feedback.page.text import rendered

HOME = "/arena"


@dataclass(frozen=True, slots=True)
class Said:
    """One turn, or one of two responses, which `name` is the letter of."""

    name: str
    html: Markup


def add_arena(app: FastAPI, arena: Arena) -> None:
    """Serve the arena beside the questions of its store."""
    app.state.arena = arena
    app.add_api_route(HOME, stand, methods=["GET"])
    app.add_api_route(f"{HOME}/say", say, methods=["POST"])
    app.add_api_route(f"{HOME}/vote", vote, methods=["POST"])


def stand(request: Request, desk: TheDesk, who: Who, new: bool = False) -> Response:
    """The visitor's dialogue, or with `new` the beginning of another."""
    if who.annotator is None:
        return RedirectResponse("/", status_code=303)
    return _page(request, desk, who, who.annotator, new=new)


def say(request: Request, desk: TheDesk, who: Who, entered: Entered) -> Response:
    name = signed_in(who)
    text = entered.get("text", "").replace("\r\n", "\n").strip()
    after = entered.get("after", "")
    try:
        _arena(request).ask(name, text, after=after)
    except DataError:
        return _page(request, desk, who, name, new=not after, message="say_something", entered=text)
    except AssentError:  # above all a talk that has outgrown a model
        return _page(request, desk, who, name, new=not after, message="no_answer", entered=text)
    return _next(request, desk, who, name)


def vote(request: Request, desk: TheDesk, who: Who, entered: Entered) -> Response:
    name = signed_in(who)
    try:
        _arena(request).vote(name, entered.get("claim", ""), entered.get("vote", ""))
    except DataError:
        return _page(request, desk, who, name, message="form_expired")
    return _next(request, desk, who, name)


def _arena(request: Request) -> Arena:
    arena: Arena = request.app.state.arena
    return arena


def _next(request: Request, desk: TheDesk, who: Who, name: str) -> Response:
    return _page(request, desk, who, name) if swaps(request) else RedirectResponse(HOME, status_code=303)


def _page(
    request: Request, desk: TheDesk, who: Who, name: str, *, new: bool = False, message: str = "", entered: str = ""
) -> Response:
    arena = _arena(request)
    talk = arena.talk(name)
    # A dialogue that waits for a vote is finished first: its responses were made and would be judged by nobody.
    turns = () if new and talk.open is None else talk.turns
    responses = talk.open.responses if talk.open else ()
    html = desk.templates.get_template("talk.jinja" if swaps(request) else "talk_page.jinja").render(
        words=who.words,
        csrf=who.csrf,
        theme=who.theme,
        turns=[Said(who.words.of(turn.role), rendered(turn.content)) for turn in turns],
        responses=[Said(LETTERS[i], rendered(text)) for i, text in enumerate(responses)],
        claim=talk.after if talk.open else "",
        after=talk.after if turns else "",
        goes_on=arena.talks,
        votes=[(vote, str(key), who.words(f"vote_{vote}")) for key, vote in enumerate(VOTES, 1)],
        longest=LONGEST_MESSAGE,
        message=who.words(message) if message else "",
        entered=entered,
    )
    return HTMLResponse(html, status_code=422 if message else 200)
