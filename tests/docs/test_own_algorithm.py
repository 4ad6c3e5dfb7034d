"""The page on algorithms of one's own is run as a reader would, and keeps what it promises."""

import json
from pathlib import Path

import pytest

from tests.docs.reader import ROOT, read

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[str]]:
    work = tmp_path_factory.mktemp("reader")
    return work, read(ROOT / "docs" / "how-to" / "own-algorithm.md", work)


def stage(work: Path, name: str) -> Path:
    (folder,) = (work / "runs" / "mine").glob(f"{name}-*")
    return folder


def test_the_algorithm_of_the_page_learns(made):
    """The judge prefers the policy on prompts it has not seen, beyond the interval."""
    results = json.loads((stage(made[0], "verdict") / "results.json").read_text())
    assert results["verdicts"]["sampled"]["improved"] is True, results["verdicts"]


def test_its_first_batch_was_checked_and_its_own_figures_logged(made):
    tuned = stage(made[0], "tuned")
    checks = {c["name"]: c["outcome"] for c in json.loads((tuned / "first_batch.json").read_text())["checks"]}
    assert {checks[n] for n in ("D1", "D4", "D5", "D7", "D8")} == {"passed"}
    rows = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 15 and all(row["user/largest_weight"] >= 1 for row in rows)


def test_the_resolved_recipe_names_the_class_and_its_file(made):
    assert (
        "mine:RewardWeighted" in made[1][0]
        or "mine:RewardWeighted" in (made[0] / "runs" / "mine" / "resolved.yaml").read_text()
    )
