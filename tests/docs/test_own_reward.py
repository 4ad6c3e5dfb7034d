"""The page on rewards of one's own is run as a reader would, and keeps what it promises."""

import json
from pathlib import Path

import pytest

from tests.docs.reader import ROOT, read

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[str]]:
    work = tmp_path_factory.mktemp("reader")
    return work, read(ROOT / "docs" / "how-to" / "own-reward.md", work)


def test_the_first_version_is_caught_at_the_empty_response_and_the_mended_one_passes(made):
    first, mended = made[1][:2]
    (empty,) = [line for line in first.splitlines() if line.strip().startswith("empty")]
    assert "FAIL" in empty
    assert "FAIL" not in mended and mended.count("pass") == 13


def test_the_policy_learns_the_reward_and_the_watched_rule_is_logged(made):
    (folder,) = (made[0] / "runs" / "brief").glob("tuned-*")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scores = [row["score/short"] for row in rows]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.2, scores
    assert all("score/regex" in row and "score_weighted/regex" not in row for row in rows), rows[0].keys()
