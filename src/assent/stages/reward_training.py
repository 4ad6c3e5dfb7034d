"""What every stage that trains reward models on comparisons is made of: data, training, normalisation, report card."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import Tensor

from assent.algorithms.reward_model import RewardModel
from assent.algorithms.safety_reward_model import SafetyRewardModel
from assent.data import domain
from assent.data.batches import ComparisonExample
from assent.data.comparisons import ComparisonBatches
from assent.data.splits import hold_out, record_key
from assent.data.tokenise import Budget
from assent.data.votes import pool_votes
from assent.dist import processes
from assent.errors import DataError
from assent.evals.ceiling import NoiseCeiling
from assent.evals.judged import JudgedPair, ScoredResponse, judged_pairs
from assent.evals.report_card import ReportCard, report_card
from assent.feedback.reliability import soften_by_bradley_terry, soften_by_dawid_skene
from assent.functional.fingerprint import fingerprint
from assent.loops.offline import offline
from assent.models.folders import ScalarFolder, save_scalar, scalar_start
from assent.models.forward import ModelForward, in_blocks
from assent.models.layers import train_top
from assent.pipeline.stage import Number, StageContext, StageSpec
from assent.protocols import Stateful, Tracker
from assent.records import Comparison, Degree, PromptText
from assent.stages.first_batch import SkipChecks, check_comparisons
from assent.stages.parts import (
    HELD_OUT_SEED,
    Encoded,
    ModelRef,
    Optimization,
    build_learner,
    encoder,
    fitting,
    model_folder,
)
from assent.stages.placement import placement_of
from assent.stages.reward_algorithms import MARGINS, AnyRewardLoss, MarginTable, labels_of
from assent.stages.scorers import GoldRef
from assent.stages.sources import AnyComparisons, take
from assent.train.checkpoint import StateFile
from assent.types import Sequences

START = "start.json"
"""In a reward model's folder: what its weights were before training, and how its scores were normalised after."""


class ComparisonData(StageSpec):
    """Comparisons, and how they are split.

    Args:
        data: comparisons, from one or more sources.
        lengths: budget of a comparison in tokens, and what becomes of one that is over it.
        held_out: share of the prompts kept for the report card.
        gold: the embedded domain's hidden judgement, for the card alone.
        accuracy_above: what the lower end of the interval of the accuracy on held-out pairs must be above, else the run
            ends here and says how many more comparisons it takes: 0.5 holds it while the model may be guessing. None
            goes on whatever it is.
    """

    data: list[AnyComparisons] = Field(min_length=1)
    lengths: Budget = Budget()
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    gold: GoldRef | None = None
    accuracy_above: Annotated[float, Field(ge=0.5, lt=1)] | None = None


class RewardTraining(ComparisonData):
    """Settings of reward-model training.

    Args:
        model: what it starts from: a language model, whose trunk gets a new head (the SFT model in InstructGPT); an
            encoder such as BERT; or a reward model, which is trained on with its head.
        epochs: passes over the comparisons; 1 in InstructGPT, which over-fits beyond.
        batch_size: prompts per optimiser step; 64 in InstructGPT.
        margin: Llama 2's margins by degree: none, small or large.
        algorithm: the loss: `{name: k_wise}`, `soft`, `plackett_luce` or `safety`, with its settings.
        votes: how several annotators' answers on the same responses become one soft label, for `algorithm: {name:
            soft}`: `share` counts every vote alike; `dawid_skene` and `bradley_terry` estimate how far each annotator
            is to be believed (`feedback.reliability`). The card is on the votes themselves.
        train_layers: train the head and this many of the trunk's last layers, the others frozen; 0 trains the head
            alone; None trains everything, as the papers do.
        optimization: how weights are moved.
        skip_checks: first-batch checks not to run, by name; recorded in the artefact.
    """

    model: ModelRef
    epochs: int = Field(1, gt=0)
    batch_size: int = Field(64, gt=0)
    margin: MarginTable = "none"
    algorithm: AnyRewardLoss = RewardModel()
    votes: Literal["share", "dawid_skene", "bradley_terry"] = "share"
    train_layers: int | None = Field(None, ge=0)
    optimization: Optimization
    skip_checks: SkipChecks = ()

    @model_validator(mode="after")
    def _margin_is_read(self) -> "RewardTraining":
        if self.margin != "none" and not self.algorithm.uses_margin:
            raise ValueError(f"the loss {self.algorithm.name!r} has no margin: leave `margin` out")
        if self.votes != "share" and not self.algorithm.pools_votes:
            raise ValueError(
                f"the loss {self.algorithm.name!r} reads no soft labels: write `algorithm: {{name: soft}}`"
            )
        return self


def derive(spec: RewardTraining) -> Mapping[str, Number]:
    return {"epochs": spec.epochs, "prompts per update": spec.batch_size}


# ------------------------------------------------------------------------------------------------ start and data


