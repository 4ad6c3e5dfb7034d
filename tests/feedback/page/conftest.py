"""A store with one question of each kind, and the page over it."""

import pytest

pytest.importorskip("fastapi")

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
