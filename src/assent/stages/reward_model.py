"""Train a reward model on comparisons, normalise it, and say how far it can be trusted."""

from collections.abc import Mapping

from assent.pipeline.stage import Stage, StageContext
from assent.stages.enough import require_enough
from assent.stages.parts import MODEL
from assent.stages.reward_training import (
    RewardTraining,
    Split,
    Start,
    batches_of,
    derive,
    figures,
    normalised,
    save_trained,
    scores_of,
    started,
    train,
    write_card,
)


class RewardModelSpec(RewardTraining):
    """Settings of a reward model; see `RewardTraining`."""


def run(spec: RewardModelSpec, context: StageContext) -> Mapping[str, float]:
    folder = started(spec, context, seed=context.seed)
    start, split = Start.of(folder), Split.read(spec, context, folder)
    batches = batches_of(spec, split, seed=context.seed, say=context.say)
    context.say(batches.report)
    train(spec, context, folder, batches, tracker=context.tracker, optimization=spec.optimization, checked=True)
    mean, deviation = normalised(folder, split, keeps_zero=spec.algorithm.keeps_zero)
    card = write_card(context.out / "card.json", scores_of(folder), split, spec, context)
    save_trained(context.out / MODEL, folder, split, start, (mean, deviation), keeps_zero=spec.algorithm.keeps_zero)
    for warning in card.warnings:
        context.say(f"reward model: {warning}")
    require_enough(spec, card.accuracy, split.prompts, context)
    return {
        **figures(card),
        "training_prompts": float(split.prompts),
        "score_mean_before": mean,
        "score_std_before": deviation,
    }


STAGE = Stage("reward_model", RewardModelSpec, run, derive)
