"""Train a process reward model on labelled steps, and say how far it can be trusted."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from assent.algorithms.process_reward import ProcessReward
from assent.data.splits import hold_out, record_key
from assent.data.steps import OutcomeTargets, StepBatches, StepExample, StepTargets
from assent.data.tokenise import Budget
from assent.dist import processes
from assent.evals.step_card import JudgedSolution, StepCard, step_card
from assent.loops.offline import offline
from assent.models.folders import ScalarFolder, save_scalar, scalar_from_causal
from assent.models.forward import ModelForward, step_reader
from assent.models.tokenizer import encode_prompt, step_ends
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import Stateful
from assent.records import LabelledSolution
from assent.rewards.process import ReadSolution, asked
from assent.stages.first_batch import SkipChecks, check_steps
from assent.stages.parts import (
    HELD_OUT_SEED,
    MODEL,
    ModelRef,
    Optimization,
    build_learner,
    fitting,
    load_policy,
    response_ids,
)
from assent.stages.scorers.process import step_logits
from assent.stages.sources import take
from assent.stages.step_sources import AnySolutions
from assent.train.checkpoint import StateFile
from assent.types import Sequences

AnyTargets = Annotated[StepTargets | OutcomeTargets, Field(discriminator="name")]


class ProcessRewardSpec(StageSpec):
    """Settings of process-reward training.

    Args:
        model: the language model whose trunk it starts from.
        data: labelled solutions, from one or more sources.
        targets: `{name: steps}` trains on every labelled step, `{name: outcome}` on the end of each solution alone,
            by whether its answer is right.
        epochs: passes over the solutions; 2 in Lightman et al. (2305.20050).
        batch_size: solutions per optimiser step.
        lengths: budget of a solution in tokens, and what becomes of one that is over it.
        held_out: share of the prompts kept for the card.
        algorithm: the loss.
        optimization: how weights are moved.
        skip_checks: first-batch checks not to run, by name; recorded in the artefact.
    """

    model: ModelRef
    data: list[AnySolutions] = Field(min_length=1)
    targets: AnyTargets = StepTargets()
    epochs: int = Field(2, gt=0)
    batch_size: int = Field(32, gt=0)
    lengths: Budget = Budget()
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    algorithm: ProcessReward = ProcessReward()
    optimization: Optimization
    skip_checks: SkipChecks = ()


def run(spec: ProcessRewardSpec, context: StageContext) -> Mapping[str, float]:
    causal = load_policy(context, spec.model)
    folder = scalar_from_causal(causal, seed=context.seed)
    read = [s for source in spec.data for s in take(source, context)]
    solutions = {id(s): read_solution(folder, s) for s in read}
    encoded = [(r.prompt_ids, [r.response_ids]) for r in solutions.values()]
    kept = fitting(encoded, spec.lengths, "solutions", folder.scalar.model, context)
    training, held = hold_out([read[i] for i in kept], spec.held_out, HELD_OUT_SEED)
    group = processes.current()
    batches = StepBatches(
        [_example(solutions[id(s)], spec.targets.of(s)) for s in training],
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        seed=context.seed,
        shard=(group.rank, group.world),
    )
    context.say(batches.report)
    learner = build_learner(
        context,
        spec.optimization,
        ModelForward(scalar=folder.scalar),
        {"reward_model": folder.scalar},
        total_steps=len(batches),
    )
    parts: dict[str, Stateful] = {"learner": learner, "batches": batches, "tracker": context.tracker}
    first_batch = check_steps(
        spec.skip_checks,
        context,
        folder,
        batches,
        learner,
        spec.algorithm,
        ends_expected=any(s.ended for s in training),
    )
    checkpoint = StateFile(context.state, parts, every_seconds=spec.optimization.checkpoint_seconds)
    offline(batches, spec.algorithm, learner, context.tracker, checkpoint)
    first_batch.finish()
    card = make_card(folder, held, [solutions[id(s)] for s in held], spec.targets)
    (context.out / "card.json").write_text(json.dumps(card.to_json(), indent=1) + "\n", encoding="utf-8")
    some = [solutions[id(s)] for s in (held if len(held) >= 3 else training)[:10]]
    golden = Sequences.of([r.prompt_ids for r in some], [r.response_ids for r in some])
    save_scalar(context.out / MODEL, folder, golden=golden)
    context.say(summary(card))
    return figures(card) | {"training_solutions": float(len(training)), "held_out_solutions": float(len(held))}


def read_solution(folder: ScalarFolder, solution: LabelledSolution) -> ReadSolution:
    """A solution in the model's own tokens; one that was cut off gets no end token, as the policy left it."""
    ids = response_ids(folder.tokenizer, solution.prompt, solution.response, end=solution.ended)
    return ReadSolution(
        encode_prompt(folder.tokenizer, solution.prompt), ids, step_ends(folder.tokenizer, ids, solution.steps)
    )


def _example(read: ReadSolution, targets: Sequence[float | None]) -> StepExample:
    return StepExample(read.prompt_ids, read.response_ids, read.ends, targets)


def make_card(
    folder: ScalarFolder,
    solutions: Sequence[LabelledSolution],
    read: Sequence[ReadSolution],
    targets: StepTargets | OutcomeTargets,
) -> StepCard:
    """The card over held-out solutions, by the targets that the model was trained on."""
    logits_BT = step_logits(step_reader(folder.scalar))(asked(read))
    judged = []
    for row, (solution, found) in enumerate(zip(solutions, read, strict=True)):
        first = solution.first_error
        labelled = solution.labels[: len(solution.labels) if first is None else first + 1]
        judged.append(
            JudgedSolution(
                record_key(solution),
                tuple(logits_BT[row, list(found.ends)].tolist()),
                tuple(targets.of(solution)),
                first,
                None not in labelled,
                solution.kind,
            )
        )
    return step_card(judged)


def summary(card: StepCard) -> str:
    """The card in one line."""
    shown = {
        "accuracy": card.accuracy,
        "balanced": card.balanced,
        "area under the curve": card.auc,
        "first error located": card.first_error.located,
        "clean solutions passed": card.first_error.clean,
    }
    parts = [
        f"{name} {e.value:.3f} [{e.interval.low:.3f}, {e.interval.high:.3f}]"
        for name, e in shown.items()
        if e.value is not None and e.interval is not None
    ]
    return f"steps held out: {'; '.join(parts)}; always the commoner label {card.commoner:.3f}"


def figures(card: StepCard) -> dict[str, float]:
    """Closing figures of the stage."""
    estimates = {
        "accuracy": card.accuracy,
        "balanced_accuracy": card.balanced,
        "auc": card.auc,
        "first_error": card.first_error.located,
        "clean": card.first_error.clean,
        "first_error_f1": card.first_error.f1,
    }
    told = {"held_out_steps": float(card.accuracy.items)}
    for name, e in estimates.items():
        told[name] = float("nan") if e.value is None else e.value
        told[f"{name}_low"] = float("nan") if e.interval is None else e.interval.low
        told[f"{name}_high"] = float("nan") if e.interval is None else e.interval.high
    return told


def derive(spec: ProcessRewardSpec) -> Mapping[str, Number]:
    return {"epochs": spec.epochs, "solutions per update": spec.batch_size}


STAGE = Stage("process_reward", ProcessRewardSpec, run, derive)
