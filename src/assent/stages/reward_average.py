"""Average the weights of reward models that were trained from one start (WARM, arXiv 2401.12187)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from assent.errors import ContractError
from assent.evals.intervals import Estimate
from assent.models.folders import ScalarFolder, load_scalar
from assent.pipeline.stage import Number, Stage, StageContext
from assent.stages.enough import require_enough
from assent.stages.parts import MODEL, ModelRef, model_folder
from assent.stages.reward_ensemble import CARD, member_folders, member_scores
from assent.stages.reward_training import (
    START,
    ComparisonData,
    Split,
    Start,
    figures,
    make_card,
    normalised,
    save_trained,
    scores_of,
    telling,
    write_card,
)


class AverageSpec(ComparisonData):
    """Settings of averaging.

    Args:
        of: ensembles, whose members are taken one by one, and single reward models. Each must have been trained here
            from the same weights, its head included.
        data, lengths, held_out: as the members', which are judged beside their average; the training side normalises.
    """

    of: list[ModelRef] = Field(min_length=1)


def run(spec: AverageSpec, context: StageContext) -> Mapping[str, float]:
    paths = [path for reference in spec.of for path in _folders(reference, context)]
    records = [_record(path) for path in paths]
    require_one_start(paths, records)
    averaged = average(paths, records)
    split = Split.read(spec, context, averaged)
    keeps_zero = all(r["keeps_zero"] for r in records)
    normaliser = normalised(averaged, split, keeps_zero=keeps_zero)
    card = write_card(context.out / CARD, scores_of(averaged), split, spec, context)
    start = Start(records[0]["trunk"], records[0]["head"])
    save_trained(context.out / MODEL, averaged, split, start, normaliser, keeps_zero=keeps_zero)
    held = [telling(c) for c in split.held]
    scores_MB = member_scores(paths, split.block(held))
    own = [_accuracy(scores_B, held, split) for scores_B in scores_MB]
    together = _accuracy(scores_MB.mean(0), held, split)
    mean = sum(a.value or 0.0 for a in own) / len(own)
    context.say(
        f"average of {len(paths)} models: held-out accuracy {card.accuracy.value:.3f}; of its members {mean:.3f} on "
        f"average, {together.value:.3f} for their mean score"
    )
    require_enough(spec, card.accuracy, split.prompts, context)
    return {
        **figures(card),
        "members": float(len(paths)),
        "member_accuracy": mean,
        "member_accuracy_worst": min(a.value or 0.0 for a in own),
        "member_accuracy_best": max(a.value or 0.0 for a in own),
        "mean_score_accuracy": together.value if together.value is not None else float("nan"),
    }


def _folders(reference: str, context: StageContext) -> list[Path]:
    """Every member of an ensemble, or the one model."""
    members = member_folders(context.folder(reference))
    return members or [Path(model_folder(context, reference))]


def _record(path: Path) -> dict[str, Any]:
    file = path / START
    if not file.is_file():
        raise ContractError(
            "it is not known what this reward model was trained from",
            got=f"{path}: no {START}",
            why="only weights that share their start lie in one valley, where a mean of weights is a good model",
            fix="average reward models that were trained by the stages reward_model and reward_ensemble",
        )
    record: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return record


def require_one_start(paths: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what cannot be averaged.

    Raises:
        ContractError: fewer than two models; trunks or heads that did not start from the same weights.
    """
    if len(paths) < 2:
        raise ContractError(
            "one model has no average",
            got=", ".join(map(str, paths)),
            why="it would be itself",
            fix="name an ensemble, or several reward models",
        )
    for part, cause in (("trunk", "they were trained from different models"), ("head", "their heads were drawn apart")):
        others = [(p, r[part]) for p, r in zip(paths, records, strict=True) if r[part] != records[0][part]]
        if others:
            path, digest = others[0]
            raise ContractError(
                f"these reward models cannot be averaged: {cause}",
                got=f"{part} of {path}: began as {digest[:12]}; of {paths[0]}: as {records[0][part][:12]}",
                why="weights that did not share their start lie in different valleys, and their mean in neither (WARM)",
                fix="train them with heads: shared, from one model; or use the mean of their scores instead",
            )


@torch.no_grad()
def average(paths: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> ScalarFolder:
    """The mean of the weights as they were trained, each model's normalisation taken back before."""
    total: dict[str, Tensor] = {}
    offsets = 0.0
    for path, record in zip(paths, records, strict=True):
        member = load_scalar(path)
        member.scalar.normalise(-record["mean"] / record["std"], 1 / record["std"])
        offsets += member.scalar.offset
        for name, p in member.scalar.named_parameters():
            total[name] = total.get(name, torch.zeros_like(p, dtype=torch.float64)) + p.double()
    for name, p in member.scalar.named_parameters():
        p.copy_(total[name] / len(paths))
    if offsets:
        member.scalar.normalise(member.scalar.offset - offsets / len(paths), 1.0)
    return member


def _accuracy(scores_B: Tensor, held: list[Any], split: Split) -> Estimate:
    return make_card(lambda sequences: scores_B, held, split).accuracy


def derive(spec: AverageSpec) -> Mapping[str, Number]:
    return {"models or ensembles": len(spec.of)}


STAGE = Stage("reward_average", AverageSpec, run, derive)
