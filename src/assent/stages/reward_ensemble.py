"""Train several reward models on the same comparisons in one stage, for scorers that ask how far they agree."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from assent.evals.report_card import ReportCard
from assent.models.folders import load_scalar
from assent.models.placement import CPU, Placement
from assent.pipeline.stage import Number, Stage, StageContext
from assent.protocols import State, Tracker
from assent.stages.enough import require_enough
from assent.stages.parts import Optimization
from assent.stages.placement import placement_of
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
from assent.train.optimizers import AdamW, Muon
from assent.types import Mean, Sequences

MEMBERS, CARD = "members", "card.json"
"""Folder of the members in the artefact (`members/0`, `members/1`, ..., each a scalar folder), and a card's file."""

STEP = 1_000_003
"""Between the seeds of two members; a prime, so that members of stages with neighbouring seeds do not meet."""


class EnsembleSpec(RewardTraining):
    """Settings of an ensemble; all others as one reward model's.

    Args:
        members: how many; 5 in Coste et al. (2310.02743). Each sees the comparisons in an order of its own.
        heads: `independent` draws a head for each, as in Coste et al.; `shared` starts all from one, which averaging
            their weights needs (WARM, 2401.12187). A reward model as `model` brings the shared head: train it with
            `train_layers: 0`, which is WARM's linear probe.
        lr_factors: of the learning rate, taken in turn; WARM uses (1, 4, 10) times 1e-5. Its other source of
            diversity, dropout, is off here, as everywhere.
    """

    members: int = Field(5, ge=2)
    heads: Literal["independent", "shared"] = "independent"
    lr_factors: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0,), min_length=1)

    @model_validator(mode="after")
    def _every_factor_is_used(self) -> "EnsembleSpec":
        if len(self.lr_factors) > self.members:
            raise ValueError(f"{len(self.lr_factors)} lr_factors for {self.members} members: some are unused")
        return self


@dataclass
class _Current:
    """Which member is being trained; saved with its state."""

    number: int

    def state_dict(self) -> State:
        return {"number": self.number}

    def load_state_dict(self, state: State) -> None:
        self.number = int(state["number"])


@dataclass(frozen=True)
class _Later:
    """The stage's tracker as one member sees it: its steps come after those of the members before."""

    tracker: Tracker
    before: int
    total: int

    def log(self, step: int, metrics: Mapping[str, Mean | float]) -> None:
        self.tracker.log(self.before + step, metrics)

    def progress(self, done: int, total: int) -> None:
        self.tracker.progress(self.before + done, self.total)

    def state_dict(self) -> State:
        return self.tracker.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.tracker.load_state_dict(state)


def run(spec: EnsembleSpec, context: StageContext) -> Mapping[str, float]:
    reached = _reached(context.state)
    for number in range(reached, spec.members):
        _member(spec, context, number, begins=number > reached)
    return _together(spec, context)


def _reached(state: Path) -> int:
    """The member that an interrupted run was at; the first of a fresh one."""
    path = state / "state.pt"
    return (
        int(torch.load(path, weights_only=True, map_location="cpu")["parts"]["member"]["number"])
        if path.exists()
        else 0
    )


def _member(spec: EnsembleSpec, context: StageContext, number: int, *, begins: bool) -> None:
    """Train, judge and save one member.

    Args:
        begins: the state on the disk is that of the member before, and is replaced before the first step.
    """
    seed = context.seed + STEP * number
    context.say(f"member {number + 1} of {spec.members}")
    start_seed = context.seed if spec.heads == "shared" else seed
    folder = started(spec, context, seed=start_seed)
    start, split = Start.of(folder), Split.read(spec, context, folder)
    batches = batches_of(spec, split, seed=seed)
    if number == 0:
        context.say(batches.report)
    train(
        spec,
        context,
        folder,
        batches,
        tracker=_Later(context.tracker, number * len(batches), spec.members * len(batches)),
        optimization=scaled(spec.optimization, spec.lr_factors[number % len(spec.lr_factors)]),
        checked=number == 0,
        beside={"member": _Current(number)},
        begins=begins,
    )
    normaliser = normalised(folder, split, keeps_zero=spec.algorithm.keeps_zero)
    path = context.out / MEMBERS / str(number)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    save_trained(path, folder, split, start, normaliser, keeps_zero=spec.algorithm.keeps_zero)
    write_card(path / CARD, scores_of(folder), split, spec, context)


def scaled(optimization: Optimization, factor: float) -> Optimization:
    """The same with every learning rate times the factor."""
    optimizer: AdamW | Muon = optimization.optimizer
    if isinstance(optimizer, Muon):
        optimizer = replace(optimizer, rest=replace(optimizer.rest, lr=optimizer.rest.lr * factor))
    optimizer = replace(optimizer, lr=optimizer.lr * factor)
    return optimization.model_copy(update={"optimizer": optimizer})


# ------------------------------------------------------------------------------------------------ the whole


def member_folders(artefact: Path) -> list[Path]:
    """The members of an ensemble's artefact, in order; none where it is no ensemble."""
    return sorted((p for p in (artefact / MEMBERS).glob("*") if p.name.isdigit()), key=lambda p: int(p.name))


def member_scores(folders: Sequence[Path], sequences: Sequences, placement: Placement = CPU) -> Tensor:
    """`[M, B]`; one member is in memory at a time."""
    return torch.stack([scores_of(load_scalar(folder, placement=placement))(sequences) for folder in folders])


def _together(spec: EnsembleSpec, context: StageContext) -> Mapping[str, float]:
    """The card of the mean score, and how the members compare."""
    folders = member_folders(context.out)
    split = Split.read(spec, context, load_scalar(folders[0]))
    spread: list[Tensor] = []

    def mean(sequences: Sequences) -> Tensor:
        scores_MB = member_scores(folders, sequences, placement_of(context))
        spread.append(scores_MB.std(0))
        return scores_MB.mean(0)

    card = write_card(context.out / CARD, mean, split, spec, context)
    for warning in card.warnings:
        context.say(f"ensemble: {warning}")
    require_enough(spec, card.accuracy, split.prompts, context)
    own = [a for a in _accuracies(folders) if a is not None]
    nothing = float("nan")
    return {
        **figures(card),
        "members": float(len(folders)),
        "member_accuracy": sum(own) / len(own) if own else nothing,
        "member_accuracy_worst": min(own, default=nothing),
        "member_accuracy_best": max(own, default=nothing),
        "member_deviation": torch.cat(spread).mean().item(),
        "training_prompts": float(split.prompts),
    }


def _accuracies(folders: Sequence[Path]) -> Iterator[float | None]:
    for folder in folders:
        yield ReportCard.from_json(json.loads((folder / CARD).read_text("utf-8"))).accuracy.value


def _derive(spec: EnsembleSpec) -> Mapping[str, Number]:
    return {**derive(spec), "members": spec.members}


STAGE = Stage("reward_ensemble", EnsembleSpec, run, _derive)
