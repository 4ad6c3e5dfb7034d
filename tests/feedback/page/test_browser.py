"""The page in a real browser, by keyboard and by mouse: what is clicked is what is stored."""

import pytest
from tests.feedback.page.questions import DEMONSTRATION, HOSTILE, KINDS

from assent.feedback.answers import Choice
from assent.feedback.questions import PairQuestion
from assent.records import Degree, Rating

pytestmark = pytest.mark.timeout(280)


def claim(page):
    return page.input_value("#answer [name=claim]")


def then_next(page, act):
    """Do it, and wait until another question, or none, is there."""
    before = claim(page)
    act()
    gone = "c => { const f = document.querySelector('#answer [name=claim]'); return !f || f.value !== c }"
    page.wait_for_function(gone, arg=before)


def press(page, keys):
    for key in keys:
        page.keyboard.press(key)


def by_keyboard(page):
    kind = page.get_attribute("#work", "data-kind")
    several = page.locator("#answer fieldset.keyed").count() > 1
    if kind in ("edit", "demonstration"):
        page.keyboard.press("Control+a")
        page.keyboard.type("written by hand")
        return then_next(page, lambda: page.keyboard.press("Control+Enter"))
    keys = {"pair": "258" if several else "1", "ranking": "2113", "rating": "6", "steps": "31"}[kind]
    press(page, keys)
    return then_next(page, lambda: page.keyboard.press("Enter"))


def test_each_kind_by_keyboard(store, each_kind, open_page):
    page = open_page("Ann")
    for _ in KINDS:
        by_keyboard(page)
    said = {a.question.id: a.answer for a in store.answers()}
    assert said["pair"].choices == {"overall": Choice(0, Degree.SIGNIFICANTLY)}
    assert [c.preferred for c in said["sides"].choices.values()] == [0, None, 1]
    assert said["ranking"].ranks == {"overall": (2, 1, 1, 3)}
    assert said["rating"].scores == {"overall": 6}
    assert said["steps"].marks == (Rating.GOOD, Rating.BAD, None)
    assert said["edit"].text == said["demonstration"].text == "written by hand"
    assert all(0 < a.seconds < 120 for a in store.answers())


def drag(page, letter, rank):
    chip, tier = page.locator(f".chip[data-letter={letter}]"), page.locator(f'.tier[data-rank="{rank}"]')
    chip.scroll_into_view_if_needed()
    a, b = chip.bounding_box(), tier.bounding_box()
    page.mouse.move(a["x"] + a["width"] / 2, a["y"] + a["height"] / 2)
    page.mouse.down()
    page.mouse.move(b["x"] + b["width"] / 2, b["y"] + b["height"] / 2, steps=4)
    page.mouse.up()


def by_mouse(page):
    kind = page.get_attribute("#work", "data-kind")
    if kind == "ranking":
        for letter, rank in zip("abcd", (3, 1, 2, 1), strict=True):
            drag(page, letter, rank)
    elif kind in ("edit", "demonstration"):
        page.fill("#text", "clicked")
    else:
        for group in page.locator("#answer fieldset.keyed").all():
            group.locator("label.choice").nth(2).click()
    then_next(page, lambda: page.click("#submit"))


def test_each_kind_by_mouse(store, each_kind, open_page):
    page = open_page("Ann")
    for _ in KINDS:
        by_mouse(page)
    said = {a.question.id: a.answer for a in store.answers()}
    assert said["ranking"].ranks == {"overall": (3, 1, 2, 1)}
    assert said["pair"].choices == {"overall": Choice(0, Degree.SLIGHTLY)}
    assert said["rating"].scores == {"overall": 3} and said["steps"].marks == (Rating.GOOD,) * 3


def test_undo_and_reload_in_the_middle(store, pairs, open_page):
    page = open_page("Ann")
    first = page.inner_text(".prompt")
    press(page, "9")
    page.reload()
    page.wait_for_selector("#answer input:checked")
    assert page.inner_text(".prompt") == first, "the question and what was entered survive a reload"
    then_next(page, lambda: page.keyboard.press("Enter"))
    then_next(page, lambda: page.keyboard.press("u"))
    assert page.inner_text(".prompt") == first and not list(store.answers())
    press(page, "5")
    then_next(page, lambda: page.keyboard.press("Enter"))
    assert [a.answer.choices["overall"] for a in store.answers()] == [Choice(None)]


def test_a_refusal_leaves_the_question_and_what_was_entered(store, open_page):
    store.add([DEMONSTRATION])
    page = open_page("Ann")
    page.fill("#text", "what I wrote")
    right = page.input_value("#answer [name=csrf]")
    spoil = "([token]) => { document.querySelector('#answer [name=csrf]').value = token }"
    page.evaluate(spoil, ["of another session"])
    page.click("#submit")
    page.wait_for_selector("#refused:not([hidden])")
    assert "does not belong to your session" in page.inner_text("#refused")
    assert page.input_value("#text") == "what I wrote" and not list(store.answers())
    page.evaluate(spoil, [right])
    page.click("#submit")
    page.wait_for_selector("#answer", state="detached")
    assert [a.answer.text for a in store.answers()] == ["what I wrote"]


def test_two_annotators_at_once(store, pairs, open_page):
    ann, bob = open_page("Ann"), open_page("Bob")
    for _ in range(5):
        assert ann.inner_text(".prompt") != bob.inner_text(".prompt")
        for page in (ann, bob):
            press(page, "1")
            then_next(page, lambda page=page: page.keyboard.press("Enter"))
    answered = list(store.answers())
    assert len({a.question.id for a in answered}) == 10 and {a.annotator for a in answered} == {"Ann", "Bob"}


def test_hostile_output_runs_nothing(store, open_page):
    store.add([PairQuestion("h", HOSTILE, (HOSTILE, f"other {HOSTILE}"))])
    page = open_page("Ann")
    page.keyboard.press("x")
    assert page.locator("mark").first.is_visible()
    assert page.evaluate("window.broken") is None


def test_mobile_width_scrolls_one_way_only(store, each_kind, open_page):
    page = open_page("Ann", viewport={"width": 360, "height": 740}, has_touch=True)
    for _ in KINDS:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("#submit").is_visible()
        by_mouse(page)
