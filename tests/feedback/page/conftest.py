"""A store with one question of each kind, the page over it, and a browser in front of that."""

import pytest

pytest.importorskip("fastapi")

from benchmarks.local_servers import served
from fastapi.testclient import TestClient
from tests.feedback.page.questions import KINDS, MANY

from assent.feedback.page.app import create_app
from assent.feedback.page.security import Pace
from assent.feedback.store import Store


@pytest.fixture
def store(tmp_path):
    opened = Store.open(str(tmp_path / "feedback.db"))
    yield opened
    opened.close()


@pytest.fixture
def app(store):
    return create_app(store, admin_token="key-of-the-admin", pace=Pace(1e6, 1e6))


@pytest.fixture
def client(app):
    with TestClient(app) as browser:
        yield browser


@pytest.fixture
def each_kind(store):
    store.add(KINDS, per_question=2)
    return KINDS


@pytest.fixture
def pairs(store):
    store.add(MANY)
    return MANY


@pytest.fixture
def address(store):
    app = create_app(store, admin_token="key-of-the-admin", hosts=frozenset({"127.0.0.1"}), pace=Pace(1e6, 1e6))
    with served(app) as url:
        yield url


@pytest.fixture
def open_page(chromium, address):
    """Signs in by keyboard; afterwards nothing was fetched from elsewhere and nothing broke the policy."""
    contexts, outside, complaints = [], [], []

    def opened(name, **settings):
        context = chromium.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda r: None if r.url.startswith(address) else outside.append(r.url))
        page.on("console", lambda m: complaints.append(m.text) if "Content Security Policy" in m.text else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.goto(address)
        page.fill("#name", name)
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer")
        # From here on htmx sends the forms. A function, not an expression: that would be evaluated anew at every look,
        # and from the second on the page's own policy forbids it.
        page.wait_for_function("() => document.readyState === 'complete'")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not outside and not complaints
