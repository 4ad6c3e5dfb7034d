"""The tutorial on people is run as a reader would, two people answer in a real browser, and the pictures are real."""

import json
import os
import re
from pathlib import Path

import pytest
from benchmarks.local_servers import served

from assent.feedback.arena import Arena, Reply
from assent.feedback.page.app import create_app
from assent.feedback.page.security import Pace
from assent.feedback.page.talk import HOME, add_arena
from assent.feedback.store import Store
from tests.docs.reader import ROOT, read

PAGE = ROOT / "docs" / "tutorial-people.md"
PICTURES = ("label-pair", "label-ranking", "label-admin", "arena")
WINDOW = {"viewport": {"width": 1000, "height": 640}, "locale": "en-GB", "color_scheme": "light"}
pytestmark = pytest.mark.timeout(280)


class Says:
    talks = True

    def __init__(self, name, text):
        self.id, self.name, self.text = name, name, text

    def reply(self, prompt):
        return Reply(self.text)


POLICIES = [
    Says("kind", "I am sorry about that. Shall I send you a **new kettle**, or your money back?"),
    Says("curt", "Please fill in the form:\n\n1. the number of your order\n2. what is wrong with it"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the pictures go: the documentation where that was asked for."""
    asked = os.environ.get("ASSENT_PICTURES")
    return Path(asked) if asked else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def told(tmp_path_factory, folder, chromium):
    """The reader's folder, and what each half of the page printed, with the answering in between."""
    work = tmp_path_factory.mktemp("reader")
    first, second = PAGE.read_text(encoding="utf-8").split("## 3. What they said")
    printed = read_half(work, first)
    store = Store.open(str(work / "people.db"), gold_every=4)
    with served(create_app(store, admin_token="key", pace=Pace(1e6, 1e6))) as address:
        for name in ("Ann", "Ben"):
            answer_all(chromium, address, name, folder)
        look_after(chromium, address, folder)
    store.close()
    talk_once(chromium, work, folder)
    return work, printed + read_half(work, second)


def read_half(work, text):
    part = work / "part.md"
    part.write_text(text, encoding="utf-8")
    return read(part, work)


def signed_in(browser, address, name):
    page = browser.new_context(**WINDOW).new_page()
    page.goto(address)
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer, #say")
    return page


def answer_all(browser, address, name, folder):
    """Prefers the kind response, as the tutorial's people do, until nothing is left."""
    page = signed_in(browser, address, name)
    while page.locator("#answer").count():
        kind, claim = page.get_attribute("#work", "data-kind"), page.input_value("#answer [name=claim]")
        picture = folder / f"label-{kind}.png"
        if kind == "pair":
            page.keyboard.press(key_of(page, name))
        elif kind == "ranking":
            for key in "2131":
                page.keyboard.press(key)
        else:
            page.fill("#text", "Yes, you can, within 30 days.")
        if picture.stem in PICTURES and name == "Ann":
            page.screenshot(path=picture)
        page.click("#submit")
        gone = "c => { const f = document.querySelector('#answer [name=claim]'); return !f || f.value !== c }"
        page.wait_for_function(gone, arg=claim)
    page.context.close()


def key_of(page, name):
    if name == "Ben" and "mug" in page.inner_text(".prompt"):
        return "5"  # the one that they differ on
    return "2" if "sorry" in page.locator(".responses .rendered").first.inner_text() else "8"


def look_after(browser, address, folder):
    page = browser.new_context(**WINDOW).new_page()
    page.goto(f"{address}/admin?token=key")
    page.goto(f"{address}/admin?annotator=Ann")
    page.screenshot(path=folder / "label-admin.png")
    page.context.close()


def talk_once(browser, work, folder):
    store = Store.open(str(work / "votes.db"))
    app = create_app(store, pace=Pace(1e6, 1e6), home=HOME)
    add_arena(app, Arena(store, POLICIES))
    with served(app) as address:
        page = signed_in(browser, address, "Ann")
        page.fill("#text", "My kettle is broken.")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#vote")
        page.screenshot(path=folder / "arena.png")
        page.keyboard.press("1")
        page.wait_for_selector("#say")
        page.context.close()
    assert len(list(store.answers())) == 1
    store.close()


def test_what_was_clicked_is_what_is_written(told):
    work, printed = told
    assert "wanted=18" in printed[0]
    rows = [json.loads(line) for line in (work / "judged.jsonl").read_text().splitlines()]
    pairs = [row for row in rows if row["question"]["kind"] == "pair" and row["gold"] is None]
    assert len(pairs) == 16 and all("broken" in row["question"]["prompt"] for row in pairs)
    clicked = [(row, row["answer"]["choices"]["overall"]["preferred"]) for row in pairs]
    preferred = [row["question"]["responses"][row["order"][place]] for row, place in clicked if place is not None]
    assert len(preferred) == 15 and all("sorry" in text for text in preferred)
    assert "Yes, you can, within 30 days." in (work / "judged.jsonl").read_text()


def test_the_tables_say_that_they_agree(told):
    _, printed = told
    assert "Ann" in printed[1] and "Ben" in printed[1] and "records; left out" in printed[1]
    alpha = float(re.search(r"alpha, nominal \| ([\d.]+)", printed[1])[1])
    assert 0.5 < alpha < 1, "one disagreement in nine"


def test_every_picture_is_there_and_small(told, folder):
    assert set(re.findall(r"images/([\w-]+)\.png", PAGE.read_text(encoding="utf-8"))) == set(PICTURES)
    for name in PICTURES:
        assert (ROOT / "docs" / "images" / f"{name}.png").stat().st_size < 100_000
        taken = (folder / f"{name}.png").read_bytes()
        assert taken[:8] == b"\x89PNG\r\n\x1a\n" and len(taken) < 100_000
