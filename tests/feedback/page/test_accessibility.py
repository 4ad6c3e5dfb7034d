"""axe finds nothing serious or critical on any page, in both themes and both languages."""

import pytest
from benchmarks.local_servers import served
from tests.feedback.page.questions import HOSTILE, KINDS, MANY

from assent.feedback.answers import Choice, PairAnswer
from assent.feedback.arena import Arena, Reply
from assent.feedback.page.talk import HOME, add_arena
from assent.feedback.questions import PairQuestion

pytestmark = pytest.mark.timeout(280)
GRAVE = ("serious", "critical")
LOOKS = [(scheme, locale) for scheme in ("light", "dark") for locale in ("en-GB", "zh-CN")]
ANSWERED = """before => !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')
    && document.querySelector('#work').innerHTML !== before"""
OPEN_ALL = "() => document.querySelectorAll('details').forEach((d) => { d.open = true })"


@pytest.fixture(scope="module")
def axe():
    return pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
    ).Axe()


@pytest.fixture(params=LOOKS, ids=lambda look: f"{look[0]} {look[1]}")
def look(request):
    return {"color_scheme": request.param[0], "locale": request.param[1]}


@pytest.fixture
def grave(axe):
    """What axe finds grave on a page as it stands, everything that folds unfolded."""

    def found(page):
        page.evaluate(OPEN_ALL)
        violations = axe.run(page).response["violations"]
        return [
            (page.url, v["id"], v["impact"], node["html"][:200])
            for v in violations
            if v["impact"] in GRAVE
            for node in v["nodes"]
        ]

    return found


def send(page, form):
    """Without a key or a click, and without the browser's own check of what is required."""
    before = page.inner_html("#work")
    page.evaluate("at => { const f = document.querySelector(at); f.noValidate = true; f.requestSubmit(); }", form)
    page.wait_for_function(ANSWERED, arg=before)


def test_every_kind_of_question(store, open_page, look, grave):
    store.add([*KINDS, PairQuestion("hostile", f"{HOSTILE}\n\n```\ncode\n```", (HOSTILE, "שלום"))])
    page, met = open_page("Ann", **look), set()
    assert page.evaluate("document.documentElement.lang") == look["locale"][:2]
    for _ in range(len(KINDS) + 1):
        kind = page.get_attribute("#work", "data-kind")
        assert grave(page) == []
        if kind not in met:
            met.add(kind)
            if kind == "pair":
                page.click("#differences")
            send(page, "#answer")  # nothing is chosen: the message that says so
            if page.locator(".message.wrong").count():
                assert grave(page) == []
        if page.get_attribute("#work", "data-kind") == kind:
            send(page, "form[action='/skip']")
    assert grave(page) == [], "the page that says that nothing is left"


def test_lists_and_sign_in(store, chromium, address, open_page, look, grave):
    store.add(MANY)
    for name in ("Ann", "Bob"):
        for _ in range(3):
            shown = store.next(name)
            store.answer(shown.token, PairAnswer({"overall": Choice(0)}), 2.0, annotator=name)
    page = open_page("Ann", **look)
    for path in ("/mine", "/admin?token=key-of-the-admin", "/admin?annotator=Bob"):
        assert page.goto(f"{address}{path}").status == 200
        assert grave(page) == []
    context = chromium.new_context(**look)
    stranger = context.new_page()
    for path in ("/", "/join/nothing"):
        stranger.goto(f"{address}{path}")
        assert grave(stranger) == []
    context.close()


class Says:
    talks = True

    def __init__(self, name):
        self.id = self.name = name

    def reply(self, prompt):
        return Reply(f"**Hello** from the {len(prompt)}th turn.\n\n```\ncode\n```")


def test_the_arena(store, app, chromium, look, grave):
    add_arena(app, Arena(store, [Says("north"), Says("south")]))
    context = chromium.new_context(**look)
    page = context.new_page()
    with served(app) as address:
        page.goto(address)
        page.fill("#name", "Ann")
        page.keyboard.press("Enter")
        page.wait_for_selector("#work .bar")
        page.goto(f"{address}{HOME}")
        assert grave(page) == []
        page.fill("#text", "Hello")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#vote")
        assert grave(page) == []
        page.keyboard.press("1")
        page.wait_for_selector("#say")
        assert grave(page) == []
        for path in ("/admin?token=key-of-the-admin", "/admin/ratings"):
            page.goto(f"{address}{path}")
            assert grave(page) == []
    context.close()


def test_what_cannot_be_read_is_found(store, pairs, open_page, grave):
    page = open_page("Ann")
    page.evaluate("document.querySelector('legend').style.color = '#ddd'")
    assert [v[1] for v in grave(page)] == ["color-contrast"]
