"""What a model wrote, made safe to show: Markdown without HTML, links or pictures, each block in its own direction.

Model output is hostile until shown otherwise. Tags, links and pictures in it are shown as they were written, so that
nothing runs, reading a response fetches nothing, and no click leads to where a model would like it to.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

BLOCKS = ("paragraph", "heading", "list_item", "blockquote", "bullet_list", "ordered_list", "td", "th")
LONGEST_COMPARED = 1_500
"""Words of one text beyond which differences are looked for line by line: matching words costs their product."""

_PIECES = re.compile(r"\s+|\w+|[^\w\s]", re.UNICODE)
_WIDE = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")


class _Renderer(RendererHTML):
    """Every block takes the direction of its own first strong letter; code keeps left to right."""

    def renderToken(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[idx]
        if token.nesting == 1 and token.type.removesuffix("_open") in BLOCKS:
            token.attrSet("dir", "auto")
        token.attrs.pop("style", None)  # tables align with it; no inline style passes the policy of the page
        return super().renderToken(tokens, idx, options, env)


_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True}, renderer_cls=_Renderer)
    .enable(["table", "strikethrough"])
    .disable(["link", "image", "autolink", "reference"])
)


def rendered(text: str) -> Markup:
    """Markdown as HTML that may stand in the page: no tag, link, picture or style of the text's own survives."""
    return Markup(_MARKDOWN.render(visible(text)))


def visible(text: str) -> str:
    """The text with control characters shown, where they would hide or reorder what an annotator reads.

    A bidirectional override can make `not safe` read as `safe`; each becomes its code point in brackets.
    """
    return "".join(f"[U+{ord(c):04X}]" if _hides(c) else c for c in text)


def _hides(character: str) -> bool:
    if character in "\n\t\r":
        return False
    category = unicodedata.category(character)
    return category == "Cc" or "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"


def marked(text: str, others: Sequence[str]) -> Markup:
    """The plain text, with what some other text does not share in `<mark>`; Markdown is left as written.

    Words are compared in Latin-like scripts, characters in Chinese and Japanese, whole lines in very long texts.
    """
    mine = _pieces(visible(text))
    shared = [True] * len(mine)
    for other in others:
        theirs = _pieces(visible(other))
        kept = [False] * len(mine)
        for block in difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks():
            kept[block.a : block.a + block.size] = [True] * block.size
        shared = [a and b for a, b in zip(shared, kept, strict=True)]
    return Markup("").join(_runs(mine, shared))


def _pieces(text: str) -> list[str]:
    if len(text) > LONGEST_COMPARED * 12:
        return text.splitlines(keepends=True)
    pieces = []
    for piece in _PIECES.findall(text):
        pieces += [p for p in _WIDE.split(piece) if p]
    return pieces if len(pieces) <= 2 * LONGEST_COMPARED else text.splitlines(keepends=True)


def _runs(pieces: Sequence[str], shared: Sequence[bool]) -> Iterator[Markup]:
    start = 0
    for end in range(1, len(pieces) + 1):
        if end == len(pieces) or shared[end] != shared[start]:
            run = escape("".join(pieces[start:end]))
            yield run if shared[start] or not run.strip() else Markup("<mark>{}</mark>").format(run)
            start = end
