"""Train a reward model on comparisons, normalise it, and say how far it can be trusted."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field

from assent.algorithms.reward_model import RewardModel
from assent.data import domain
from assent.data.batches import ComparisonBatches, ComparisonExample, no_margin
from assent.data.splits import hold_out, record_key
from assent.data.tokenise import Budget
from assent.dist import processes
from assent.evals.judged import JudgedPair, ScoredResponse, judged_pairs
from assent.evals.report_card import ReportCard, report_card
from assent.loops.offline import offline
from assent.models.folders import ScalarFolder, save_scalar, scalar_start
from assent.models.forward import ModelForward, in_blocks
from assent.models.layers import train_top
from assent.pipeline.recipe import Number, Stage, StageSpec
from assent.pipeline.run import StageContext
from assent.protocols import Stateful
from assent.records import Comparison, Degree, PromptText
from assent.stages.first_batch import SkipChecks, check_comparisons
from assent.stages.parts import (
    HELD_OUT_SEED,
    MODEL,
    Encoded,
    ModelRef,
    Optimization,
    build_learner,
    encoder,
    fitting,
    model_folder,
)
from assent.stages.scorers import GoldRef
from assent.stages.sources import AnyComparisons, take
from assent.train.checkpoint import StateFile
from assent.types import Sequences

MARGINS: Mapping[str, Mapping[Degree, float]] = {
    "none": {},
    "small": {Degree.SIGNIFICANTLY: 1.0, Degree.BETTER: 2 / 3, Degree.SLIGHTLY: 1 / 3},
    "large": {Degree.SIGNIFICANTLY: 3.0, Degree.BETTER: 2.0, Degree.SLIGHTLY: 1.0},
}
"""Llama 2, table 27: least score gap by degree of preference; what is not listed has margin 0."""


class RewardModelSpec(StageSpec):
    """Settings of reward-model training.

    Args:
        model: the language model whose trunk it starts from; the SFT model in InstructGPT.
        data: comparisons, from one or more sources.
        epochs: passes over the comparisons; 1 in InstructGPT, which over-fits beyond.
        batch_size: prompts per optimiser step; 64 in InstructGPT.
        lengths: budget of a comparison in tokens, and what becomes of one that is over it.
        margin: Llama 2's margins by degree: none, small or large.
        held_out: share of the prompts kept for the report card.
        gold: the embedded domain's hidden judgement, for the card alone.
        algorithm: the loss.
        train_layers: train the head and this many of the trunk's last layers, the others frozen; 0 trains the head
            alone; None trains everything, as the papers do.
        optimization: how weights are moved.
        skip_checks: first-batch checks not to run, by name; recorded in the artefact.
    """

    model: ModelRef
    data: list[AnyComparisons] = Field(min_length=1)
    epochs: int = Field(1, gt=0)
    batch_size: int = Field(64, gt=0)
    lengths: Budget = Budget()
    margin: Literal["none", "small", "large"] = "none"
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    gold: GoldRef | None = None
    algorithm: RewardModel = RewardModel()
    train_layers: int | None = Field(None, ge=0)
    optimization: Optimization
    skip_checks: SkipChecks = ()


def run(spec: RewardModelSpec, context: StageContext) -> Mapping[str, float]:
    folder = scalar_start(model_folder(context, spec.model), seed=context.seed)
    if spec.train_layers is not None:
        count = train_top(folder.scalar, spec.train_layers)
        context.say(f"training {count:,} weights: the head and the last {spec.train_layers} layers")
    encode = encoder(folder)
    read = [c for source in spec.data for c in take(source, context)]
    kept = fitting([encode(c) for c in read], spec.lengths, "comparisons", folder.scalar.model, context)
    training, held = hold_out([read[i] for i in kept], spec.held_out, HELD_OUT_SEED)
    margins = MARGINS[spec.margin]
    group = processes.current()
    batches = ComparisonBatches(
        [ComparisonExample(*encode(c), c.preferences) for c in training],
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        seed=context.seed,
        margin=(lambda d: margins.get(d, 0.0)) if margins else no_margin,
        shard=(group.rank, group.world),
    )
    context.say(batches.report)
    forward = ModelForward(scalar=folder.scalar)
    learner = build_learner(
        context, spec.optimization, forward, {"reward_model": folder.scalar}, total_steps=len(batches)
    )
    parts: dict[str, Stateful] = {"learner": learner, "batches": batches, "tracker": context.tracker}
    first_batch = check_comparisons(spec.skip_checks, context, folder, batches, learner, spec.algorithm)
    checkpoint = StateFile(context.state, parts, every_seconds=spec.optimization.checkpoint_seconds)
    offline(batches, spec.algorithm, learner, context.tracker, checkpoint)
    first_batch.finish()
    mean, deviation = _normalise(folder, training, encode)
    judged = [telling(c) for c in held]
    dropped = sum(len(c.preferences) - len(t.preferences) for c, t in zip(held, judged, strict=True))
    if dropped:
        context.say(f"report card: {dropped:,} held-out pairs of two identical responses left out")
    card = make_card(folder, judged, encode, domain_gold if spec.gold else no_gold)
    (context.out / "card.json").write_text(json.dumps(card.to_json(), indent=1) + "\n", encoding="utf-8")
    golden = _block(held[:10], encode) if len(held) >= 3 else _block(training[:10], encode)
    save_scalar(context.out / MODEL, folder, golden=golden)
    for warning in card.warnings:
        context.say(f"reward model: {warning}")
    accuracy = card.accuracy
    return {
        "accuracy": accuracy.value if accuracy.value is not None else float("nan"),
        "accuracy_low": accuracy.interval.low if accuracy.interval else float("nan"),
        "accuracy_high": accuracy.interval.high if accuracy.interval else float("nan"),
        "held_out_pairs": float(accuracy.items),
        "training_prompts": float(len({record_key(c) for c in training})),
        "score_mean_before": mean,
        "score_std_before": deviation,
    }


def _block(comparisons: Sequence[Comparison], encode: Callable[[Comparison], Encoded]) -> Sequences:
    prompts: list[Sequence[int]] = []
    responses: list[Sequence[int]] = []
    for comparison in comparisons:
        prompt, texts = encode(comparison)
        prompts += [prompt] * len(texts)
        responses += texts
    return Sequences.of(prompts, responses)


def _scores(folder: ScalarFolder, sequences: Sequences) -> torch.Tensor:
    return in_blocks(lambda s: (folder.scalar.last_scores(s),), sequences)[0]


def _normalise(
    folder: ScalarFolder, comparisons: Sequence[Comparison], encode: Callable[[Comparison], Encoded]
) -> tuple[float, float]:
    """Mean 0 and deviation 1 over the responses that were judged in training: the reference policy's own samples."""
    scores = _scores(folder, _block(comparisons, encode)).double()
    mean, deviation = scores.mean().item(), scores.std(correction=0).item()
    folder.scalar.normalise(mean, deviation)
    return mean, deviation


