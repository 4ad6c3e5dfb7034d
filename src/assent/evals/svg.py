"""What every chart is drawn with: escaped elements, linear scales with round ticks, one stylesheet for light and dark.

Output depends on the input alone. Charts carry classes, never colours, so that a page restyles them for dark and for
print; `standalone` adds the stylesheet for use as a picture of its own.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Tone = Literal["policy", "baseline", "proxy", "gold", "loss"]
"""What a colour means, the same in every chart of a page."""

LINE = 15
"""Pixels from one line of text to the next."""

MARGIN = 16
"""Pixels around a chart that stands alone."""

# Each pair of tones differs in lightness as well as hue, so it survives print and colour blindness.
STYLE = """\
.chart{--ink:#23262b;--faint:#6a6f77;--rule:#e6e4de;--paper:#fdfcfa;
--policy:#0f766e;--baseline:#a9adb4;--proxy:#4a63b5;--gold:#b97a12;--loss:#d49a8c;
font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
font-size:11px;font-variant-numeric:tabular-nums}
@media (prefers-color-scheme:dark){.chart{--ink:#e9e7e2;--faint:#979ca5;--rule:#2f3238;--paper:#17181b;
--policy:#43b8aa;--baseline:#5d636d;--proxy:#8fa5ee;--gold:#dba84a;--loss:#9c5a50}}
.chart text{fill:var(--faint)}
.chart text.strong{fill:var(--ink)}
.chart .rule{stroke:var(--rule);stroke-width:1;fill:none}
.chart .axis{stroke:var(--faint);stroke-width:1;opacity:.55}
.chart .mark{stroke:var(--faint);stroke-width:1;stroke-dasharray:3 3;fill:none}
.chart .line{fill:none;stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round}
.chart .dashed{stroke-dasharray:5 4}
.chart .band{opacity:.16;stroke:none}
.chart .healthy{fill:var(--rule);opacity:.5}
.chart .hit{fill:transparent;stroke:none}
.chart .hollow{fill:var(--paper);stroke-width:1.5}
.chart .whisker{stroke:var(--ink);stroke-width:1.5;fill:none}
.chart .halo{stroke:var(--paper);stroke-width:4.5;stroke-linecap:round}
.chart .dot{fill:var(--ink);stroke:var(--paper);stroke-width:1.5}
"""
TONES = "".join(
    f".chart .line.{t},.chart .hollow.{t}{{stroke:var(--{t})}}"
    f".chart .band.{t},.chart .fill.{t},.chart text.{t}{{fill:var(--{t})}}"
    for t in ("policy", "baseline", "proxy", "gold", "loss")
)
STYLESHEET = STYLE + TONES

# What would break a page, reorder the text around it, or cannot be written as UTF-8.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight map from data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def printable(words: str) -> str:
    """Control, bidirectional-override and surrogate characters as visible code points; everything else untouched."""
    return UNPRINTABLE.sub(lambda m: f"⟨U+{ord(m.group()):04X}⟩", words.replace("\r\n", "\n"))


def element(tag: str, content: str = "", **attributes: object) -> str:
    """One element with escaped attribute values, in the order given; `content` must already be SVG."""
    # `class` and hyphens are no Python names: `class_` and `text_anchor` stand for them.
    written = "".join(
        f' {k.rstrip("_").replace("_", "-")}="{escape(printable(_plain(v)))}"' for k, v in attributes.items()
    )
    return f"<{tag}{written}>{content}</{tag}>"


def text(x: float, y: float, words: str, *, anchor: str = "start", tone: str = "") -> str:
    return element("text", escape(printable(words)), x=x, y=y, text_anchor=anchor, class_=tone or "note")


def hover(words: str) -> str:
    """What a mouse or a screen reader finds on the element it is put into."""
    return element("title", escape(printable(words)))


def picture(width: float, height: float, parts: Sequence[str], *, description: str) -> str:
    """A whole chart, as wide as the page lets it be."""
    box = f"0 0 {_plain(width)} {_plain(height)}"
    return element("svg", "".join(parts), class_="chart", viewBox=box, role="img", aria_label=description)


def standalone(chart: str) -> str:
    """A chart as an SVG file of its own, for a README: with its stylesheet, a margin, and a light or dark ground."""
    opened, rest = chart.split(">", 1)
    before, box = opened.split('viewBox="0 0 ')
    size, after = box.split('"', 1)
    width, height = (float(side) + 2 * MARGIN for side in size.split())
    frame = f'{before}viewBox="{-MARGIN} {-MARGIN} {_plain(width)} {_plain(height)}"{after}'
    ground = element("rect", x=-MARGIN, y=-MARGIN, width=width, height=height, rx=6, style="fill:var(--paper)")
    head = f'{frame} xmlns="http://www.w3.org/2000/svg" width="{_plain(width)}" height="{_plain(height)}">'
    return f"{head}<style>{escape(STYLESHEET, quote=False)}</style>{ground}{rest}\n"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that enclose [low, high], about `count` steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A number for a reader: three or four significant figures, a real minus sign, thousands as k."""
    size = abs(value)
    if size >= 1e6:
        shown = f"{value / 1e6:.3g}M"
    elif size >= 1e4:
        shown = f"{value / 1e3:.3g}k"
    elif size != 0 and size < 1e-3:
        shown = f"{value:.1e}"
    else:
        shown = f"{value:.4g}"
    return shown.replace("-", "−")


def _plain(value: object) -> str:
    """Coordinates to a hundredth of a pixel: small files, and the same on every machine."""
    return f"{round(value, 2) + 0.0:g}" if isinstance(value, float) else str(value)
