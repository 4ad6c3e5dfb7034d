"""Ask, answer, skip, report, take back: what is entered is what is stored, with scripts and without."""

import re

import pytest
from fastapi.testclient import TestClient
from tests.feedback.page.questions import (
    DEMONSTRATION,
    EDIT,
    MANY,
    MANY_SIDED,
    PAIR,
    RANKING,
    RATING,
    STEPS,
    field,
    sign_in,
)

from assent.feedback.answers import Choice, Remarks
from assent.feedback.page.app import create_app
from assent.feedback.page.cards import LONGEST_WRITTEN
from assent.feedback.page.security import Pace
from assent.feedback.store import Store
from assent.records import Degree, Rating

HTMX = {"hx-request": "true"}
NONE_UNSAFE = Remarks(unsafe=())


def entry(page, **more):
    return {"csrf": field(page, "csrf"), "claim": field(page, "claim"), "seconds": "3.5", **more}


def given(store, client, question, fields):
    """The one answer that stands after the form was sent."""
    store.add([question])
    page = sign_in(client, "Ann")
    reply = client.post("/answer", data=entry(page, **fields), headers=HTMX)
    assert reply.status_code == 200, reply.text
    (answered,) = store.answers()
    assert answered.question == question and answered.annotator == "Ann" and answered.seconds == 3.5
    return answered


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        ("0:significantly", Choice(0, Degree.SIGNIFICANTLY)),
        ("1:negligibly", Choice(1, Degree.NEGLIGIBLY)),
        ("tie", Choice(None)),
        ("both_bad", Choice(None, both_bad=True)),
    ],
)
def test_a_pair(store, client, value, choice):
    answered = given(
        store, client, PAIR, {"choice-0": value, "unsafe-1": "1", "reason-clear": "1", "comment": "Hm.\r\n"}
    )
    assert answered.answer.choices == {"overall": choice}
    assert answered.answer.remarks == Remarks(unsafe=(1,), reasons=("clear",), comment="Hm.\n")


def test_several_dimensions_at_once(store, client):
    fields = {"choice-0": "0:better", "choice-1": "tie", "choice-2": "1:slightly"}
    answered = given(store, client, MANY_SIDED, fields)
    assert answered.answer.choices == {
        "helpful": Choice(0, Degree.BETTER),
        "harmless": Choice(None),
        "honest": Choice(1, Degree.SLIGHTLY),
    }


def test_a_ranking_with_ties_and_an_empty_tier(store, client):
    answered = given(store, client, RANKING, {"rank-0-0": "4", "rank-0-1": "2", "rank-0-2": "4", "rank-0-3": "3"})
    assert answered.answer.ranks == {"overall": (3, 1, 3, 2)}


def test_a_rating(store, client):
    assert given(store, client, RATING, {"rating-0": "6"}).answer.scores == {"overall": 6}


def test_steps_until_the_first_bad_one(store, client):
    answered = given(store, client, STEPS, {"step-0": "good", "step-1": "bad"})
    assert answered.answer.marks == (Rating.GOOD, Rating.BAD, None)
    assert answered.answer.remarks.unsafe is None, "nothing of safety is asked of steps"


def test_an_edit_and_a_demonstration_keep_every_character(store, client):
    text = "Hello,\r\n\r\n  there < & \u4f60\u597d \u05d0 👋"
    answered = given(store, client, EDIT, {"text": text})
    assert answered.answer.text == text.replace("\r\n", "\n") and answered.answer.remarks == NONE_UNSAFE


def test_the_longest_text_that_the_page_takes_arrives(store, client):
    text = "你" * LONGEST_WRITTEN
    assert given(store, client, DEMONSTRATION, {"text": text, "comment": "好" * 2000}).answer.text == text


def test_a_demonstration(store, client):
    assert given(store, client, DEMONSTRATION, {"text": "我很好。"}).answer.text == "我很好。"


