"""The first batch of a reward model."""

import torch

from assent.doctor.layout import padding_changes_nothing, spread
from assent.doctor.report import Check, Finding
from assent.doctor.scores import distinct, score_reads_the_end
from assent.models.folders import ScalarFolder
from assent.models.forward import ScalarModel
from assent.pipeline.stage import StageContext
from assent.protocols import BatchSource, OfflineAlgorithm
from assent.stages.first_batch.pieces import RELOADED, ROWS, UNITS, audited, dtype_of, one_gradient, room_of
from assent.stages.first_batch.running import FirstBatch, Saved, SkipChecks, first_of, run_checks
from assent.train.learner import LocalLearner


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
    model, end = folder.scalar.model, folder.stop_ids[-1]
    dtype = dtype_of(model)

    def layout() -> Finding:
        rows = spread(batch.sequences, ROWS)
        reads = {"scores": learner.forward.scores}
        if isinstance(folder.scalar, ScalarModel):
            reads["values"] = folder.scalar.token_values
        return padding_changes_nothing(reads, rows, end_id=end, room=room_of(model, rows), dtype=dtype)

    def scores() -> Finding:
        rows = spread(distinct(batch.sequences), UNITS)
        return score_reads_the_end(
            learner.forward.scores, rows, name="the model", end_id=end, room=room_of(model, rows), dtype=dtype
        )

    def tokens() -> Finding:
        last_BT = torch.arange(batch.sequences.mask_BT.shape[1]) == batch.sequences.response_lengths_B[:, None] - 1
        return audited(context, folder, batch.sequences, ends_expected=True, scored_BT=last_BT)

    checks = [
        Check("D8", tokens),
        Check("D2", layout),
        Check("D6", scores),
        Check("D7", lambda: one_gradient(learner, batch, algorithm, model, end)),
    ]
    return run_checks(skip, context, learner, checks, Saved(None, folder, lambda: spread(batch.sequences, RELOADED)))
