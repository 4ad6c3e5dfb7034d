"""The doctor's checks, put together for each kind of stage; the only place that knows both sides."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assent.dist import processes
from assent.doctor.layout import EXTRA_COLUMNS, gradient_is_one, padding_changes_nothing, spread
from assent.doctor.policy import (
    engine_follows_weights,
    engine_is_scored,
    kl_starts_at_zero,
    pairs_start_at_reference,
    ratio_starts_at_one,
)
from assent.doctor.reload import Probe
from assent.doctor.report import Check, CheckName, Finding, Result, run, skipped, summary
from assent.doctor.scores import distinct, score_reads_the_end
from assent.doctor.tokens import Audit, Boundaries, Vocabulary, audit, tokens_in_place
from assent.doctor.trace import no_trace
from assent.errors import CheckFailed
from assent.models.folders import CausalModel, ScalarFolder, save_causal, save_scalar
from assent.models.forward import ScalarModel
from assent.models.tokenizer import boundary_report, stop_ids
from assent.pipeline.run import StageContext
from assent.protocols import BatchSource, Engine, OfflineAlgorithm
from assent.rewards.model import RewardModelScorer, same_tokens
from assent.rollout.source import PromptSource
from assent.stages.reload import POLICY, SCALAR, configuration, policy_numbers, save_rows, scalar_numbers
from assent.train.checkpoint import StateFile
from assent.train.learner import LocalLearner
from assent.train.scoring import CriticScoring, RolloutScoring
from assent.types import Batch, ReferencedPairBatch, Sampling, Scored, Sequences

SkipChecks = tuple[CheckName, ...]
"""Checks not to run, by name, in a recipe: `skip_checks: [D6]`."""

REPORT, AUDIT, RELOAD = "first_batch.json", "token_audit.txt", "reload"

ROLLOUTS, UNITS, ROWS, RELOADED, CANARY_PROMPTS = 32, 16, 8, 4, 2
"""How much of the first batch is looked at: rollouts scored, units whose gradient is taken, sequences read alone,
sequences read by the new process, prompts answered by the engine. Enough that each defect we plant is found."""


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


# ------------------------------------------------------------------------------------------------ the stages


@dataclass(frozen=True, kw_only=True)
class Rl:
    """What reinforcement learning is made of, as its stage has just built it.

    Args:
        same_start: the reference is the policy's own start, so that their KL must be 0.
        algorithm: an online algorithm; its `experience` and `loss` are called.
    """

    policy: CausalModel
    engine: Engine
    source: PromptSource
    scoring: RolloutScoring | CriticScoring
    learner: LocalLearner
    algorithm: Any
    same_start: bool

    @property
    def judging(self) -> RolloutScoring:
        """The scoring without a critic's values."""
        return self.scoring.scoring if isinstance(self.scoring, CriticScoring) else self.scoring

    @cached_property
    def scored(self) -> Scored:
        """The first rollouts of the first step, whole groups."""
        self.engine.sync(self.learner.weights(), version=0)
        rollouts = self.source.rollouts(0)
        kept = min(ROLLOUTS, len(rollouts))
        while kept < len(rollouts) and rollouts[kept].prompt.id == rollouts[kept - 1].prompt.id:
            kept += 1
        return self.scoring(rollouts[:kept])

    @cached_property
    def experience(self) -> Any:
        return self.algorithm.experience(self.scored)

    def scalar_models(self) -> list[tuple[RewardModelScorer, Sequences]]:
        """The reward models among the scorers, and the first rollouts as each of them reads them."""
        judges = [w.scorer for w in self.judging.scorers if isinstance(w.scorer, RewardModelScorer)]
        pairs = [(judge, [judge.encode(r) for r in self.scored.rollouts]) for judge in judges]
        return [(judge, Sequences.of([p for p, _ in rows], [r for _, r in rows])) for judge, rows in pairs]