def test_places_on_the_page_are_places_in_the_store(store, client):
    """The letter that stands beside a text is the place that its answer names."""
    for i in range(6):
        store.add([type(PAIR)(f"q{i}", "?", ("FIRST", "SECOND"))])
    page, seen = sign_in(client, "Ann"), set()
    for _ in range(6):
        shown = re.findall(r'aria-label="Response [AB]".*?<p dir="auto">(\w+)</p>', page, re.S)
        page = client.post("/answer", data=entry(page, **{"choice-0": "1:better"})).text
        last = list(store.answers())[-1]
        preferred = last.question.responses[last.order[last.answer.choices["overall"].preferred]]
        assert preferred == shown[1]
        seen.add(preferred)
    assert {a.order for a in store.answers()} <= {(0, 1), (1, 0)} and seen <= {"FIRST", "SECOND"}


@pytest.mark.parametrize("value", ["", "2:better", "0:hugely", "better", "-1:better", "0:unstated "])
def test_what_the_page_does_not_offer_is_not_stored(store, client, value):
    store.add([PAIR])
    page = sign_in(client, "Ann")
    reply = client.post("/answer", data=entry(page, **{"choice-0": value, "comment": "kept <"}), headers=HTMX)
    assert reply.status_code == 422 and not list(store.answers())
    assert 'role="alert"' in reply.text and "kept &lt;" in reply.text, "what was entered is still there"
    assert field(reply.text, "claim") == field(page, "claim")


