"""Report to HTML. Everything that a model or a person wrote is escaped; the page has no script and loads nothing."""

from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from assent.evals import svg
from assent.evals.bars import Bar, WinBar, bar_chart, win_chart
from assent.evals.ceiling import NoiseCeiling
from assent.evals.charts import Mark, Series, line_chart, reliability_chart
from assent.evals.intervals import Estimate, Interval
from assent.evals.overoptimisation import Overoptimisation
from assent.evals.report.content import Contest, CurvePanel, Report
from assent.evals.report_card import ReportCard
from assent.records import Degree

DEGREES = {
    Degree.SIGNIFICANTLY: "called significantly better",
    Degree.BETTER: "called better",
    Degree.SLIGHTLY: "called slightly better",
    Degree.NEGLIGIBLY: "called negligibly better",
    Degree.UNSTATED: "no degree stated",
}


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
        ceiling=_ceiling,
    )
    template = environment.get_template("page.jinja")
    return template.render(
        report=report,
        verdict_mark={True: "good", False: "bad", None: "open"}[report.verdict.improved],
        chart_style=Markup(svg.STYLESHEET),
        wins=_wins(report.contests),
        panels=[(panel, _panel(panel)) for panel in report.curves],
        curves=[(named.name, named.curve.finding, _kl_chart(named.curve)) for named in report.overoptimisation],
        card_charts=_card_charts(report.card) if report.card else {},
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
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


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


def _wins(contests: tuple[Contest, ...]) -> Markup:
    rows = []
    for c in contests:
        r = c.result
        n = r.comparisons
        rows.append(WinBar(c.name, r.win / n, r.tie / n, r.loss / n, r.rate, r.interval.low, r.interval.high))
    words = "; ".join(f"{row.name}: {100 * row.rate:.1f} %" for row in rows)
    return Markup(win_chart(rows, description=f"Win rates. {words}"))


def _panel(panel: CurvePanel) -> Markup:
    chart = line_chart(
        panel.series,
        x_label=panel.x_label,
        y_label=panel.unit,
        description=f"{panel.title} over {panel.x_label}",
        healthy=panel.healthy,
        width=320,
        height=190,
    )
    return Markup(chart)


def _kl_chart(curve: Overoptimisation) -> Markup:
    kl = tuple(p.kl for p in curve.points)
    steps = tuple(f"step {p.step}" for p in curve.points)
    errors = [p.gold_error for p in curve.points]
    known = [e for e in errors if e is not None]
    gold = tuple(p.gold for p in curve.points)
    banded = len(known) == len(gold)
    series = [
        Series("proxy", kl, tuple(p.proxy for p in curve.points), "proxy", labels=steps),
        Series(
            curve.judge,
            kl,
            gold,
            "gold",
            tuple(g - 1.96 * e for g, e in zip(gold, known, strict=True)) if banded else (),
            tuple(g + 1.96 * e for g, e in zip(gold, known, strict=True)) if banded else (),
            labels=steps,
        ),
    ]
    if curve.best_of_n:
        names = tuple(f"best of {b.n}" for b in curve.best_of_n)
        at = tuple(b.kl for b in curve.best_of_n)
        golds = tuple(b.gold.value for b in curve.best_of_n)
        series.append(Series(f"best of n, {curve.judge}", at, golds, "gold", line=False, dots=True, labels=names))
    found = curve.finding
    marks = [Mark(found.peak_kl, f"{curve.judge} highest")] if found.overoptimised else []
    return Markup(
        line_chart(
            series,
            x_label="KL to the reference, nats per sequence",
            y_label="mean score",
            description=found.text,
            marks=marks,
        )
    )


def _ceiling(ceiling: NoiseCeiling) -> str:
    """As a figure where it is known, as a range where votes only bound it."""
    low = "" if ceiling.at_least is None else f"{100 * ceiling.at_least:.1f}–"
    return f"{low}{percent(ceiling.accuracy)}"


def _card_charts(card: ReportCard) -> dict[str, Markup]:
    charts = {}
    rows: list[tuple[str, Estimate, svg.Tone]] = [
        ("all pairs", card.accuracy, "proxy"),
        ("length-matched pairs", card.length_matched, "proxy"),
    ]
    rows += [(DEGREES[Degree(s.name)], s.accuracy, "baseline") for s in card.by_degree]
    rows += [(s.name, s.accuracy, "baseline") for s in card.by_kind]
    if card.gold:
        rows.append(("against gold", card.gold.accuracy, "gold"))
    bars = [
        Bar(name, a.value, a.interval.low, a.interval.high, f"{a.items} pairs", tone)
        for name, a, tone in rows
        if a.value is not None and a.interval is not None
    ]
    marks = [(0.5, "chance")]
    if card.ceiling:
        marks.append((card.ceiling.accuracy, f"noise ceiling {_ceiling(card.ceiling)}"))
    charts["accuracy"] = Markup(bar_chart(bars, description="Accuracy on held-out pairs", marks=marks))
    if card.calibration:
        bins = [b for b in card.calibration.bins if b.accuracy.value is not None and b.accuracy.interval is not None]
        charts["reliability"] = Markup(
            reliability_chart(
                [b.confidence for b in bins],
                [b.accuracy.value or 0.0 for b in bins],
                [b.accuracy.interval.low for b in bins if b.accuracy.interval],
                [b.accuracy.interval.high for b in bins if b.accuracy.interval],
                [b.accuracy.items for b in bins],
                description="Calibration: accuracy over claimed probability",
            )
        )
    return charts
