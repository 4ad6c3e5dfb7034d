"""The catalogue: every name people know is declared, and an undeclared one is refused."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from assent.errors import ContractError
from assent.track.catalogue import METRICS, SECTIONS, Range, lookup, page

SOURCES = Path(__file__).resolve().parents[2] / "src" / "assent"

TRL = """objective/kl objective/entropy objective/non_score_reward objective/rlhf_reward objective/scores
policy/approxkl_avg policy/clipfrac_avg loss/policy_avg loss/value_avg val/clipfrac_avg policy/entropy_avg val/ratio
val/ratio_var val/num_eos_tokens lr episode epoch"""


def test_the_names_of_trl_are_declared() -> None:
    for name in TRL.split():
        assert lookup(name).name == name


def test_every_metric_is_explained_once() -> None:
    assert sum(len(s.metrics) for s in SECTIONS) == len(METRICS)
    labels = Counter(m.label for m in METRICS.values() if m.label)
    assert {label for label, times in labels.items() if times > 1} == {"loss"}, "only losses share a label"
    for m in METRICS.values():
        assert m.unit and m.meaning and m.advice.endswith((".", "`"))


def test_families_and_slips() -> None:
    assert lookup("score/politeness").name == "score/<name>"
    assert lookup("grad_norm").name == "grad_norm"
    assert lookup("grad_norm/critic").name == "grad_norm/<role>"
    assert lookup("user/mine").unit == "yours"
    for wrong, near in [("objective/kll", "'objective/kl'"), ("score/", "score/<name>"), ("zzz", "user/NAME")]:
        with pytest.raises(ContractError, match=near):
            lookup(wrong)


def test_every_metric_that_the_sources_name_is_declared() -> None:
    """Reads the text of the sources for names like `"loss/tokens":`, whoever wrote them."""
    used = set()
    for path in SOURCES.rglob("*.py"):
        if "track" not in path.parts:
            used |= set(re.findall(r'f?"([a-z_]+/[a-z_0-9{}.]+)": Mean', path.read_text(encoding="utf-8")))
    assert used, "the pattern finds the algorithms' metrics"
    for name in used:
        lookup(re.sub(r"\{.*", "x", name))


def test_ranges() -> None:
    assert Range(0, 1).holds(0)
    assert Range(0, 1).holds(1)
    assert not Range(0, 1).holds(1.01)
    assert Range(low=0).holds(1e9)
    assert not Range(low=0).holds(-1e-9)
    assert Range(high=2).holds(-1e9)
    assert not any(r.holds(math.nan) for r in (Range(0, 1), Range(low=0), Range(high=0), Range()))
    assert (str(Range(0, 0.5)), str(Range(low=1)), str(Range(high=2))) == ("0 to 0.5", "at least 1", "at most 2")


def test_the_page_has_one_row_per_metric_with_five_cells() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(METRICS)
    assert all(len(re.split(r"(?<!\\)\|", row)) == 7 for row in rows)
