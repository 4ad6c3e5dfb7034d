"""Lines with bands, scatter and reliability, as SVG text."""

from collections.abc import Sequence
from dataclasses import dataclass

from assent.evals.svg import LINE, Scale, Tone, element, hover, number, picture, text, ticks

POINTS = 240
"""More points than this on a line are averaged in equal runs: a screen has no more to show."""

TARGETS = 60
"""Hover targets per line."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points in order, drawn as a line, hollow dots, or both.

    Args:
        x, y: [n]; a y of None leaves a gap.
        low, high: [n], the ends of an interval about y; empty for none.
        labels: [n], shown on hover beside the numbers; empty for none.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    tone: Tone = "policy"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    line: bool = True
    dots: bool = False
    dashed: bool = False
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = {len(self.y), len(self.x)} | {len(c) for c in (self.low, self.high, self.labels) if c}
        if len(sizes) != 1:
            raise ValueError(f"series {self.name!r} needs columns of one length; got {sorted(sizes)}; cut them alike")


@dataclass(frozen=True, slots=True)
class Mark:
    """A dashed upright line at a place worth knowing."""

    x: float
    label: str


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    description: str,
    marks: Sequence[Mark] = (),
    healthy: tuple[float, float] | None = None,
    width: int = 440,
    height: int = 270,
) -> str:
    """Lines over a common x.

    Args:
        y_label: name and unit, written above the axis.
        description: what the picture shows, for those who cannot see it.
        healthy: a range of y shaded as where one wants to be; it does not stretch the axis.
    """
    drawn = [thin(s) for s in series]
    xs = [x for s in series for x in s.x] + [m.x for m in marks]
    ys = [y for s in drawn for y in (*s.y, *s.low, *s.high) if y is not None]
    if not ys:
        return picture(width, 40, [text(0, 24, "nothing was recorded")], description=description)
    legend = len(series) > 1
    y_ticks = ticks(min(ys), max(ys))
    x_ticks = [t for t in ticks(min(xs), max(xs)) if min(xs) <= t <= max(xs)]
    left = 8 + 6.4 * max(len(number(t)) for t in y_ticks)
    top = 2 * LINE + 10 if legend else LINE + 6
    across = Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, left + 4, width - 10)
    up = Scale(y_ticks[0], y_ticks[-1], height - 34, top)
    parts = [
        *_axes(across, up, x_ticks, y_ticks, width=width, height=height, left=left),
        text(0, 11, y_label),
        text(width - 10, height - 4, x_label, anchor="end"),
    ]
    if healthy is not None:
        parts.insert(0, _healthy(healthy, up, left, width))
    parts += _marks(marks, across, top, height)
    parts += [_band(s, across, up) for s in drawn if s.low and s.high]
    parts += [_line(s, across, up) for s in drawn if s.line]
    parts += [_points(s, across, up) for s in drawn]
    if legend:
        parts.append(_legend(series))
    return picture(width, height, parts, description=description)


def reliability_chart(
    confidence: Sequence[float],
    accuracy: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    counts: Sequence[int],
    *,
    description: str,
    width: int = 440,
    height: int = 270,
) -> str:
    """Accuracy over claimed confidence, 1/2 to 1; on the diagonal, claims come true."""
    floor = min(0.5, *low) if low else 0.5
    y_ticks = ticks(floor, 1.0, 4)
    across, up = Scale(0.5, 1.0, 44, width - 10), Scale(y_ticks[0], 1.0, height - 34, LINE + 6)
    parts = _axes(across, up, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], y_ticks, width=width, height=height, left=40)
    parts += [
        text(0, 11, "agrees with the vote"),
        text(width - 10, height - 4, "claimed probability", anchor="end"),
        element("line", x1=across(0.5), y1=up(0.5), x2=across(1.0), y2=up(1.0), class_="mark"),
    ]
    for c, a, lo, hi, n in zip(confidence, accuracy, low, high, counts, strict=True):
        words = f"claimed {100 * c:.0f} %, true {100 * a:.0f} % of {n} pairs"
        x = across(c)
        parts.append(element("line", x1=x, y1=up(lo), x2=x, y2=up(hi), class_="whisker"))
        parts.append(element("circle", hover(words), cx=x, cy=up(a), r=4, class_="dot"))
    return picture(width, height, parts, description=description)


def thin(series: Series) -> Series:
    """At most `POINTS` points: means over equal runs; intervals are averaged with them, labels are dropped."""
    run = -(-len(series.x) // POINTS)
    if run <= 1:
        return series
    starts = range(0, len(series.x), run)

    def mean(column: Sequence[float | None], start: int) -> float | None:
        kept = [v for v in column[start : start + run] if v is not None]
        return sum(kept) / len(kept) if kept else None

    def means(column: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(m for s in starts if (m := mean(column, s)) is not None)

    return Series(
        series.name,
        means(series.x),
        tuple(mean(series.y, s) for s in starts),
        series.tone,
        means(series.low),
        means(series.high),
        series.line,
        series.dots,
        series.dashed,
    )


def _axes(
    across: Scale,
    up: Scale,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    *,
    width: int,
    height: int,
    left: float,
) -> list[str]:
    parts = []
    for t in y_ticks:
        parts.append(element("line", x1=left, y1=up(t), x2=width - 10, y2=up(t), class_="rule"))
        parts.append(text(left - 6, up(t) + 4, number(t), anchor="end"))
    parts.append(element("line", x1=left, y1=height - 34, x2=width - 10, y2=height - 34, class_="axis"))
    parts += [text(across(t), height - 34 + LINE, number(t), anchor="middle") for t in x_ticks]
    return parts


def _healthy(bounds: tuple[float, float], up: Scale, left: float, width: int) -> str:
    low, high = max(bounds[0], up.low), min(bounds[1], up.high)
    tall = max(0.0, up(low) - up(high))
    label = hover(f"healthy: {number(bounds[0])} to {number(bounds[1])}")
    return element("rect", label, x=left, y=up(high), width=width - 10 - left, height=tall, class_="healthy")


def _marks(marks: Sequence[Mark], across: Scale, top: float, height: int) -> list[str]:
    parts = []
    for m in marks:
        x = across(m.x)
        late = x > (across.start + across.end) / 2
        parts.append(element("line", x1=x, y1=top, x2=x, y2=height - 34, class_="mark"))
        parts.append(text(x - 5 if late else x + 5, top + 9, m.label, anchor="end" if late else "start"))
    return parts


def _band(s: Series, across: Scale, up: Scale) -> str:
    there = [f"{across(x):.1f},{up(h):.1f}" for x, h in zip(s.x, s.high, strict=True)]
    back = [f"{across(x):.1f},{up(lo):.1f}" for x, lo in zip(s.x, s.low, strict=True)][::-1]
    return element("polygon", points=" ".join(there + back), class_=f"band {s.tone}")


def _line(s: Series, across: Scale, up: Scale) -> str:
    path, pen = [], "M"
    for x, y in zip(s.x, s.y, strict=True):
        if y is None:
            pen = "M"
            continue
        path.append(f"{pen}{across(x):.1f} {up(y):.1f}")
        pen = "L"
    return element("path", d="".join(path), class_=f"line {s.tone}{' dashed' if s.dashed else ''}")


def _points(s: Series, across: Scale, up: Scale) -> str:
    """Dots where they are asked for, else unseen circles to hover over."""
    every = 1 if s.dots else -(-len(s.x) // TARGETS)
    parts = []
    for i in range(0, len(s.x), every):
        y = s.y[i]
        if y is None:
            continue
        interval = f" ({number(s.low[i])} to {number(s.high[i])})" if s.low and s.high else ""
        label = f"{s.labels[i]}: " if s.labels else ""
        words = hover(f"{label}{s.name} {number(y)}{interval} at {number(s.x[i])}")
        look, r = (f"hollow {s.tone}", 3.5) if s.dots else ("hit", 6)
        parts.append(element("circle", words, cx=across(s.x[i]), cy=up(y), r=r, class_=look))
    return "".join(parts)


def _legend(series: Sequence[Series]) -> str:
    parts, x = [], 0.0
    for s in series:
        if s.line:
            look = f"line {s.tone}{' dashed' if s.dashed else ''}"
            parts.append(element("line", x1=x, y1=LINE + 8, x2=x + 16, y2=LINE + 8, class_=look))
        else:
            parts.append(element("circle", cx=x + 8, cy=LINE + 8, r=3.5, class_=f"hollow {s.tone}"))
        parts.append(text(x + 21, LINE + 12, s.name, tone="strong"))
        x += 21 + 6.1 * len(s.name) + 16
    return "".join(parts)
