"""The arena in a real browser, with two tiny policies that really answer: votes by key and by mouse, several turns."""

import html
import re

import pytest
from benchmarks.local_servers import served
from fastapi.testclient import TestClient
from tests.feedback.page.questions import HOSTILE, field, sign_in

from assent.feedback.answers import Choice
from assent.feedback.arena import BATCH, Arena, Reply
from assent.feedback.page.app import create_app
from assent.feedback.page.security import Pace
from assent.feedback.page.talk import HOME, add_arena

pytestmark = pytest.mark.timeout(280)
KEY = "key-of-the-admin"


class Says:
    talks = True

    def __init__(self, id, text):
        self.id, self.name, self.text = id, f"name of {id}", text

    def reply(self, prompt):
        return Reply(f"{self.text} {len(prompt)}")


def with_arena(store, policies):
    app = create_app(store, admin_token=KEY, pace=Pace(1e6, 1e6), home=HOME)
    add_arena(app, Arena(store, policies))
    return app


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two models of random weights with a chat template, as Hugging Face folders."""
    from assent.stages.arena import policies_of
    from end_to_end.own import make_policy

    places = [str(make_policy(tmp_path_factory.mktemp("policy") / name, name)) for name in ("qwen2", "llama")]
    return policies_of(places, max_new_tokens=8)


@pytest.fixture
def address(store, tiny):
    with served(with_arena(store, tiny)) as url:
        yield url


@pytest.fixture
def talking(chromium, address):
    contexts = []

    def opened(name, **settings):
        context = chromium.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(address)
        page.fill("#name", name)
        page.keyboard.press("Enter")
        page.wait_for_selector("#say")
        return page

    yield opened
    for context in contexts:
        context.close()


def say(page, text):
    page.locator("#text").focus()
    page.keyboard.insert_text(text)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#vote")


def test_talk_and_vote_by_key_and_by_mouse(store, tiny, talking, address):
    page, meant = talking("Ann"), []
    say(page, "Hello")
    page.reload()
    page.wait_for_selector("#vote")
    for turn, (key, choice) in enumerate({"1": Choice(0), "2": Choice(1)}.items()):
        if turn:
            say(page, "More")
        meant.append(choice)
        assert page.locator(".talk .turn").count() == 2 * turn + 1, "the talk goes on"
        page.keyboard.press(key)
        page.wait_for_selector("#say")
    for vote, choice in {"tie": Choice(None), "both_bad": Choice(None, both_bad=True)}.items():
        page.click("text=New talk")
        page.wait_for_function("() => !document.querySelector('.talk .turn')")
        say(page, "Another")
        page.click(f"button[value={vote}]")
        page.wait_for_selector("#say")
        meant.append(choice)
    page.fill("#text", "too long for these models " * 20)
    page.click("#submit")
    page.wait_for_selector(".message.wrong >> text=too long for them")
    kept = list(store.answers(batch=BATCH))
    assert [a.answer.choices["overall"] for a in kept] == meant
    assert [len(a.question.prompt) for a in kept] == [1, 3, 1, 1]
    assert all(set(a.question.origin.policies) == {p.id for p in tiny} and a.seconds > 0 for a in kept)
    page.goto(f"{address}/admin?token={KEY}")
    page.click("text=Ratings")
    assert [page.locator("tbody tr").nth(i).locator("td").nth(3).inner_text() for i in (0, 1)] == ["4", "4"]


def test_mobile_width_and_two_people_at_once(store, talking):
    ann, bob = talking("Ann", viewport={"width": 360, "height": 740}), talking("Bob")
    for page in (ann, bob):
        say(page, "Hello")
    assert ann.evaluate("document.documentElement.scrollWidth") <= 360
    for page in (bob, ann):
        page.click("button[value=a]")
        page.wait_for_selector("#say")
    assert [a.annotator for a in store.answers()] == ["Bob", "Ann"]


@pytest.fixture
def client(store):
    with TestClient(with_arena(store, [Says("north-id", "same"), Says("south-id", "same")])) as browser:
        yield browser


def post(client, path, page, **fields):
    return client.post(path, data={"csrf": field(page, "csrf"), **fields})


def test_nothing_on_the_page_tells_the_policies_apart(client, store):
    page, seen = sign_in(client, "Ann"), set()
    assert "<h1>Arena</h1>" in page, "signing in leads to the arena"
    for _ in range(30):
        page = post(client, "/arena/say", page, text="Hello", after="").text
        seen.add(re.sub(r'name="claim" value="[0-9a-f]{24}"', "", page))
        page = post(client, "/arena/vote", page, claim=field(page, "claim"), vote="a").text
        assert not re.search("north|south", page)
        page = client.get("/arena?new=1").text
    assert len(seen) == 1, "the page is the same whichever policy stands on which side"
    assert {a.order for a in store.answers()} == {(0, 1), (1, 0)}
    assert "north" not in client.get("/mine").text


def test_hostile_words_are_shown_as_written(store):
    with TestClient(with_arena(store, [Says("n", HOSTILE), Says("s", HOSTILE)])) as client:
        page = post(client, "/arena/say", sign_in(client, "Ann"), text=HOSTILE, after="").text
        assert "<script>window" not in page and "<img" not in page and "<b>bold" not in page
        assert html.escape("<script>window.broken = 1</script>") in page


def test_forms_that_do_not_fit_are_refused(client, store):
    page = sign_in(client, "Ann")
    assert client.post("/arena/say", data={"text": "Hello"}).status_code == 403, "no token of the session"
    empty = post(client, "/arena/say", page, text="  ", after="")
    assert empty.status_code == 422 and "Write something" in empty.text
    page = post(client, "/arena/say", page, text="Hello", after="").text
    assert post(client, "/arena/vote", page, claim="0" * 24, vote="a").status_code == 422
    assert post(client, "/arena/vote", page, claim=field(page, "claim"), vote="c").status_code == 422
    assert post(client, "/arena/say", page, text="more", after="not mine").text.count("Hello") == 1, "a vote is due"
    assert not list(store.answers()) and client.get("/admin/ratings").status_code == 403


def test_strangers_sign_in_first(client):
    assert client.get(HOME).url.path == "/"
    assert client.post("/arena/say", data={}).status_code == 403
