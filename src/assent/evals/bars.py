"""Bars with intervals, and win, tie and loss, as SVG text."""

from collections.abc import Sequence
from dataclasses import dataclass

from assent.evals.svg import LINE, Scale, Tone, element, hover, picture, text

ROW = 46
BAR = 20


@dataclass(frozen=True, slots=True)
class WinBar:
    """One comparison: shares that add up to 1 and the interval of the win rate (ties half)."""

    name: str
    win: float
    tie: float
    loss: float
    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One share with its interval."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""
    tone: Tone = "policy"


def win_chart(rows: Sequence[WinBar], *, description: str, width: int = 480) -> str:
    """Stacked win, tie and loss; the dot and whisker are the win rate and its interval, the dashed line is even."""
    across = Scale(0.0, 1.0, 0, width)
    height = ROW * len(rows) + LINE + 4
    parts = []
    for i, row in enumerate(rows):
        top = i * ROW + LINE + 2
        # A bar's own name on the left, its rate on the right: both above it, so that bars line up and long names fit.
        parts.append(text(0, top - 5, row.name, tone="strong"))
        rate = f"{100 * row.rate:.1f} %  ({100 * row.low:.1f}–{100 * row.high:.1f})"
        parts.append(text(width, top - 5, rate, anchor="end", tone="strong"))
        parts += _stack(row, across, top)
    bottom = ROW * len(rows) - ROW + LINE + 2 + BAR
    parts.append(element("line", x1=across(0.5), y1=LINE + 2, x2=across(0.5), y2=bottom + 3, class_="mark"))
    for i, row in enumerate(rows):
        parts += _whisker(row.low, row.high, row.rate, across, i * ROW + LINE + 2 + BAR / 2)
    parts.append(text(0, height - 2, "win"))
    parts.append(text(across(0.5), height - 2, "even", anchor="middle"))
    parts.append(text(width, height - 2, "loss", anchor="end"))
    return picture(width, height, parts, description=description)


def bar_chart(
    rows: Sequence[Bar],
    *,
    description: str,
    low: float = 0.0,
    high: float = 1.0,
    marks: Sequence[tuple[float, str]] = (),
    width: int = 480,
) -> str:
    """Shares as bars from `low`, whiskers for intervals, and dashed lines for what they are held against.

    Args:
        marks: values and their names, such as chance and a noise ceiling.
    """
    if not rows:
        return picture(width, 40, [text(0, 24, "nothing was recorded")], description=description)
    across = Scale(low, high, 0, width)
    height = ROW * len(rows) + (LINE + 4 if marks else 0)
    parts = []
    for i, row in enumerate(rows):
        top = i * ROW + LINE + 2
        parts.append(text(0, top - 5, row.name, tone="strong"))
        shown = f"{100 * row.value:.1f} %  ({100 * row.low:.1f}–{100 * row.high:.1f}){row.note and ' · ' + row.note}"
        parts.append(text(width, top - 5, shown, anchor="end"))
        parts.append(element("rect", x=0, y=top, width=width, height=BAR, rx=3, class_="healthy"))
        tip = max(0.0, across(min(row.value, high)))
        parts.append(
            element(
                "rect",
                hover(f"{row.name}: {shown}"),
                x=0,
                y=top,
                width=tip,
                height=BAR,
                rx=3,
                class_=f"fill {row.tone}",
            )
        )
    for place, label in marks:
        x = across(place)
        for i in range(len(rows)):
            top = i * ROW + LINE + 2
            parts.append(element("line", x1=x, y1=top - 2, x2=x, y2=top + BAR + 2, class_="mark"))
        half = 3 * len(label)  # keep the label inside the picture
        parts.append(text(min(max(x, half), width - half), height - 2, label, anchor="middle"))
    for i, row in enumerate(rows):
        y = i * ROW + LINE + 2 + BAR / 2
        parts += _whisker(max(row.low, low), min(row.high, high), row.value, across, y)
    return picture(width, height, parts, description=description)


def _stack(row: WinBar, across: Scale, top: float) -> list[str]:
    """Three rectangles with a hair of paper between them, each with its share where it fits."""
    shares: tuple[tuple[str, float, Tone], ...] = (
        ("win", row.win, "policy"),
        ("tie", row.tie, "baseline"),
        ("loss", row.loss, "loss"),
    )
    parts, left = [], 0.0
    for name, share, tone in shares:
        if share > 0:
            x, wide = across(left), across(share)
            label = hover(f"{name} {100 * share:.1f} %")
            parts.append(
                element("rect", label, x=x, y=top, width=max(0.5, wide - 1.5), height=BAR, class_=f"fill {tone}")
            )
        left += share
    return parts


def _whisker(low: float, high: float, value: float, across: Scale, y: float) -> list[str]:
    left, right = across(low), across(high)
    return [
        element("line", x1=left, y1=y, x2=right, y2=y, class_="halo"),
        element("line", x1=left, y1=y, x2=right, y2=y, class_="whisker"),
        element("circle", cx=across(value), cy=y, r=4, class_="dot"),
    ]