def telling(comparison: Comparison) -> Comparison:
    """Without the pairs of two identical responses: annotators may order them, but no model can."""
    texts = comparison.responses
    kept = tuple(p for p in comparison.preferences if texts[p.better] != texts[p.worse])
    return replace(comparison, preferences=kept)


Gold = Callable[[PromptText, str, bool], float | None]
"""Prompt, response and whether it ended, to the gold judgement where there is one."""


def no_gold(prompt: PromptText, text: str, ended: bool) -> None:
    """People have no gold."""


def domain_gold(prompt: PromptText, text: str, ended: bool) -> float:
    """Of the embedded domain."""
    return domain.judge(prompt, text, ended=ended).gold


def make_card(
    folder: ScalarFolder,
    comparisons: Sequence[Comparison],
    encode: Callable[[Comparison], Encoded],
    gold: Gold = no_gold,
) -> ReportCard:
    """The report card over held-out comparisons; lengths in tokens of the reward model."""
    pairs: list[JudgedPair] = []
    scores = iter(_scores(folder, _block(comparisons, encode)).tolist())
    for comparison in comparisons:
        _, texts = encode(comparison)
        ended = comparison.ended or (True,) * len(texts)
        scored = {
            text: ScoredResponse(text, next(scores), len(ids), gold(comparison.prompt, text, done))
            for text, ids, done in zip(comparison.responses, texts, ended, strict=True)
        }
        pairs += judged_pairs(comparison, scored, prompt_id=record_key(comparison))
    return report_card(pairs)


def derive(spec: RewardModelSpec) -> Mapping[str, Number]:
    return {"epochs": spec.epochs, "prompts per update": spec.batch_size}


STAGE = Stage("reward_model", RewardModelSpec, run, derive)
