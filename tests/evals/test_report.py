import json
import re
from html.parser import HTMLParser

import pytest
from made_up_report import HOSTILE, made_up_report

from assent.evals.report import Fact, Report, Sample, choose_samples, render
from assent.evals.report.page import duration
from assent.evals.win_rate import Verdict

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Checks nesting; collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def report():
    return made_up_report()


@pytest.fixture(scope="module")
def page(report):
    return render(report)


def test_well_formed(page):
    reader = read(page)
    assert {"html", "head", "main", "svg", "table", "details"} <= set(reader.tags)
    ids = [v for k, v in reader.attributes if k == "id"]
    assert len(ids) == len(set(ids))
    assert {v[1:] for k, v in reader.attributes if k == "href"} <= set(ids)


def test_loads_nothing_and_runs_nothing(page):
    reader = read(page)
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & set(reader.tags)
    names = {k for k, _ in reader.attributes}
    assert not {n for n in names if n.startswith("on")} and not names & {"src", "srcset", "xlink:href", "action"}
    assert all(v.startswith("#") for k, v in reader.attributes if k == "href")
    style = page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    # the one address in the page is text of the settings
    assert re.findall(r"https?://\S+", page) == ["https://example.org/&lt;b&gt;&amp;"]
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_hostile_output_is_only_text(page):
    page.encode("utf-8")
    words = "".join(read(page).words)
    seen = HOSTILE.replace("\u202e", "⟨U+202E⟩").replace("\x00", "⟨U+0000⟩").replace("\ud800", "⟨U+D800⟩")
    assert words.count(seen) >= 4
    assert "<script>alert" not in page and "\u202e" not in page and "{{ 7*7 }}" in page


def test_says_what_it_was_given(report, page):
    words = re.sub(r"\s+", " ", "".join(read(page).words))
    assert words.index(report.verdict.text.split(":")[0]) < words.index("Results")
    given = [
        *(f.value for f in report.facts),
        *(c.name for c in report.contests),
        *(s.prompt for s in report.samples[1:]),
        *(s.after for s in report.samples[1:]),
        *(r.id for r in report.lineage),
        *(p.title for p in report.curves),
        *report.chat,
        *report.limits,
        *(n.curve.finding.text for n in report.overoptimisation),
        *report.card.warnings,
        report.created,
        report.code_version,
    ]
    missing = [g for g in given if g not in words]
    assert missing == []
    assert "71.0 %" in words.replace("\u00a0", " ") and "kl_coef: 0.05" in words


def test_same_in_same_out(report, page):
    assert render(report) == page


def test_the_least_report():
    reader = read(render(Report("run", Verdict("No evidence of improvement.", None))))
    assert "section" not in reader.tags and "svg" not in reader.tags


def test_notes_on_the_samples_stand_with_them():
    verdict = Verdict("No evidence of improvement.", None)
    sample = Sample("p", "somebody else\ufffd", "somebody else")
    page = render(Report("run", verdict, samples=(sample,), sample_notes=("What a broken byte is.",)))
    said = re.sub(r"\s+", " ", "".join(read(page).words))
    assert "scores by gold. What a broken byte is." in said
    assert "broken byte" not in render(Report("run", verdict, samples=(sample,)))


def test_json_round_trip():
    report = made_up_report(hostile=False)
    again = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report and render(again) == render(report)


def test_samples_are_a_fair_draw_with_the_extremes_named():
    samples = [Sample(f"p{i}", "b", "a", 0.0, float(i - 50)) for i in range(100)]
    chosen = choose_samples(samples, count=20, seed=3)
    assert len(chosen) == 20 == len({s.prompt for s in chosen})
    why = [s.why for s in chosen]
    assert why == ["drawn at random"] * 12 + ["largest gain"] * 4 + ["largest loss"] * 4
    drawn = {s.prompt for s in chosen[:12]}
    expected_best = [f"p{i}" for i in range(99, 0, -1) if f"p{i}" not in drawn][:4]
    expected_worst = [f"p{i}" for i in range(100) if f"p{i}" not in drawn][:4]
    assert [s.prompt for s in chosen[12:16]] == expected_best and [s.prompt for s in chosen[16:]] == expected_worst
    assert chosen == choose_samples(samples, count=20, seed=3)


def test_a_gain_is_never_called_a_loss():
    gains = [Sample(f"p{i}", "b", "a", 0.0, 1.0 + i) for i in range(40)]
    assert {s.why for s in choose_samples(gains)} == {"drawn at random", "largest gain"}
    losses = [Sample(f"p{i}", "b", "a", 0.0, -1.0 - i) for i in range(40)]
    assert {s.why for s in choose_samples(losses)} == {"drawn at random", "largest loss"}
    unscored = [Sample(f"p{i}", "b", "a") for i in range(40)]
    assert [s.why for s in choose_samples(unscored)] == ["drawn at random"] * 20
    assert len(choose_samples(unscored[:3])) == 3


def test_durations():
    assert [duration(s) for s in (None, 1.24, 59.97, 192.0, 7260.0)] == [
        "–",
        "1.2 s",
        "60.0 s",
        "3 min 12 s",
        "2 h 1 min",
    ]


def test_facts_need_no_note():
    assert "<small>" not in render(Report("r", Verdict("v", True), facts=(Fact("n", "v"),)))
