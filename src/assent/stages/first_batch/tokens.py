"""The first batch of pretraining and supervised fine-tuning."""

from assent.doctor.layout import spread
from assent.doctor.report import Check
from assent.models.folders import CausalModel
from assent.models.tokenizer import stop_ids
from assent.pipeline.stage import StageContext
from assent.protocols import BatchSource, OfflineAlgorithm
from assent.stages.first_batch.pieces import RELOADED, audited, one_gradient
from assent.stages.first_batch.running import FirstBatch, Saved, SkipChecks, first_of, run_checks
from assent.train.learner import LocalLearner


def check_tokens(
    skip: SkipChecks,
    context: StageContext,
    causal: CausalModel,
    batches: BatchSource,
    learner: LocalLearner,
    algorithm: OfflineAlgorithm,
    *,
    ends_expected: bool,
) -> FirstBatch:
    """D8, D7, and D11 beside the training: pretraining and supervised fine-tuning.

    Args:
        ends_expected: every response is whole and closes with an end token (demonstrations, not packed text).

    Raises:
        CheckFailed: a check refuses.
    """
    batch = first_of(batches)
    end = stop_ids(causal.tokenizer)[-1]
    checks = [
        Check("D8", lambda: audited(context, causal, batch.sequences, ends_expected=ends_expected)),
        Check("D7", lambda: one_gradient(learner, batch, algorithm, causal.model, end)),
    ]
    return run_checks(skip, context, learner, checks, Saved(causal, None, lambda: spread(batch.sequences, RELOADED)))