def check_rl(skip: SkipChecks, context: StageContext, parts: Rl) -> FirstBatch:
    """D8, D4, D3, D1, D5, D2, D6, D7, and D11 beside the training.

    Raises:
        CheckFailed: a check refuses.
    """
    learner, model = parts.learner, parts.policy.model
    dtype, end = _dtype(model), stop_ids(parts.policy.tokenizer)[-1]

    def tokens() -> Finding:
        scored = parts.scored
        return _audit(
            context, parts.policy, scored.sequences, ends_expected=False, scored_BT=scored.score_events_BT != 0
        )

    def engine() -> Finding:
        temperature = float(getattr(learner.forward, "temperature", 1.0))
        sampling = Sampling(4, stop_ids(parts.policy.tokenizer), temperature)
        prompts = [p.token_ids for p in parts.source.prompts_of(0)[:CANARY_PROMPTS]]
        return engine_follows_weights(
            parts.engine, learner.weights(), learner.forward.logprobs, prompts, sampling, version=0, dtype=dtype
        )

    def ratio() -> Finding:
        return ratio_starts_at_one(
            _gradients(learner), parts.experience, parts.algorithm, minibatches=parts.algorithm.minibatches, dtype=dtype
        )

    def layout() -> Finding:
        reads = {
            "log-probabilities": learner.forward.logprobs,
            "reference log-probabilities": parts.judging.reference,
        }
        if isinstance(parts.scoring, CriticScoring):
            reads["values"] = parts.scoring.values
        rows = spread(parts.scored.sequences, ROWS)
        found = [padding_changes_nothing(reads, rows, end_id=end, room=_room(model, rows), dtype=dtype)]
        for judge, sequences in parts.scalar_models():
            some = spread(sequences, ROWS)
            name = f"scores of {judge.name}"
            found.append(
                padding_changes_nothing({name: judge.scores}, some, end_id=_end(judge, some, end), room=0, dtype=dtype)
            )
        return _together(found)

    def scores() -> Finding:
        return _together(
            [
                score_reads_the_end(
                    judge.scores, distinct(rows), name=judge.name, end_id=_end(judge, rows, end), room=0, dtype=dtype
                )
                for judge, rows in parts.scalar_models()
            ]
        )

    has_judge = any(isinstance(w.scorer, RewardModelScorer) for w in parts.judging.scorers)
    checks = [
        Check("D8", tokens),
        Check("D4", engine),
        Check("D3", lambda: engine_is_scored(parts.scored, dtype=dtype)),
        Check("D1", ratio),
        Check("D5", lambda: kl_starts_at_zero(parts.scored, same_start=parts.same_start, dtype=dtype)),
        Check("D2", layout),
        *([Check("D6", scores)] if has_judge else []),
        Check("D7", lambda: _one_gradient(learner, parts.experience, parts.algorithm, model, end)),
    ]

    def reloaded() -> Sequences:
        return parts.scored.sequences.select(torch.arange(min(RELOADED, len(parts.scored.sequences))))

    critic = dict(learner.roles.items()).get("critic")
    folder = ScalarFolder(critic, parts.policy.tokenizer) if isinstance(critic, ScalarModel) else None
    return _run(skip, context, learner, checks, Saved(parts.policy, folder, reloaded), parts.scoring)


def check_tokens(
    skip: SkipChecks,
    context: StageContext,
    causal: CausalModel,
    batches: BatchSource,
    learner: LocalLearner,
    algorithm: OfflineAlgorithm,
    *,
    ends_expected: bool,
) -> FirstBatch:
    """D8, D7, and D11 beside the training: pretraining and supervised fine-tuning.

    Args:
        ends_expected: every response is whole and closes with an end token (demonstrations, not packed text).

    Raises:
        CheckFailed: a check refuses.
    """
    batch = first_of(batches)
    end = stop_ids(causal.tokenizer)[-1]
    checks = [
        Check("D8", lambda: _audit(context, causal, batch.sequences, ends_expected=ends_expected)),
        Check("D7", lambda: _one_gradient(learner, batch, algorithm, causal.model, end)),
    ]
    return _run(skip, context, learner, checks, Saved(causal, None, lambda: spread(batch.sequences, RELOADED)))


def check_comparisons(
    skip: SkipChecks,
    context: StageContext,
    folder: ScalarFolder,
    batches: BatchSource,
    learner: LocalLearner,
    algorithm: OfflineAlgorithm,
) -> FirstBatch:
    """D8, D2, D6, D7, and D11 beside the training: reward models.

    Raises:
        CheckFailed: a check refuses.
    """
    batch = first_of(batches)
    model, end = folder.scalar.model, stop_ids(folder.tokenizer)[-1]
    causal, dtype = CausalModel(model, folder.tokenizer), _dtype(model)

    def layout() -> Finding:
        rows = spread(batch.sequences, ROWS)
        reads = {"scores": learner.forward.scores, "values": folder.scalar.token_values}
        return padding_changes_nothing(reads, rows, end_id=end, room=_room(model, rows), dtype=dtype)

    def scores() -> Finding:
        rows = spread(distinct(batch.sequences), UNITS)
        return score_reads_the_end(
            learner.forward.scores, rows, name="the model", end_id=end, room=_room(model, rows), dtype=dtype
        )

    def tokens() -> Finding:
        last_BT = torch.arange(batch.sequences.mask_BT.shape[1]) == batch.sequences.response_lengths_B[:, None] - 1
        return _audit(context, causal, batch.sequences, ends_expected=True, scored_BT=last_BT)

    checks = [
        Check("D8", tokens),
        Check("D2", layout),
        Check("D6", scores),
        Check("D7", lambda: _one_gradient(learner, batch, algorithm, model, end)),
    ]
    return _run(skip, context, learner, checks, Saved(None, folder, lambda: spread(batch.sequences, RELOADED)))


