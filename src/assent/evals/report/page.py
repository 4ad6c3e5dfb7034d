"""Report to HTML. Everything that a model or a person wrote is escaped; the page has no script and loads nothing."""

from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from assent.evals import svg, win_rate
from assent.evals.intervals import Estimate, Interval
from assent.evals.report.content import Report
from assent.evals.report.figures import (
    accuracy_figure,
    calibration_figure,
    ceiling_text,
    kl_figure,
    panel_figure,
    win_figure,
)


def render(report: Report) -> str:
    """One HTML file: light and dark, for desk, phone and paper, without script or external address.

    Args:
        report: plain values; whatever they contain is shown, never interpreted.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    environment.filters.update(
        score=score,
        unbroken=unbroken,
        duration=duration,
        estimate=estimate,
        range=interval_text,
        percent=percent,
        number=svg.number,
        ceiling=ceiling_text,
    )
    template = environment.get_template("page.jinja")
    calibration = report.card.calibration if report.card else None
    return template.render(
        report=report,
        verdict_mark={True: "good", False: "bad", None: "open"}[report.verdict.improved],
        chart_style=Markup(svg.STYLESHEET),
        wins=Markup(win_figure(report.contests)),
        panels=[(panel, Markup(panel_figure(panel))) for panel in report.curves],
        curves=[(named.name, named.curve.finding, Markup(kl_figure(named.curve))) for named in report.overoptimisation],
        accuracy=Markup(accuracy_figure(report.card)) if report.card else "",
        reliability=Markup(calibration_figure(calibration)) if calibration else "",
        sample_groups=[(why, list(group)) for why, group in groupby(report.samples, lambda s: s.why)],
        longest=max((s.seconds or 0.0 for s in report.lineage), default=0.0),
    )


def visible(value: object) -> object:
    """Text that a model or a person wrote, harmless to show; what is markup already stays as it is."""
    return svg.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def unbroken(words: str) -> str:
    """Keep a number and its per cent sign on one line."""
    return words.replace(" %", "\u00a0%")


def score(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def percent(value: float | None) -> str:
    return "–" if value is None else unbroken(win_rate.percent(value))


def interval_text(interval: Interval | None) -> str:
    return "" if interval is None else f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def estimate(e: Estimate) -> str:
    return percent(e.value) if e.interval is None else f"{percent(e.value)} ({interval_text(e.interval)})"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
