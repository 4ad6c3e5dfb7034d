"""The checks as the stages call them: all of them, without a trace."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from doctor_parts import END, TOKENIZER, context_in, language_model, learner_on, ragged, said, world
from pydantic import TypeAdapter, ValidationError

from assent.algorithms.reward_model import RewardModel
from assent.algorithms.sft import SFT
from assent.data.batches import ComparisonExample, PackedBatches, TokenBatches, TokenExample
from assent.data.comparisons import ComparisonBatches
from assent.errors import CheckFailed
from assent.loops.online import online
from assent.models.folders import scalar_from_causal
from assent.models.forward import ModelForward
from assent.records import Preference
from assent.rewards.function import FunctionScorer
from assent.stages.first_batch import SkipChecks, check_comparisons, check_rl, check_tokens, reloaded_in
from assent.train.checkpoint import StateFile
from assent.train.weighing import WeightedScorer

NO_RELOAD: SkipChecks = ("D11",)


def report(context):
    return json.loads((context.out / "first_batch.json").read_text())


def outcomes(context):
    return {check["name"]: check["outcome"] for check in report(context)["checks"]}


def test_every_check_of_rl_passes_and_d11_in_a_process_of_its_own(tmp_path):
    context, healthy = context_in(tmp_path), world(tmp_path)
    first = check_rl((), context, healthy.parts)
    names = ["D8", "D4", "D3", "D1", "D5", "D2", "D6", "D7"]
    assert outcomes(context) == dict.fromkeys(names, "passed") | {"D11": "running"}
    assert said(context)[-2].startswith("first batch: 8 checks passed in ")
    assert said(context)[-1].startswith("token audit: ")
    assert "Token audit" in (context.out / "token_audit.txt").read_text()
    assert reloaded_in(context.out) == frozenset()
    first.finish()
    assert outcomes(context)["D11"] == "passed"
    assert len(reloaded_in(context.out)) == 2 and not (context.state / "reload").exists()
    found = {check["name"]: check for check in report(context)["checks"]}
    assert found["D11"]["detail"].startswith("log-probabilities, entropies, scores, values")
    assert all(c["figure"] <= c["tolerance"] for c in found.values())
    first.finish()  # a second call has nothing to wait for

    later = context_in(tmp_path / "later", inputs={"policy": SimpleNamespace(folder=context.out)})
    check_rl((), later, world(tmp_path).parts).finish()
    assert outcomes(later)["D11"] == "earlier" and reloaded_in(later.out) == reloaded_in(context.out)


class Log:
    """A tracker that remembers."""

    def __init__(self):
        self.lines = []

    def log(self, step, metrics):
        self.lines.append((step, {n: getattr(m, "value", m) for n, m in metrics.items()}))

    def progress(self, done, total):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Never:
    def spent(self, scored):
        return False


def noisy(rollout):
    """A user's scorer that draws from every global stream."""
    return random.random() + float(np.random.rand()) + torch.rand(()).item()


def test_the_checks_leave_no_trace(tmp_path):
    """Two runs of the real loop, with and without the checks before it: the same bits, metrics and random streams."""
    ends = []
    for checked in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        parts = world(tmp_path).parts
        parts.scoring.scoring.scorers.append(WeightedScorer(FunctionScorer("noise", noisy)))
        parts.learner.roles.eval()  # as a folder is loaded
        modes = [m.training for m in parts.learner.roles.modules()]
        if checked:
            check_rl(NO_RELOAD, context_in(tmp_path), parts)
            assert modes == [m.training for m in parts.learner.roles.modules()]
            assert all(p.grad is None for p in parts.learner.roles.parameters())
        log = Log()
        online(
            parts.source, parts.scoring, parts.algorithm, parts.learner, log, StateFile(tmp_path / "none", {}), Never()
        )
        streams = (random.random(), float(np.random.rand()), torch.rand(()).item())
        state = {n: t.clone() for n, t in parts.learner.roles.state_dict().items()}
        ends.append((log.lines, streams, state, parts.scoring.state_dict(), parts.source.state_dict()))
    without, with_checks = ends
    assert len(without[0]) == 3 and without[0][0][1]["objective/scores"] != without[0][1][1]["objective/scores"]
    assert repr(without[0]) == repr(with_checks[0])  # repr, so that nan equals itself
    assert without[1] == with_checks[1] and without[3:] == with_checks[3:]
    assert all(torch.equal(without[2][n], with_checks[2][n]) for n in without[2])