def check_pairs(
    skip: SkipChecks,
    context: StageContext,
    causal: CausalModel,
    batches: BatchSource,
    learner: LocalLearner,
    algorithm: OfflineAlgorithm,
    *,
    same_start: bool,
) -> FirstBatch:
    """D8, D5 where there is a reference (`same_start`: the policy's own), D2, D7, and D11 beside: direct alignment.

    Raises:
        CheckFailed: a check refuses.
    """
    batch = first_of(batches)
    rows, model, end, dtype = batch.sequences, causal.model, stop_ids(causal.tokenizer)[-1], _dtype(causal.model)
    some, reads = spread(rows, ROWS), {"log-probabilities": learner.forward.logprobs}
    begun = partial(pairs_start_at_reference, _gradients(learner), batch, algorithm, same_start=same_start, dtype=dtype)
    checks = [
        Check("D8", lambda: _audit(context, causal, rows, ends_expected=True)),
        *([Check("D5", begun)] if isinstance(batch, ReferencedPairBatch) else []),
        Check("D2", lambda: padding_changes_nothing(reads, some, end_id=end, room=_room(model, some), dtype=dtype)),
        Check("D7", lambda: _one_gradient(learner, batch, algorithm, model, end)),
    ]
    return _run(skip, context, learner, checks, Saved(causal, None, lambda: spread(rows, RELOADED)))


def first_of(batches: BatchSource) -> Any:
    """The batch that comes first; the source stands where it stood."""
    state = batches.state_dict()
    _, batch = next(iter(batches))
    batches.load_state_dict(state)
    return batch


# ------------------------------------------------------------------------------------------------ how they are run


def _run(
    skip: SkipChecks,
    context: StageContext,
    learner: LocalLearner,
    checks: Sequence[Check],
    saved: "Saved",
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
        sequences = self.rows()
        save_rows(folder, sequences)
        expected: dict[str, Tensor] = {}
        with torch.no_grad():
            if self.causal is not None:
                save_causal(folder / POLICY, self.causal)
                expected |= policy_numbers(self.causal, sequences)
            if self.scalar is not None:
                save_scalar(folder / SCALAR, self.scalar, golden=sequences)
                expected |= scalar_numbers(self.scalar, sequences)
        return expected

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; a stage saves at least one model."""
        models = [*([self.causal.model] if self.causal else []), *([self.scalar.scalar.model] if self.scalar else [])]
        return _dtype(models[0])


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


# ------------------------------------------------------------------------------------------------ pieces


def _gradients(learner: LocalLearner) -> Callable[[Batch, OfflineAlgorithm, int | None], Mapping[str, Tensor]]:
    return lambda batch, algorithm, budget: learner.gradients(batch, algorithm, token_budget=budget)


def _one_gradient(learner: LocalLearner, batch: Any, algorithm: Any, model: nn.Module, end: int) -> Finding:
    order = batch.costs.argsort(stable=True)
    places = torch.linspace(0, len(order) - 1, min(UNITS, len(order))).round().long().unique()
    some = batch.select(order[places])
    return gradient_is_one(
        _gradients(learner), some, algorithm, end_id=end, room=_room(model, some.sequences), dtype=_dtype(model)
    )


def _audit(
    context: StageContext,
    causal: CausalModel,
    sequences: Sequences,
    *,
    ends_expected: bool,
    scored_BT: Tensor | None = None,
) -> Finding:
    """Write the table, say its gist, refuse what cannot be right."""
    tokenizer = causal.tokenizer
    ends = stop_ids(tokenizer)
    begin = tokenizer.bos_token_id
    vocabulary = Vocabulary(
        lambda i: str(tokenizer.decode([i])),
        lambda ids: str(tokenizer.decode(list(ids))),
        begin if begin not in ends else None,
        ends,
    )
    boundaries = _boundaries(causal, sequences)
    found: Audit = audit(sequences, vocabulary, title=context.name, boundaries=boundaries, scored_BT=scored_BT)
    (context.out / AUDIT).write_text(found.text, encoding="utf-8")
    return tokens_in_place(found, ends_expected=ends_expected)


def _boundaries(causal: CausalModel, sequences: Sequences) -> Boundaries | None:
    """None where every prompt is the one context token of packed text."""
    if int(sequences.prompt_lengths_B.max()) == 1:
        return None
    some = sequences.select(torch.arange(min(ROLLOUTS, len(sequences))))
    rows = [
        (str(causal.tokenizer.decode(ids[:start])), str(causal.tokenizer.decode(ids[start:end])))
        for ids, start, end in zip(
            some.token_ids_BL.tolist(), some.prompt_lengths_B.tolist(), some.lengths_B.tolist(), strict=True
        )
    ]
    found = boundary_report(causal.tokenizer, rows)
    return Boundaries(found.differing, found.total)


def _together(findings: Sequence[Finding]) -> Finding:
    """Of several, the one nearest to its tolerance, with all details."""
    worst = max(findings, key=lambda f: f.figure / f.tolerance if f.tolerance else f.figure)
    return Finding(worst.figure, worst.tolerance, "; ".join(f.detail for f in findings))


def _end(judge: RewardModelScorer, sequences: Sequences, policy_end: int) -> int:
    """The end token of a reward model's own tokenizer is what most of its responses close with."""
    if judge.encode is same_tokens:
        return policy_end
    last = sequences.token_ids_BL[torch.arange(len(sequences)), sequences.lengths_B - 1]
    return int(last.mode().values)


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def _room(model: Any, sequences: Sequences) -> int:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return EXTRA_COLUMNS if limit is None else int(limit) - sequences.token_ids_BL.shape[1]
