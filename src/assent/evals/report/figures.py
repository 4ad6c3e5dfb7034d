"""The charts of the report; `svg.standalone(kl_figure(curve))` makes one a picture of its own, for a README."""

from collections.abc import Sequence

from assent.evals.bars import Bar, WinBar, bar_chart, win_chart
from assent.evals.calibration import Calibration
from assent.evals.ceiling import NoiseCeiling
from assent.evals.charts import Mark, Series, line_chart, reliability_chart
from assent.evals.intervals import Estimate
from assent.evals.overoptimisation import Overoptimisation
from assent.evals.report.content import Contest, CurvePanel
from assent.evals.report_card import ReportCard
from assent.evals.svg import Tone
from assent.evals.win_rate import percent
from assent.records import Degree

DEGREES = {
    Degree.SIGNIFICANTLY: "called significantly better",
    Degree.BETTER: "called better",
    Degree.SLIGHTLY: "called slightly better",
    Degree.NEGLIGIBLY: "called negligibly better",
    Degree.UNSTATED: "no degree stated",
}


def win_figure(contests: Sequence[Contest]) -> str:
    """Win, tie and loss of every contest, with intervals."""
    rows = []
    for c in contests:
        r, n = c.result, c.result.comparisons
        rows.append(WinBar(c.name, r.win / n, r.tie / n, r.loss / n, r.rate, r.interval.low, r.interval.high))
    words = "; ".join(f"{row.name}: {percent(row.rate)}" for row in rows)
    return win_chart(rows, description=f"Win rates. {words}")


def panel_figure(panel: CurvePanel) -> str:
    """One small chart of training."""
    return line_chart(
        panel.series,
        x_label=panel.x_label,
        y_label=panel.unit,
        description=f"{panel.title} over {panel.x_label}",
        healthy=panel.healthy,
        width=320,
        height=190,
    )


def kl_figure(curve: Overoptimisation) -> str:
    """Proxy and gold over KL; gold's band is 1.96 standard errors, hollow dots are best-of-n of the reference."""
    kl = tuple(p.kl for p in curve.points)
    steps = tuple(f"step {p.step}" for p in curve.points)
    gold = tuple(p.gold for p in curve.points)
    errors = [1.96 * p.gold_error for p in curve.points if p.gold_error is not None]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    if len(errors) == len(gold):
        low = tuple(g - e for g, e in zip(gold, errors, strict=True))
        high = tuple(g + e for g, e in zip(gold, errors, strict=True))
    series = [
        Series("proxy", kl, tuple(p.proxy for p in curve.points), "proxy", labels=steps),
        Series(curve.judge, kl, gold, "gold", low, high, labels=steps),
    ]
    if curve.best_of_n:
        names = tuple(f"best of {b.n}" for b in curve.best_of_n)
        at = tuple(b.kl for b in curve.best_of_n)
        golds = tuple(b.gold.value for b in curve.best_of_n)
        series.append(Series(f"best of n, {curve.judge}", at, golds, "gold", line=False, dots=True, labels=names))
    found = curve.finding
    return line_chart(
        series,
        x_label="KL to the reference, nats per sequence",
        y_label="mean score",
        description=found.text,
        marks=[Mark(found.peak_kl, f"{curve.judge} highest")] if found.overoptimised else [],
    )


def accuracy_figure(card: ReportCard) -> str:
    """Accuracy of the reward model, whole and in slices, between chance and the noise ceiling."""
    rows: list[tuple[str, Estimate, Tone]] = [
        ("all pairs", card.accuracy, "proxy"),
        ("length-matched pairs", card.length_matched, "proxy"),
        *((DEGREES[Degree(s.name)], s.accuracy, "baseline") for s in card.by_degree),
        *((s.name, s.accuracy, "baseline") for s in (*card.by_kind, *card.by_agreement)),
    ]
    if card.gold:
        rows.append(("against gold", card.gold.accuracy, "gold"))
    bars = [
        Bar(name, a.value, a.interval.low, a.interval.high, f"{a.items} pairs", tone)
        for name, a, tone in rows
        if a.value is not None and a.interval is not None
    ]
    marks = [(0.5, "chance")]
    if card.ceiling:
        marks.append((card.ceiling.accuracy, f"noise ceiling {ceiling_text(card.ceiling)}"))
    return bar_chart(bars, description="Accuracy on held-out pairs", marks=marks)


def calibration_figure(calibration: Calibration) -> str:
    """Accuracy over claimed probability."""
    points = [(b.confidence, b.accuracy) for b in calibration.bins]
    rows = [(c, a.value, a.interval, a.items) for c, a in points if a.value is not None and a.interval is not None]
    return reliability_chart(
        [c for c, _, _, _ in rows],
        [value for _, value, _, _ in rows],
        [interval.low for _, _, interval, _ in rows],
        [interval.high for _, _, interval, _ in rows],
        [items for _, _, _, items in rows],
        description="Calibration: accuracy over claimed probability",
    )


def ceiling_text(ceiling: NoiseCeiling) -> str:
    """As a figure where it is known, as a range where votes only bound it."""
    low = "" if ceiling.at_least is None else f"{100 * ceiling.at_least:.1f}–"
    return f"{low}{percent(ceiling.accuracy)}"
