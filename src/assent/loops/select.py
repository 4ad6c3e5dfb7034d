"""Prompt, rollout, score, keep: best-of-n, rejection sampling, samples for comparison and for evaluation."""

from collections.abc import Sequence

from assent.protocols import Checkpoint, Keep, Scorer, Source, Tracker


def select(source: Source, scorers: Sequence[Scorer], keep: Keep, tracker: Tracker, checkpoint: Checkpoint) -> None:
    """Sample, score and hand on, from wherever the last run was stopped; what is kept is for `keep` to say."""
    checkpoint.restore()
    for step, rollouts in source:
        keep(rollouts, [scorer.score(rollouts) for scorer in scorers])
        tracker.progress(step + 1, len(source))
        checkpoint.after_step(step + 1)
