"""Nothing that an annotator's browser receives tells a gold question from another."""

import re
from collections import defaultdict
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from tests.feedback.page.questions import field, sign_in

from assent.feedback.answers import Choice, PairAnswer
from assent.feedback.page.app import create_app
from assent.feedback.page.security import Pace
from assent.feedback.questions import Origin, PairQuestion
from assent.feedback.store import Store

HTMX = {"hx-request": "true"}
ORIGIN = Origin(why="The ensemble disagrees.", round=3, slice="chat", policy="artefact", task="t")


def pair(name, i, origin):
    return PairQuestion(f"{name}{i}", f"Prompt {i:02}", (f"left {i:02}", f"right {i:02}"), origin=origin)


@pytest.fixture
def golden(tmp_path):
    """The gold questions say nothing of where they come from: they were written by hand."""
    store = Store.open(str(tmp_path / "gold.db"), gold_every=3)
    gold = [pair("gold", i, Origin()) for i in range(30, 50)]
    store.add(gold, gold={q.id: PairAnswer({"overall": Choice(0)}) for q in gold}, batch="by hand")
    store.add(pair("q", i, replace(ORIGIN, task=f"{i}")) for i in range(30))
    yield store
    store.close()


@pytest.fixture
def browser(golden):
    with TestClient(create_app(golden, pace=Pace(1e6, 1e6))) as client:
        yield client


def plain(page):
    """What was received, without what differs from any question to any other: texts, tokens, how far one has come."""
    page = re.sub(r'name="claim" value="[0-9a-f]{24}"', 'name="claim" value="…"', page)
    page = re.sub(r"Prompt \d\d|(<mark>)?(left|right)(</mark>)? \d\d", "text", page)
    page = re.sub(r'<progress max="\d+" value="\d+"', "<progress", page)
    return re.sub(r"\d+ of \d+.*?</span>|<button id=\"undo\"[^>]*>", "…", page)


def standing(page):
    found = re.search(r'<progress max="(\d+)" value="(\d+)"', page)
    return int(found[1]), int(found[2])


def is_gold(page):
    return int(re.search(r"Prompt (\d\d)", page)[1]) >= 30


def reply_to(client, page, path="/answer", **more):
    sent = {"csrf": field(page, "csrf"), "claim": field(page, "claim"), **more}
    return client.post(path, data=sent, headers=HTMX)


ANSWER = {"choice-0": "0:better", "seconds": "2"}


def test_the_pages_headers_and_lists_are_the_same(browser):
    pages, headers, reloaded = defaultdict(set), defaultdict(set), defaultdict(set)
    page = sign_in(browser, "Ann")
    for _ in range(25):
        gold = is_gold(page)
        pages[gold].add(plain(page[page.index("<main") : page.index("</main>")]))
        reloaded[gold].add(plain(browser.get("/").text))
        wrong = reply_to(browser, page, **{"choice-0": "neither"})
        pages["wrong", gold].add(plain(wrong.text))
        reply = reply_to(browser, page, **ANSWER)
        headers[gold].add(tuple((k, v) for k, v in reply.headers.items() if k not in ("date", "content-length")))
        page = reply.text
    assert len(pages[True]) == 1 and pages[True] == pages[False] and reloaded[True] == reloaded[False]
    assert pages["wrong", True] == pages["wrong", False] and headers[True] == headers[False]
    assert "Round 4" in page and "The ensemble disagrees." in page and "chat" in page
    (rows,) = {re.sub(r"\d", "0", row) for row in re.findall(r"<tr><td.*?</tr>", browser.get("/mine").text)}
    assert rows


@pytest.mark.parametrize("path", ["/answer", "/skip", "/flag"])
def test_progress_moves_by_the_same_step(browser, path):
    """Answered, skipped, reported, and each taken back and done again."""
    steps, page = defaultdict(set), sign_in(browser, "Ann")
    more = ANSWER if path == "/answer" else {"flag": "unsure"} if path == "/flag" else {}
    for _ in range(20):
        gold, before = is_gold(page), standing(page)
        after = standing(reply_to(browser, page, path, **more).text)
        back = reply_to(browser, page, "/undo").text
        assert is_gold(back) == gold and standing(back) == before
        page = reply_to(browser, back, path, **more).text
        steps[gold].add((after[0] - before[0], after[1] - before[1]))
        assert standing(page) == after
    assert len(steps[True]) == 1 and steps[True] == steps[False]


def test_tokens_and_orders_are_drawn_alike(browser, golden):
    tokens, orders, page = defaultdict(list), defaultdict(set), sign_in(browser, "Ann")
    for _ in range(30):
        token, gold = field(page, "claim"), is_gold(page)
        tokens[gold].append(token)
        orders[gold].add(golden.shown(token, "Ann").order)
        page = reply_to(browser, page, **ANSWER).text
    assert orders[True] == orders[False] == {(0, 1), (1, 0)}
    assert all(re.fullmatch("[0-9a-f]{24}", token) for both in tokens.values() for token in both)


def test_the_truth_is_stored_all_the_same(browser, golden):
    page = sign_in(browser, "Ann")
    for _ in range(20):
        page = reply_to(browser, page, **ANSWER).text
    answers = list(golden.answers())
    assert {a.question.origin for a in answers if a.gold} == {Origin()}
    assert all(a.question.origin.why == ORIGIN.why for a in answers if not a.gold)