def test_without_scripts_a_post_redirects(store, client):
    store.add([PAIR])
    page = sign_in(client, "Ann")
    reply = client.post("/answer", data=entry(page, **{"choice-0": "tie"}) | {"seconds": ""}, follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    (answered,) = store.answers()
    assert 0 <= answered.seconds < 60, "the server's own clock, where the browser did not count"


def test_sent_twice_is_stored_once(store, client, pairs):
    form = entry(sign_in(client, "Ann"), **{"choice-0": "tie"})
    for value in ("tie", "tie", "0:better"):
        reply = client.post("/answer", data=form | {"choice-0": value}, headers=HTMX)
        assert reply.status_code == 200
    assert "answered this before" in reply.text
    assert [a.answer.choices["overall"] for a in store.answers()] == [Choice(None)]


def test_a_reload_brings_the_same_question_in_the_same_order(client, pairs):
    page = sign_in(client, "Ann")
    again = client.get("/").text
    assert field(again, "claim") == field(page, "claim") and again == page


def test_two_annotators_are_asked_different_questions(app, store, pairs):
    with TestClient(app) as ann, TestClient(app) as bob:
        pages = {"Ann": sign_in(ann, "Ann"), "Bob": sign_in(bob, "Bob")}
        for _ in range(6):
            for name, client in (("Ann", ann), ("Bob", bob)):
                form = entry(pages[name], **{"choice-0": "tie"})
                pages[name] = client.post("/answer", data=form, headers=HTMX).text
        assert "Others are answering" in pages["Ann"] and "Nothing more to answer" in pages["Bob"]
        assert "Nothing more to answer" in ann.get("/").text
    answered = list(store.answers())
    assert len({a.question.id for a in answered}) == len(answered) == 12


def test_a_claim_that_expired_goes_to_another(tmp_path):
    now = [1000.0]
    store = Store.open(str(tmp_path / "s.db"), claim_seconds=60, clock=lambda: now[0])
    store.add([PAIR])
    app = create_app(store, pace=Pace(1e6, 1e6))
    with TestClient(app) as ann, TestClient(app) as bob:
        assert "Which animal?" in sign_in(ann, "Ann")
        page = sign_in(bob, "Bob")
        assert "Which animal?" not in page and "Others are answering" in page
        now[0] += 61
        assert "Which animal?" in bob.get("/").text


def test_undo_brings_the_last_question_back(store, client, pairs):
    page = sign_in(client, "Ann")
    prompt = re.search(r"Prompt \d+", page)[0]
    page = client.post("/answer", data=entry(page, **{"choice-0": "tie"}), headers=HTMX).text
    page = client.post("/undo", data={"csrf": field(page, "csrf")}, headers=HTMX).text
    assert prompt in page and "taken back" in page and not list(store.answers())
    client.post("/answer", data=entry(page, **{"choice-0": "0:better"}), headers=HTMX)
    assert [a.answer.choices["overall"].preferred for a in store.answers()] == [0]
    assert "withdrawn" in {e.what for e in store.events()}, "nothing is erased"


@pytest.mark.parametrize("question", [EDIT, DEMONSTRATION], ids=lambda q: q.kind)
def test_undo_brings_back_what_was_written(store, client, question):
    store.add([question])
    store.add(MANY)
    page = sign_in(client, "Ann")
    sent = entry(page, text="A long text\nwith <b>one</b> slip.", comment="why & how")
    page = client.post("/answer", data=sent, headers=HTMX).text
    page = client.post("/undo", data={"csrf": field(page, "csrf")}, headers=HTMX).text
    assert "A long text\nwith &lt;b&gt;one&lt;/b&gt; slip.</textarea>" in page and "why &amp; how</textarea>" in page
    page = client.post("/skip", data=entry(page), headers=HTMX).text
    page = client.post("/undo", data={"csrf": field(page, "csrf")}, headers=HTMX).text
    assert "A long text" not in page and field(page, "claim"), "a skip has nothing to bring back"


def test_undo_of_nothing_says_so(client, pairs):
    page = sign_in(client, "Ann")
    assert "no answer of yours" in client.post("/undo", data={"csrf": field(page, "csrf")}, headers=HTMX).text


def test_skip_and_report_ask_something_else(store, client, pairs):
    page = sign_in(client, "Ann")
    after = client.post("/skip", data=entry(page), headers=HTMX).text
    assert field(after, "claim") != field(page, "claim")
    last = client.post("/flag", data=entry(after, flag="personal", note="a phone number"), headers=HTMX).text
    assert field(last, "claim") != field(after, "claim")
    done = {e.what: e.body for e in store.events() if e.what in ("skipped", "flagged")}
    assert set(done) == {"skipped", "flagged"} and "personal: a phone number" in done["flagged"]
    assert client.post("/flag", data=entry(last, flag="made up"), headers=HTMX).status_code == 422


def test_progress_and_pace(client, pairs):
    page = sign_in(client, "Ann")
    assert "0 of 12" in page
    page = client.post("/answer", data=entry(page, **{"choice-0": "tie"}) | {"seconds": "30"}, headers=HTMX).text
    assert "1 of 12" in page and "30 s each" in page and "about 6 min left" in page


def test_why_am_i_asked(store, client):
    store.add([PAIR])
    assert "The ensemble disagrees." in sign_in(client, "Ann")


def test_both_languages_and_themes(client, each_kind):
    page = sign_in(client, "Ann")
    assert '<html lang="en">' in page
    page = client.post("/settings", data={"csrf": field(page, "csrf"), "language": "zh"}).text
    assert '<html lang="zh">' in page and "提交" in page and "Submit" not in page
    page = client.post("/settings", data={"csrf": field(page, "csrf"), "theme": "dark"}).text
    assert 'data-theme="dark"' in page
    page = client.post("/settings", data={"csrf": field(page, "csrf"), "theme": "<x>"}).text
    assert 'data-theme="dark"' in page


def test_the_browser_says_which_language(client, pairs):
    assert '<html lang="zh">' in client.get("/", headers={"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"}).text
    assert '<html lang="en">' in client.get("/", headers={"accept-language": "fr-FR,en;q=0.5"}).text


@pytest.mark.parametrize("name", ["", "a" * 61, "<b>", "a:b", "a/b"])
def test_names_that_cannot_be(client, name):
    page = client.get("/")
    assert client.post("/sign-in", data={"csrf": field(page.text, "csrf"), "name": name}).status_code == 403
