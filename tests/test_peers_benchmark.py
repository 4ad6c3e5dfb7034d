"""The driver of `benchmarks/peers`: it refuses to call other work faster, and its page leaves no target out."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1] / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    for name in ("table", "limits", "written", "compare", "workload"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import compare

    return compare


def answers(losses):
    return [{"losses": losses[i : i + 2], "units": 10.0, "wall": 2.0, "cpu": 1.0} for i in range(0, len(losses), 2)]


def test_the_largest_difference_of_the_first_losses_counts(peers):
    ours, theirs = [2.0] * 12, [2.0] * 12
    ours[9] = 2.02
    assert peers.largest_gap(answers(ours), answers(theirs)) == pytest.approx(0.01)
    ours[9], ours[10] = 2.0, 3.0
    assert peers.largest_gap(answers(ours), answers(theirs)) == 0.0


def test_too_few_losses_agree_with_nothing(peers):
    assert peers.largest_gap(answers([1.0] * 8), answers([1.0] * 12)) == float("inf")


def test_other_losses_give_no_ratio(peers, monkeypatch, tmp_path):
    other = ([*answers([2.0] * 12)], [*answers([2.1] * 12)], [0.5])
    monkeypatch.setattr(peers, "turns_of", lambda *_: other)
    monkeypatch.setattr(peers, "versions", lambda _: {"trl": "0"})
    case = next(c for c in peers.CASES if c.same)
    options = type("Options", (), {"threads": 1, "peers": tmp_path})()
    row = peers.measured(case, "S", "gpt2", tmp_path, options)
    assert "differ" in row["refused"]
    assert "ratio_cpu" not in row


def test_both_sides_are_held_against_the_same_useful_tokens(peers, monkeypatch, tmp_path):
    more = {"peak_mb": 200.0, "before_mb": 100.0}
    ours = [{**a, **more, "slots": 60, "useful": 54} for a in answers([2.0] * 12)]
    theirs = [{**a, **more, "slots": 120} for a in answers([2.0] * 12)]
    monkeypatch.setattr(peers, "turns_of", lambda *_: (ours, theirs, [0.5]))
    monkeypatch.setattr(peers, "versions", lambda _: {"trl": "0"})
    monkeypatch.setattr(peers, "limits_of", lambda *_: {})
    monkeypatch.setattr(peers, "seconds_at_limit", lambda *_: None)
    case = next(c for c in peers.CASES if c.same)
    options = type("Options", (), {"threads": 1, "peers": tmp_path, "ours": "python", "core": 0})()
    row = peers.measured(case, "S", "gpt2", tmp_path, options)
    assert (row["ours"]["useful_share"], row["theirs"]["useful_share"]) == (0.9, 0.45)
    peers.remember({**row, "date": "today"}, tmp_path / "peers.json")
    assert "| 90 %, 45 % |" in (tmp_path / "peers.md").read_text()


def test_each_figure_of_given_responses_is_compared_by_its_own_size(peers):
    ours, theirs = [0.01, 100.0] * 10, [0.01, 100.0] * 10
    assert peers.largest_parts(answers(ours), answers(theirs), 2) == [0.0, 0.0]
    ours[4], ours[7] = 0.011, 103.0
    assert peers.largest_parts(answers(ours), answers(theirs), 2) == pytest.approx([0.1, 0.03])
    assert peers.largest_parts(answers(ours[:18]), answers(theirs), 2) == [float("inf")] * 2


def test_agreement_has_a_page_and_replaces_its_own_row_alone(peers, tmp_path):
    row = {"case": "PPO", "size": "S", "family": "gpt2", "steps": 10, "parts": [2e-4, 1e-5], "versions": {"trl": "0"}}
    for code, family in (("old", "gpt2"), ("other", "llama"), ("new", "gpt2")):
        peers.remember_agreement({**row, "family": family, "date": "today", "code": code}, tmp_path / "peers.json")
    text = (tmp_path / "peers.md").read_text()
    assert "| PPO | S gpt2 | 10 | 0.0002, 1e-05 | 0 | today, new |" in text
    assert "today, other" in text and "today, old" not in text


def test_every_target_has_a_line_also_unmeasured(peers, tmp_path):
    page = tmp_path / "peers.md"
    peers.write({"machine": "none", "python": "3", "rows": []}, page)
    text = page.read_text()
    for case in peers.CASES:
        for size, target in case.targets.items():
            assert f"| {case.name} | {size} | >= {target:g} | not measured |" in text


def test_least_work_grows_with_what_is_trained(peers, tmp_path):
    import json

    from limits import seconds_at_limit

    rows = [{"prompt": [1] * 40, "responses": [[1] * 40] * 4}] * 768
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    named = {c.name: c for c in peers.CASES}
    limit = {"gflops": 1.0, "gb_s": 1.0}

    def seconds(name):
        found = seconds_at_limit(named[name], "S", "gpt2", tmp_path, [{"units": 1.0}], limit)
        assert found is not None
        return found

    trunk, head = 4 * 12 * 160**2, 160 * 2048
    assert seconds("SFT") == pytest.approx(6 * (80 * trunk + 40 * head) / 80 / 1e9)
    assert seconds("DPO, reference every step") == pytest.approx(4 / 3 * seconds("DPO, reference precomputed"))
    assert seconds("reward model, pairs") > seconds("reward model, K = 4 against pairs")
