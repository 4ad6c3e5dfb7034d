"""The first batch of direct alignment."""

from functools import partial

from assent.algorithms.sft import SFT
from assent.doctor.layout import padding_changes_nothing, spread
from assent.doctor.policy import pairs_start_at_reference
from assent.doctor.report import Check
from assent.models.folders import CausalModel
from assent.models.tokenizer import stop_ids
from assent.pipeline.stage import StageContext
from assent.protocols import BatchSource, OfflineAlgorithm, WholeStep
from assent.stages.first_batch.pieces import RELOADED, ROWS, audited, dtype_of, gradients, one_gradient, room_of
from assent.stages.first_batch.running import FirstBatch, Saved, SkipChecks, first_of, run_checks
from assent.train.learner import LocalLearner
from assent.types import ReferencedPairBatch, UnpairedBatch


def check_pairs(
    skip: SkipChecks,
    context: StageContext,
    causal: CausalModel,
    batches: BatchSource,
    learner: LocalLearner,
    algorithm: OfflineAlgorithm,
    *,
    same_start: bool,
    ends_masked: bool = False,
) -> FirstBatch:
    """D8, D5 where there is a reference (`same_start`: the policy's own), D2, D7, and D11 beside: direct alignment.

    Args:
        ends_masked: the recipe leaves formatting tokens out of the log-probabilities.

    Raises:
        CheckFailed: a check refuses.
    """
    batch = first_of(batches)
    rows, model, end, dtype = batch.sequences, causal.model, stop_ids(causal.tokenizer)[-1], dtype_of(causal.model)
    some, reads = spread(rows, ROWS), {"log-probabilities": learner.forward.logprobs}
    # A loss that must know the whole step cannot be listened to alone; any other reads the same log-probabilities.
    reader: OfflineAlgorithm = SFT() if isinstance(algorithm, WholeStep) else algorithm
    begun = partial(pairs_start_at_reference, gradients(learner), batch, reader, same_start=same_start, dtype=dtype)
    referenced = isinstance(batch, ReferencedPairBatch | UnpairedBatch)
    checks = [
        Check("D8", lambda: audited(context, causal, rows, ends_expected=True, ends_masked=ends_masked)),
        *([Check("D5", begun)] if referenced else []),
        Check("D2", lambda: padding_changes_nothing(reads, some, end_id=end, room=room_of(model, some), dtype=dtype)),
        Check("D7", lambda: one_gradient(learner, batch, algorithm, model, end)),
    ]
    return run_checks(skip, context, learner, checks, Saved(causal, None, lambda: spread(rows, RELOADED)))
