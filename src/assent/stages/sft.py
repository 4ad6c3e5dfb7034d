"""Supervised fine-tuning on demonstrations; every epoch is kept and the best one is chosen."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from assent.algorithms.sft import SFT
from assent.data.batches import TokenBatches
from assent.data.splits import hold_out
from assent.data.tokenise import Budget
from assent.dist import processes
from assent.errors import ContractError
from assent.loops.offline import offline
from assent.models.folders import CausalModel, save_causal
from assent.models.forward import ModelForward
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import State, Stateful
from assent.records import Task
from assent.stages.first_batch import SkipChecks, check_tokens
from assent.stages.generation import sample_responses
from assent.stages.parts import (
    MODEL,
    Generation,
    ModelRef,
    Optimization,
    build_learner,
    evaluate_loss,
    example_of,
    fitting,
    load_policy,
)
from assent.stages.scorers import RawScore, RewardSpec
from assent.stages.sources import AnyDemonstrations, take
from assent.train.checkpoint import StateFile
from assent.types import Mean


class SftSpec(StageSpec):
    """Settings of supervised fine-tuning.

    Args:
        model: what to fine-tune.
        data: demonstrations.
        epochs: passes over the demonstrations; 16 in InstructGPT, with the choice made by reward-model score.
        batch_size: demonstrations per optimiser step.
        lengths: budget of a demonstration in tokens, and what becomes of one that is over it.
        validation: share of the prompts kept for validation, chosen by their hash.
        judge: reward model whose mean score on sampled responses chooses the epoch; None chooses by validation loss.
        generation: how the judge's samples are drawn; needed with `judge`.
        judged: how many validation prompts the judge sees.
        optimization: how weights are moved.
        skip_checks: first-batch checks not to run, by name; recorded in the artefact.
    """

    model: ModelRef
    data: AnyDemonstrations
    epochs: int = Field(2, gt=0)
    batch_size: int = Field(32, gt=0)
    lengths: Budget = Budget()
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.05
    judge: RawScore | None = None
    generation: Generation | None = None
    judged: int = Field(200, gt=0)
    optimization: Optimization
    skip_checks: SkipChecks = ()

    @model_validator(mode="after")
    def _judge_has_samples(self) -> "SftSpec":
        if (self.judge is None) != (self.generation is None):
            raise ValueError(
                "a judge needs `generation`, which says how the responses it judges are drawn, and it alone"
            )
        return self


class _Epochs:
    """A tracker around the stage's own that keeps and judges the model after every epoch."""

    def __init__(self, spec: SftSpec, context: StageContext, causal: CausalModel, steps: int, validation: list) -> None:
        self.spec, self.context, self.causal, self.validation = spec, context, causal, validation
        self.inner, self.per_epoch = context.tracker, steps // spec.epochs
        self.forward = ModelForward(policy=causal.model)
        self.examples = [example_of(causal, d) for d in validation]
        self.figures: list[float] = []

    def log(self, step: int, metrics: Mapping[str, Mean | float]) -> None:
        done = step + 1
        if done % self.per_epoch == 0:
            metrics = {**metrics, **self._judge(done // self.per_epoch)}
        self.inner.log(step, metrics)

    def _judge(self, epoch: int) -> dict[str, float]:
        batches = TokenBatches(self.examples, batch_size=64, epochs=1, seed=0)
        loss = evaluate_loss((b for _, b in batches), SFT(), self.forward)["loss/tokens"].value
        figures = {"validation/loss": loss}
        if self.spec.judge is not None and self.spec.generation is not None:
            figures["validation/score"] = self._mean_score(self.spec.judge, self.spec.generation)
        save_causal(self.context.out / f"epoch_{epoch}", self.causal)
        self.figures.append(figures.get("validation/score", -loss))
        return figures

    def _mean_score(self, judge: RewardSpec, generation: Generation) -> float:
        scorer = judge.scorer(self.context, self.causal)
        tasks = [Task(f"validation {i}", d.prompt) for i, d in enumerate(self.validation[: self.spec.judged])]
        rollouts = sample_responses(self.causal, tasks, generation, seed=self.context.seed)
        scores = [sum(e.value for e in events) for events in scorer.score(rollouts) if events]
        if not scores:
            raise ContractError(
                f"the judge {scorer.name!r} gave no score",
                got=f"{len(rollouts)} responses, none scored",
                why="it was to choose the epoch",
                fix="run the judge on a few responses by hand, or choose by validation loss: leave `judge` out",
            )
        return sum(scores) / len(scores)

    def progress(self, done: int, total: int) -> None:
        self.inner.progress(done, total)

    def state_dict(self) -> State:
        return {"inner": self.inner.state_dict(), "figures": list(self.figures)}

    def load_state_dict(self, state: State) -> None:
        self.inner.load_state_dict(state["inner"])
        self.figures = state["figures"]


def run(spec: SftSpec, context: StageContext) -> Mapping[str, float]:
    causal = load_policy(context, spec.model)
    read = take(spec.data, context)
    encoded = [(e.prompt_ids, [e.response_ids]) for e in (example_of(causal, d) for d in read)]
    kept = fitting(encoded, spec.lengths, "demonstrations", causal.model, context)
    training, validation = hold_out([read[i] for i in kept], spec.validation, context.seed)
    group = processes.current()
    batches = TokenBatches(
        [example_of(causal, d) for d in training],
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        seed=context.seed,
        shard=(group.rank, group.world),
    )
    learner = build_learner(
        context,
        spec.optimization,
        ModelForward(policy=causal.model),
        {"policy": causal.model},
        total_steps=len(batches),
    )
    epochs = _Epochs(spec, context, causal, len(batches), validation)
    parts: dict[str, Stateful] = {"learner": learner, "batches": batches, "tracker": epochs}
    first_batch = check_tokens(spec.skip_checks, context, causal, batches, learner, SFT(), ends_expected=True)
    checkpoint = StateFile(context.state, parts, every_seconds=spec.optimization.checkpoint_seconds)
    offline(batches, SFT(), learner, epochs, checkpoint)
    first_batch.finish()
    best = max(range(spec.epochs), key=lambda e: epochs.figures[e])
    _choose(context.out, best, epochs.figures, by="validation/score" if spec.judge else "validation/loss")
    return {"chosen_epoch": best + 1, "validation": abs(epochs.figures[best]), "demonstrations": len(training)}


def _choose(out: Path, best: int, figures: list[float], *, by: str) -> None:
    """Copy the chosen epoch to `model`; the others stay beside it."""
    shutil.copytree(out / f"epoch_{best + 1}", out / MODEL, dirs_exist_ok=True)
    sign = 1 if by == "validation/score" else -1
    choice = {"by": by, "chosen": best + 1, "epochs": [sign * f for f in figures]}
    (out / "choice.json").write_text(json.dumps(choice, indent=1) + "\n", encoding="utf-8")


def derive(spec: SftSpec) -> Mapping[str, Number]:
    count = getattr(spec.data, "count", None)
    if count is None:
        return {"epochs": spec.epochs, "batch size": spec.batch_size}
    training = count - max(1, round(spec.validation * count))
    # Which prompts are held out is decided by their hash, so the share is met on average only.
    return {"demonstrations, about": training, "updates, about": spec.epochs * -(-training // spec.batch_size)}


STAGE = Stage("sft", SftSpec, run, derive)
