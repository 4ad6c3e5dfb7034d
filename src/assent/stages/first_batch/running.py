"""How the checks of a stage are run, recorded and waited for."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assent.dist import processes
from assent.doctor.reload import Probe
from assent.doctor.report import Check, CheckName, Result, run, skipped, summary
from assent.doctor.trace import no_trace
from assent.errors import CheckFailed
from assent.models.folders import CausalModel, ScalarFolder, save_causal, save_scalar
from assent.models.placement import in_full
from assent.pipeline.stage import StageContext
from assent.protocols import BatchSource
from assent.stages.first_batch.pieces import AUDIT
from assent.stages.reload import POLICY, SCALAR, configuration, policy_numbers, save_rows, scalar_numbers
from assent.train.checkpoint import StateFile
from assent.train.learner import LocalLearner
from assent.types import Sequences

SkipChecks = tuple[CheckName, ...]
"""Checks not to run, by name, in a recipe: `skip_checks: [D6]`."""

REPORT, RELOAD = "first_batch.json", "reload"


@dataclass
class FirstBatch:
    """The checks of one stage; `finish` waits for what still runs beside the training.

    Args:
        context: of the stage.
        configurations: of the models that the stage will save.
        results: so far.
        probe: the process of D11, if it runs.
    """

    context: StageContext
    configurations: frozenset[str]
    results: list[Result] = field(default_factory=list)
    probe: Probe | None = None

    def finish(self) -> None:
        """Call before the stage returns.

        Raises:
            CheckFailed: the saved model came back otherwise.
        """
        if self.probe is None:
            return
        probe, self.probe = self.probe, None
        try:
            found = probe.finish()
        except CheckFailed as error:
            self._settle(Result("D11", "failed", None, None, probe.seconds, str(error)))
            raise
        self._settle(Result("D11", "passed", found.figure, found.tolerance, probe.seconds, found.detail))
        shutil.rmtree(probe.folder, ignore_errors=True)

    def _settle(self, result: Result) -> None:
        self.results = [result if r.name == result.name else r for r in self.results]
        self.record(self.results)

    def record(self, results: Sequence[Result]) -> None:
        """Write the report, and which configurations later stages need not save and load again."""
        if processes.current().rank != 0:
            return
        came_back = any(r.name == "D11" and r.outcome in ("passed", "earlier") for r in results)
        reloaded = sorted(self.configurations) if came_back else []
        report = {"checks": [r.to_json() for r in results], "reloaded": reloaded}
        (self.context.out / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Saved:
    """What the stage will save.

    Args:
        causal, scalar: models; None where the stage saves none of the kind.
        rows: a few sequences to read.
    """

    causal: CausalModel | None
    scalar: ScalarFolder | None
    rows: Callable[[], Sequences]

    @property
    def configurations(self) -> frozenset[str]:
        models = [(POLICY, self.causal.model, self.causal.tokenizer)] if self.causal else []
        models += [(SCALAR, self.scalar.scalar.model, self.scalar.tokenizer)] if self.scalar else []
        return frozenset(configuration(*model) for model in models)

    def write(self, folder: Path) -> Mapping[str, Tensor]:
        """Save everything as the stage will; the numbers to expect."""
        sequences = replace(self.rows(), kept=None)
        save_rows(folder, sequences)
        expected: dict[str, Tensor] = {}
        with torch.no_grad():
            if self.causal is not None:
                save_causal(folder / POLICY, self.causal)
                with in_full(self.causal.model):
                    expected |= policy_numbers(self.causal, sequences)
            if self.scalar is not None:
                save_scalar(folder / SCALAR, self.scalar, golden=sequences)
                with in_full(self.scalar.scalar.model):
                    expected |= scalar_numbers(self.scalar, sequences)
        return expected

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; a stage saves at least one model."""
        models = [*([self.causal.model] if self.causal else []), *([self.scalar.scalar.model] if self.scalar else [])]
        return models[0].dtype


def run_checks(
    skip: SkipChecks,
    context: StageContext,
    learner: LocalLearner,
    checks: Sequence[Check],
    saved: Saved,
    *parts: Any,
) -> FirstBatch:
    """All checks without a trace. A run that goes on from a saved state has passed them before."""
    first = FirstBatch(context, saved.configurations)
    resumed = StateFile(context.state, {}).path.exists()
    if resumed and "D11" in _settled_before(context):
        context.say("first batch: checked before this run was interrupted")
        return first
    with no_trace(learner.roles, *parts, training=True):
        if resumed:
            first.results = [skipped(c.name, "checked before this run was interrupted") for c in checks]
        else:
            first.results = run(checks, skip, first.record)
        first.results.append(_reload(first, skip, saved))
    first.record(first.results)
    context.say(summary(first.results))
    for result in first.results:
        if result.name == "D8" and result.outcome == "passed":
            context.say(f"token audit: {result.detail}; one row of it is in {AUDIT}")
    return first


def _settled_before(context: StageContext) -> frozenset[str]:
    path = context.out / REPORT
    checks = json.loads(path.read_text(encoding="utf-8"))["checks"] if path.exists() else []
    return frozenset(check["name"] for check in checks if check["outcome"] in ("passed", "skipped", "earlier"))


def _reload(first: FirstBatch, skip: SkipChecks, saved: Saved) -> Result:
    """D11 beside the training: what is about to be trained is saved as the stage will save it."""
    if "D11" in skip:
        return skipped("D11", "by the recipe (skip_checks)")
    earlier = frozenset(c for artefact in first.context.inputs.values() for c in reloaded_in(artefact.folder))
    if saved.configurations <= earlier:
        return Result("D11", "earlier", None, None, 0.0, "an earlier stage passed it for the same configuration")
    if processes.current().rank != 0:
        return skipped("D11", "the process of rank 0 does it")
    folder = first.context.state / RELOAD
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first.probe = Probe.start("assent.stages.reload", folder, saved.write(folder), dtype=saved.dtype)
    return Result("D11", "running", None, None, 0.0, "a new process loads what was saved")


def reloaded_in(folder: Path) -> frozenset[str]:
    """The configurations that a finished stage has seen saved and loaded."""
    path = folder / REPORT
    return frozenset(json.loads(path.read_text(encoding="utf-8"))["reloaded"]) if path.exists() else frozenset()


def first_of(batches: BatchSource) -> Any:
    """The batch that comes first; the source stands where it stood."""
    state = batches.state_dict()
    _, batch = next(iter(batches))
    batches.load_state_dict(state)
    return batch
