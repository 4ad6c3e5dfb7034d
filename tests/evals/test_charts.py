import re
from xml.etree import ElementTree

import pytest

from assent.evals.bars import Bar, WinBar, bar_chart, win_chart
from assent.evals.charts import POINTS, Mark, Series, line_chart, reliability_chart, thin
from assent.evals.svg import Scale, number, printable, standalone, ticks

EVIL = "<script>\x00\u202e\ud800&\"'"


def parsed(chart):
    return ElementTree.fromstring(chart)


def every_chart():
    line = Series(EVIL, (0.0, 1.0, 2.0), (1.0, None, 3.0), low=(0.5, 1.0, 2.0), high=(1.5, 2.0, 4.0))
    dots = Series("dots", (0.5,), (2.0,), "gold", line=False, dots=True, labels=(EVIL,))
    return [
        line_chart(
            (line, dots), x_label=EVIL, y_label=EVIL, description=EVIL, marks=(Mark(1.0, EVIL),), healthy=(0, 9)
        ),
        win_chart((WinBar(EVIL, 0.6, 0.1, 0.3, 0.65, 0.6, 0.7),), description=EVIL),
        bar_chart((Bar(EVIL, 0.6, 0.5, 0.7, EVIL),), description=EVIL, marks=((0.5, EVIL),)),
        reliability_chart((0.7,), (0.6,), (0.5,), (0.7,), (12,), description=EVIL),
    ]


def test_charts_are_well_formed_escaped_and_deterministic():
    for chart, again in zip(every_chart(), every_chart(), strict=True):
        root = parsed(chart)
        assert root.tag == "svg" and "<script" not in chart and chart == again
        chart.encode("utf-8")
        words = "".join(root.itertext()) + root.get("aria-label")
        assert "<script>⟨U+0000⟩⟨U+202E⟩⟨U+D800⟩&\"'" in words
        assert "nan" not in chart and "None" not in chart


def test_standalone_is_a_picture_of_its_own():
    picture = standalone(every_chart()[0])
    root = parsed(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("width") == "472"
    assert root.get("viewBox") == "-16 -16 472 302"
    assert "prefers-color-scheme:dark" in picture
    assert re.findall(r"https?://[^\"' ]+", picture) == ["http://www.w3.org/2000/svg"]


def test_a_line_goes_where_the_numbers_say():
    chart = line_chart((Series("s", (0.0, 10.0), (0.0, 4.0)),), x_label="x", y_label="y", description="d")
    path = re.search(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', chart)
    x0, y0, x1, y1 = (float(v) for v in path.groups())
    assert x0 < x1 == 430 and y0 == 270 - 34 and y1 == 21  # right edge; the axis; the top tick
    assert "s 4 at 10" in chart


def test_gaps_stay_gaps():
    chart = line_chart((Series("s", (0.0, 1.0, 2.0), (1.0, None, 2.0)),), x_label="x", y_label="y", description="d")
    assert chart.count("M") == 2
    empty = line_chart((Series("s", (0.0,), (None,)),), x_label="x", y_label="y", description="d")
    assert "nothing was recorded" in empty
    assert "nothing was recorded" in bar_chart((), description="d")


def test_thinning_keeps_the_mean():
    long = Series("s", tuple(float(i) for i in range(1000)), tuple(float(i % 7) for i in range(1000)))
    short = thin(long)
    assert len(short.x) <= POINTS
    assert sum(short.y) / len(short.y) == pytest.approx(sum(long.y) / 1000, abs=1e-9)
    with pytest.raises(ValueError, match="one length"):
        Series("s", (1.0,), (1.0, 2.0))


def test_bars_carry_shares():
    chart = parsed(win_chart((WinBar("n", 0.5, 0.25, 0.25, 0.625, 0.5, 0.75),), description="d"))
    widths = [float(r.get("width")) for r in chart.iter("rect")]
    assert [w + 1.5 for w in widths] == pytest.approx([240, 120, 120])
    dot = next(chart.iter("circle"))
    assert float(dot.get("cx")) == pytest.approx(300)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3, 11, [-5, 0, 5, 10, 15]),
        (0.012, 0.019, None),
        (2, 2, None),
        (0, 0, None),
    ],
)
def test_ticks_are_round_and_enclose(low, high, expected):
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 8
    if expected:
        assert found == pytest.approx(expected)


def test_numbers_for_readers():
    shown = [number(v) for v in (0.0, -1.5, 12345.0, 2_500_000.0, 0.00012, 0.30000000000000004)]
    assert shown == ["0", "−1.5", "12.3k", "2.5M", "1.2e−04", "0.3"]
    assert Scale(0, 10, 100, 200)(5) == 150
    assert printable("a\r\nb\tc") == "a\nb\tc"
