"""Batches of data to a loss: pretraining, SFT, reward models, direct alignment."""

from assent.protocols import BatchSource, Checkpoint, Learner, OfflineAlgorithm, Tracker


def offline(
    source: BatchSource,
    algorithm: OfflineAlgorithm,
    learner: Learner,
    tracker: Tracker,
    checkpoint: Checkpoint,
) -> None:
    """Train on every batch of the source, from wherever the last run was stopped."""
    checkpoint.restore()
    for step, batch in source:
        tracker.log(step, learner.step(batch, algorithm))
        tracker.progress(step + 1, len(source))
        checkpoint.after_step(step + 1)
