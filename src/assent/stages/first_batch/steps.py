"""The first batch of a process reward model."""

import torch
from torch import Tensor

from assent.doctor.layout import padding_changes_nothing, spread
from assent.doctor.report import Check, Finding
from assent.doctor.scores import distinct, score_reads_the_end
from assent.models.folders import CausalModel, ScalarFolder
from assent.models.tokenizer import stop_ids
from assent.pipeline.stage import StageContext
from assent.protocols import BatchSource, OfflineAlgorithm
from assent.stages.first_batch.pieces import RELOADED, ROWS, UNITS, audited, dtype_of, one_gradient, room_of
from assent.stages.first_batch.running import FirstBatch, Saved, SkipChecks, first_of, run_checks
from assent.train.learner import LocalLearner
from assent.types import Sequences


def check_steps(
    skip: SkipChecks,
    context: StageContext,
    folder: ScalarFolder,
    batches: BatchSource,
    learner: LocalLearner,
    algorithm: OfflineAlgorithm,
    *,
    ends_expected: bool,
) -> FirstBatch:
    """D8, whose audit shows which tokens are labelled, D2, D6, D7, and D11 beside the training: process reward models.

    Args:
        ends_expected: some solutions came to their end.

    Raises:
        CheckFailed: a check refuses.
    """
    batch = first_of(batches)
    model, end = folder.scalar.model, stop_ids(folder.tokenizer)[-1]
    causal, dtype = CausalModel(model, folder.tokenizer), dtype_of(model)

    def every_token(sequences: Sequences) -> Tensor:
        return learner.forward.step_scores(sequences, sequences.mask_BT)

    def last_token(sequences: Sequences) -> Tensor:
        last_BT = torch.arange(sequences.mask_BT.shape[1]) == sequences.response_lengths_B[:, None] - 1
        return learner.forward.step_scores(sequences, last_BT).sum(1)

    def layout() -> Finding:
        rows = spread(batch.sequences, ROWS)
        reads = {"step scores": every_token}
        return padding_changes_nothing(reads, rows, end_id=end, room=room_of(model, rows), dtype=dtype)

    def scores() -> Finding:
        rows = spread(distinct(batch.sequences), UNITS)
        return score_reads_the_end(
            last_token, rows, name="the model", end_id=end, room=room_of(model, rows), dtype=dtype
        )

    def tokens() -> Finding:
        return audited(context, causal, batch.sequences, ends_expected=ends_expected, scored_BT=batch.labelled_BT)

    checks = [
        Check("D8", tokens),
        Check("D2", layout),
        Check("D6", scores),
        Check("D7", lambda: one_gradient(learner, batch, algorithm, model, end)),
    ]
    return run_checks(skip, context, learner, checks, Saved(None, folder, lambda: spread(batch.sequences, RELOADED)))