@dataclass(frozen=True)
class Start:
    """What a reward model's weights were before training, as digests: what may be averaged has these in common."""

    trunk: str
    head: str

    @classmethod
    def of(cls, folder: ScalarFolder) -> "Start":
        head = folder.scalar.head
        own = {id(p) for p in head.parameters()}
        trunk = {n: p for n, p in folder.scalar.named_parameters() if id(p) not in own}
        return cls(fingerprint(trunk), fingerprint(dict(head.named_parameters())))


def started(spec: RewardTraining, context: StageContext, *, seed: int) -> ScalarFolder:
    """The model to train, with what is frozen frozen."""
    folder = scalar_start(model_folder(context, spec.model), seed=seed, placement=placement_of(context))
    if spec.train_layers is not None:
        count = train_top(folder.scalar, spec.train_layers)
        context.say(f"training {count:,} weights: the head and the last {spec.train_layers} layers")
    return folder


@dataclass(frozen=True)
class Split:
    """Comparisons within the budget.

    Args:
        encode: a comparison as the model's tokens.
        training: one for each annotator's answer.
        held: prompts that no training comparison has, for the card.
    """

    encode: Callable[[Comparison], Encoded]
    training: list[Comparison]
    held: list[Comparison]

    @classmethod
    def read(cls, spec: ComparisonData, context: StageContext, folder: ScalarFolder) -> "Split":
        encode = encoder(folder)
        found = [c for source in spec.data for c in take(source, context)]
        kept = fitting([encode(c) for c in found], spec.lengths, "comparisons", folder.scalar.model, context)
        return cls(encode, *hold_out([found[i] for i in kept], spec.held_out, HELD_OUT_SEED))

    @property
    def prompts(self) -> int:
        return len({record_key(c) for c in self.training})

    def block(self, comparisons: Sequence[Comparison]) -> Sequences:
        """Every response of every comparison."""
        encoded = [self.encode(c) for c in comparisons]
        return Sequences.of([p for p, texts in encoded for _ in texts], [r for _, texts in encoded for r in texts])

    @property
    def golden(self) -> Sequences:
        """What a saved model is held to."""
        return self.block(self.held[:10] if len(self.held) >= 3 else self.training[:10])


# ------------------------------------------------------------------------------------------------ training


def pooled(spec: RewardTraining, comparisons: Sequence[Comparison], say: Callable[[str], None]) -> list[Comparison]:
    """One comparison for each prompt and list of responses, with soft labels; whom they believe how far is said."""
    if spec.votes == "share":
        return pool_votes(comparisons)
    if spec.votes == "dawid_skene":
        soft, table = soften_by_dawid_skene(comparisons)
        believed = table.accuracy()
    else:
        soft, strengths = soften_by_bradley_terry(comparisons)
        believed = strengths.reliability()
    say("soft labels believe " + ", ".join(f"{name} {share:.2f}" for name, share in sorted(believed.items())))
    return soft


def unheard(text: str) -> None:
    """Told before."""


def batches_of(
    spec: RewardTraining, split: Split, *, seed: int, say: Callable[[str], None] = unheard
) -> ComparisonBatches:
    """The comparisons as the loss reads them, in the order of this seed."""
    training = pooled(spec, split.training, say) if spec.algorithm.pools_votes else split.training
    _require_what_is_read(spec, training)
    group = processes.current()
    return ComparisonBatches(
        [ComparisonExample(*split.encode(c), c.preferences, c.unsafe) for c in training],
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        seed=seed,
        labels=labels_of(spec.algorithm, spec.margin),
        shard=(group.rank, group.world),
    )


def _require_what_is_read(spec: RewardTraining, training: Sequence[Comparison]) -> None:
    """Raises DataError where a setting asks for something that no comparison has, and would change nothing."""
    strict = [p for c in training for p in c.preferences if not p.tie]
    if spec.margin != "none" and not any(MARGINS[spec.margin].get(p.degree) for p in strict):
        raise DataError(
            f"margin {spec.margin!r} would change nothing",
            got=f"{len(strict):,} ordered pairs, none with a degree above {Degree.NEGLIGIBLY.value!r}",
            why="the margin of a pair is given by how much better the annotator called one response",
            fix="name the column that holds the degree, or leave margin out",
        )
    if isinstance(spec.algorithm, SafetyRewardModel) and not any(c.unsafe for c in training):
        raise DataError(
            "no response is labelled safe or unsafe",
            got=f"{len(training):,} comparisons without such labels",
            why="comparisons leave the zero of the scores free, and this loss leaves it where the labels put it",
            fix="name the column of the labels, or train with algorithm: {name: k_wise}",
        )


def train(
    spec: RewardTraining,
    context: StageContext,
    folder: ScalarFolder,
    batches: ComparisonBatches,
    *,
    tracker: Tracker,
    optimization: Optimization,
    checked: bool,
    beside: Mapping[str, Stateful] | None = None,
    begins: bool = False,
) -> None:
    """Train the model on all batches, from wherever it was interrupted.

    Args:
        checked: run the checks of the first batch.
        beside: further parts whose state is saved with the run.
        begins: replace the state on the disk, which is another model's, before the first step.
    """
    learner = build_learner(
        context,
        optimization,
        ModelForward(scalar=folder.scalar),
        {"reward_model": folder.scalar},
        total_steps=len(batches),
    )
    parts: dict[str, Stateful] = {"learner": learner, "batches": batches, "tracker": context.tracker, **(beside or {})}
    algorithm: Any = spec.algorithm
    checkpoint = StateFile(context.state, parts, every_seconds=optimization.checkpoint_seconds)
    first_batch = check_comparisons(spec.skip_checks, context, folder, batches, learner, algorithm) if checked else None
    if begins:
        checkpoint.save(0)
    offline(batches, algorithm, learner, tracker, checkpoint)
    if first_batch is not None:
        first_batch.finish()


