"""What the checks of several stages are made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from assent.doctor.layout import EXTRA_COLUMNS, gradient_is_one
from assent.doctor.report import Finding
from assent.doctor.tokens import Audit, Boundaries, Vocabulary, audit, tokens_in_place
from assent.models.folders import CausalModel, ScalarFolder
from assent.models.placement import products_of
from assent.models.tokenizer import boundary_report, stop_ids
from assent.pipeline.stage import StageContext
from assent.protocols import OfflineAlgorithm
from assent.rewards.model import RewardModelScorer, same_tokens
from assent.train.learner import LocalLearner
from assent.types import Batch, Sequences

AUDIT = "token_audit.txt"

ROLLOUTS, UNITS, ROWS, RELOADED, CANARY_PROMPTS = 32, 16, 8, 4, 2
"""How much of the first batch is looked at: rollouts scored, units whose gradient is taken, sequences read alone,
sequences read by the new process, prompts answered by the engine. Enough that each defect we plant is found."""


def gradients(learner: LocalLearner) -> Callable[[Batch, OfflineAlgorithm, int | None], Mapping[str, Tensor]]:
    return lambda batch, algorithm, budget: learner.gradients(batch, algorithm, token_budget=budget)


def one_gradient(learner: LocalLearner, batch: Any, algorithm: Any, model: nn.Module, end: int) -> Finding:
    order = batch.costs.argsort(stable=True)
    places = torch.linspace(0, len(order) - 1, min(UNITS, len(order))).round().long().unique()
    some = batch.select(order[places])
    return gradient_is_one(
        gradients(learner), some, algorithm, end_id=end, room=room_of(model, some.sequences), dtype=dtype_of(model)
    )


def audited(
    context: StageContext,
    folder: CausalModel | ScalarFolder,
    sequences: Sequences,
    *,
    ends_expected: bool,
    ends_masked: bool = False,
    scored_BT: Tensor | None = None,
) -> Finding:
    """Write the table, say its gist, refuse what cannot be right."""
    tokenizer = folder.tokenizer
    ends = folder.stop_ids if isinstance(folder, ScalarFolder) else stop_ids(tokenizer)
    begin = tokenizer.bos_token_id
    vocabulary = Vocabulary(
        lambda i: str(tokenizer.decode([i])),
        lambda ids: str(tokenizer.decode(list(ids))),
        begin if begin not in ends else None,
        ends,
    )
    boundaries = _boundaries(folder, sequences)
    found: Audit = audit(sequences, vocabulary, title=context.name, boundaries=boundaries, scored_BT=scored_BT)
    (context.out / AUDIT).write_text(found.text, encoding="utf-8")
    return tokens_in_place(found, ends_expected=ends_expected, ends_masked=ends_masked)


def _boundaries(folder: CausalModel | ScalarFolder, sequences: Sequences) -> Boundaries | None:
    """None where every prompt is the one context token of packed text, and for encoders, which read two texts."""
    if int(sequences.prompt_lengths_B.max()) == 1 or (isinstance(folder, ScalarFolder) and folder.bidirectional):
        return None
    some = sequences.select(torch.arange(min(ROLLOUTS, len(sequences))))
    rows = [
        (str(folder.tokenizer.decode(ids[:start])), str(folder.tokenizer.decode(ids[start:end])))
        for ids, start, end in zip(
            some.token_ids_BL.tolist(), some.prompt_lengths_B.tolist(), some.lengths_B.tolist(), strict=True
        )
    ]
    found = boundary_report(folder.tokenizer, rows)
    return Boundaries(found.differing, found.total)


def together(findings: Sequence[Finding]) -> Finding:
    """Of several, the one nearest to its tolerance, with all details."""
    worst = max(findings, key=lambda f: f.figure / f.tolerance if f.tolerance else f.figure)
    return Finding(worst.figure, worst.tolerance, "; ".join(f.detail for f in findings))


def end_of(judge: RewardModelScorer, sequences: Sequences, policy_end: int) -> int:
    """The end token of a reward model's own tokenizer is what most of its responses close with."""
    if judge.encode is same_tokens:
        return policy_end
    last = sequences.token_ids_BL[torch.arange(len(sequences)), sequences.lengths_B - 1]
    return int(last.mode().values)


def dtype_of(model: nn.Module) -> torch.dtype:
    """What its products run in, which sets how far two ways of computing one number may differ."""
    return products_of(model)


def room_of(model: Any, sequences: Sequences) -> int:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return EXTRA_COLUMNS if limit is None else int(limit) - sequences.token_ids_BL.shape[1]
