"""The page that a run ends in: one HTML file that needs nothing else, for people who were not there.

`render(Report) -> str`. `Report` is a tree of plain frozen values (see `content`); `choose_samples` picks which
samples are shown and says how.
"""

from assent.evals.report.content import (
    Contest,
    CurvePanel,
    Fact,
    KindTable,
    NamedCurve,
    Report,
    Sample,
    StageRow,
)
from assent.evals.report.page import render
from assent.evals.report.samples import choose_samples

__all__ = [
    "Contest",
    "CurvePanel",
    "Fact",
    "KindTable",
    "NamedCurve",
    "Report",
    "Sample",
    "StageRow",
    "choose_samples",
    "render",
]