def test_a_refusal_stops_the_stage_is_recorded_and_can_be_skipped(tmp_path):
    healthy = world(tmp_path)
    parts = healthy.with_(same_start=True)
    for p in parts.scoring.scoring.reference.__self__.modules.parameters():
        with torch.no_grad():
            p.add_(0.1)
    context = context_in(tmp_path)
    with pytest.raises(CheckFailed, match="D5 failed"):
        check_rl(NO_RELOAD, context, parts)
    assert outcomes(context) == {"D8": "passed", "D4": "passed", "D3": "passed", "D1": "passed", "D5": "failed"}
    check_rl(("D5", "D11"), context, parts)
    assert outcomes(context)["D5"] == outcomes(context)["D11"] == "skipped"
    assert said(context)[-2].endswith("skipped: D5, D11")


def test_a_resumed_run_is_not_checked_again(tmp_path):
    context, parts = context_in(tmp_path), world(tmp_path).parts
    check_rl(NO_RELOAD, context, parts)
    before = report(context)
    StateFile(context.state, {}).save(1)

    def refuse(*_):
        raise AssertionError("a resumed run must not sample")

    parts.source.rollouts = refuse
    check_rl(NO_RELOAD, context, world(tmp_path).with_(source=parts.source))
    assert report(context) == before and "before this run was interrupted" in said(context)[-1]


def test_unknown_names_are_refused():
    adapter = TypeAdapter(SkipChecks)
    assert adapter.validate_python(["D1", "D11"]) == ("D1", "D11")
    with pytest.raises(ValidationError, match="D12"):
        adapter.validate_python(["D12"])


# ------------------------------------------------------------------------------------------------ the offline stages


def examples(*, end=True):
    rows = ragged(10)
    ids = rows.token_ids_BL.tolist()
    sizes = zip(rows.prompt_lengths_B.tolist(), rows.lengths_B.tolist(), strict=True)
    return [TokenExample(i[:p], i[p : n if end else n - 1]) for i, (p, n) in zip(ids, sizes, strict=True)]


def sft_parts(tmp_path, data):
    causal = language_model()
    learner = learner_on(ModelForward(policy=causal.model), {"policy": causal.model}, tmp_path)
    return causal, TokenBatches(data, batch_size=4, epochs=1, seed=0), learner


def test_sft_is_checked_and_its_batches_stand_where_they_stood(tmp_path):
    context = context_in(tmp_path, name="sft")
    causal, batches, learner = sft_parts(tmp_path, examples())
    check_tokens(NO_RELOAD, context, causal, batches, learner, SFT(), ends_expected=True)
    assert outcomes(context) == {"D8": "passed", "D7": "passed", "D11": "skipped"}
    assert [step for step, _ in batches] == [0, 1, 2]


def test_sft_refuses_demonstrations_without_end(tmp_path):
    causal, batches, learner = sft_parts(tmp_path, examples(end=False))
    with pytest.raises(CheckFailed, match="no response has an end token"):
        check_tokens(NO_RELOAD, context_in(tmp_path), causal, batches, learner, SFT(), ends_expected=True)


def test_packed_text_is_checked(tmp_path):
    context = context_in(tmp_path, name="base")
    causal, _, learner = sft_parts(tmp_path, examples())
    batches = PackedBatches(
        [e.response_ids for e in examples(end=False)], end_id=END, length=16, batch_size=2, epochs=1, seed=0
    )
    check_tokens(NO_RELOAD, context, causal, batches, learner, SFT(), ends_expected=False)
    assert outcomes(context)["D7"] == "passed"


def test_a_reward_model_is_checked(tmp_path):
    context = context_in(tmp_path, name="reward")
    folder = scalar_from_causal(language_model(), seed=0)
    learner = learner_on(ModelForward(scalar=folder.scalar), {"reward_model": folder.scalar}, tmp_path)
    rows = examples()
    data = [
        ComparisonExample(a.prompt_ids, [a.response_ids, b.response_ids], [Preference(0, 1)])
        for a, b in zip(rows, rows[1:] + rows[:1], strict=True)
    ]
    batches = ComparisonBatches(data, batch_size=5, epochs=1, seed=0)
    check_comparisons(NO_RELOAD, context, folder, batches, learner, RewardModel())
    assert outcomes(context) == {"D8": "passed", "D2": "passed", "D6": "passed", "D7": "passed", "D11": "skipped"}
    assert folder.tokenizer is TOKENIZER