def normalised(folder: ScalarFolder, split: Split, *, keeps_zero: bool) -> tuple[float, float]:
    """Mean 0 and deviation 1 over the responses that were judged in training: the reference policy's own samples.

    Args:
        keeps_zero: the loss gave 0 a meaning, so the scores stay as they are.

    Returns:
        What was subtracted and what was divided by.
    """
    if keeps_zero:
        return 0.0, 1.0
    scores = scores_of(folder)(split.block(split.training)).double()
    mean, deviation = scores.mean().item(), scores.std(correction=0).item()
    folder.scalar.normalise(mean, deviation)
    return mean, deviation


def save_trained(
    path: Path,
    folder: ScalarFolder,
    split: Split,
    start: Start,
    normaliser: tuple[float, float],
    *,
    keeps_zero: bool,
) -> None:
    """The folder, with what averaging needs to know of it."""
    save_scalar(path, folder, golden=split.golden)
    mean, deviation = normaliser
    record = {**vars(start), "mean": mean, "std": deviation, "keeps_zero": keeps_zero}
    (path / START).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------ the card

Scores = Callable[[Sequences], Tensor]
"""A block of any size to one score each, `[B]`."""

Gold = Callable[[PromptText, str, bool], float | None]
"""Prompt, response and whether it ended, to the gold judgement where there is one."""


def scores_of(folder: ScalarFolder) -> Scores:
    def read(sequences: Sequences) -> tuple[Tensor]:
        return (folder.scalar.last_scores(sequences),)

    return lambda sequences: in_blocks(read, sequences)[0]


def telling(comparison: Comparison) -> Comparison:
    """Without the pairs of two identical responses: annotators may order them, but no model can."""
    texts = comparison.responses
    kept = tuple(p for p in comparison.preferences if texts[p.better] != texts[p.worse])
    return replace(comparison, preferences=kept)


def no_gold(prompt: PromptText, text: str, ended: bool) -> None:
    """People have no gold."""


def domain_gold(prompt: PromptText, text: str, ended: bool) -> float:
    """Of the embedded domain."""
    return domain.judge(prompt, text, ended=ended).gold


def write_card(path: Path, scores: Scores, split: Split, spec: ComparisonData, context: StageContext) -> ReportCard:
    """The card of these scores on the held-out comparisons, as JSON."""
    judged = [telling(c) for c in split.held]
    dropped = sum(len(c.preferences) - len(t.preferences) for c, t in zip(split.held, judged, strict=True))
    if dropped:
        context.say(f"report card: {dropped:,} held-out pairs of two identical responses left out")
    card = make_card(scores, judged, split, domain_gold if spec.gold else no_gold)
    path.write_text(json.dumps(card.to_json(), indent=1) + "\n", encoding="utf-8")
    if card.ceiling is not None:
        context.say(f"report card: {_held_against(card, card.ceiling)}")
    return card


def _held_against(card: ReportCard, ceiling: NoiseCeiling) -> str:
    accuracy = "unknown" if card.accuracy.value is None else f"{card.accuracy.value:.3f}"
    least = "" if ceiling.at_least is None else f"{ceiling.at_least:.3f} to "
    return f"accuracy {accuracy}; annotators' noise allows {least}{ceiling.accuracy:.3f} ({ceiling.source})"


def make_card(scores: Scores, comparisons: Sequence[Comparison], split: Split, gold: Gold = no_gold) -> ReportCard:
    """The report card over held-out comparisons; lengths in tokens of the reward model."""
    pairs: list[JudgedPair] = []
    numbers = iter(scores(split.block(comparisons)).tolist())
    for comparison in comparisons:
        _, texts = split.encode(comparison)
        ended = comparison.ended or (True,) * len(texts)
        scored = {
            text: ScoredResponse(text, next(numbers), len(ids), gold(comparison.prompt, text, done))
            for text, ids, done in zip(comparison.responses, texts, ended, strict=True)
        }
        pairs += judged_pairs(comparison, scored, prompt_id=record_key(comparison))
    return report_card(pairs)


def figures(card: ReportCard) -> dict[str, float]:
    """The closing figures that every reward model has."""
    accuracy, nothing = card.accuracy, float("nan")
    return {
        "accuracy": nothing if accuracy.value is None else accuracy.value,
        "accuracy_low": accuracy.interval.low if accuracy.interval else nothing,
        "accuracy_high": accuracy.interval.high if accuracy.interval else nothing,
        "held_out_pairs": float(accuracy.items),
    }
