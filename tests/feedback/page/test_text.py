"""Hostile, foreign and long model output, as it reaches the page."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.feedback.page.questions import HOSTILE

from assent.feedback.page.text import marked, rendered, visible

BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "ul", "ol", "li", "blockquote", "hr", "br"}
HARMLESS = BLOCKS | {"em", "strong", "s", "code", "mark", "table", "thead", "tbody", "tr", "th", "td"}


class Tags(HTMLParser):
    """What a browser would see: tags, their attributes and the text."""

    def __init__(self, html):
        super().__init__()
        self.found, self.attributes, self.text = set(), set(), ""
        self.feed(str(html))

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def test_nothing_of_the_models_own_html_survives():
    seen = Tags(rendered(HOSTILE))
    assert seen.found <= HARMLESS and seen.attributes <= {"dir"}
    assert "<script>window.broken = 1</script>" in seen.text, "it is shown as it was written"


@given(st.text(alphabet="<>&\"'`[]()!#*_-|:\n ascripthref=javx\u202e/\\~\t0.+", max_size=200))
def test_no_text_makes_a_tag_that_is_not_harmless(text):
    for html in (rendered(text), marked(text, ["<i>other"])):
        seen = Tags(html)
        assert seen.found <= HARMLESS and seen.attributes <= {"dir", "class", "start"}


def test_links_and_pictures_are_text():
    seen = Tags(rendered("[a](https://example.org) ![b](https://example.org/b.png) <https://example.org>"))
    assert seen.found == {"p"}
    assert "[a](https://example.org) ![b](https://example.org/b.png) <https://example.org>" in seen.text


def test_markdown_and_code_are_rendered():
    html = rendered("# Title\n\n**bold** `x < 1`\n\n```python\nif a < b:\n    pass\n```\n\n| a |\n|:-:|\n| 1 |")
    seen = Tags(html)
    assert {"h1", "strong", "code", "pre", "table"} <= seen.found
    assert "if a < b:\n    pass\n" in seen.text
    assert "style" not in seen.attributes, "an aligned table brings a style, which the policy of the page forbids"


def test_hidden_reordering_is_shown():
    assert visible("safe \u202egnp.exe \x07") == "safe [U+202E]gnp.exe [U+0007]"
    assert visible("שלום\n\tعالم 你好 👩‍👩‍👧") == "שלום\n\tعالم 你好 👩‍👩‍👧", "letters and joiners stay as they are"


def test_every_block_has_its_own_direction():
    html = rendered("שלום עולם\n\nHello\n\n* مرحبا")
    assert html.count('dir="auto"') == 4 or html.count('dir="auto"') == 5


def test_differences_are_marked_by_word_and_by_chinese_character():
    assert marked("The cat sat.", ["The dog sat."]) == "The <mark>cat</mark> sat."
    assert marked("我喜欢猫。", ["我喜欢狗。"]) == "我喜欢<mark>猫</mark>。"
    assert marked("same", ["same"]) == "same"
    assert marked("<b>", ["x"]) == "<mark>&lt;b&gt;</mark>"


def test_marked_text_is_the_whole_text():
    text = "One two.\nThree <four> 五六 \u05d0"
    assert Tags(marked(text, ["Two one. Four 六"])).text == text


@pytest.mark.parametrize("words", [1_000, 60_000])
def test_long_texts_are_compared_in_time(words):
    one = " ".join(f"w{i % 97}" for i in range(words))
    other = " ".join(f"w{i % 89}" for i in range(words))
    began = time.process_time()
    marked(one, [other])
    assert time.process_time() - began < 5
