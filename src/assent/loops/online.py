"""Prompt, rollout, score, experience, update, sync: PPO and its kin."""

from assent.protocols import Checkpoint, Guard, Learner, OnlineAlgorithm, Scoring, Source, Tracker


def online(
    source: Source,
    score: Scoring,
    algorithm: OnlineAlgorithm,
    learner: Learner,
    tracker: Tracker,
    checkpoint: Checkpoint,
    guard: Guard,
) -> None:
    """Improve the policy on its own rollouts, from wherever the last run was stopped, until the source or the KL budget
    is used up."""
    done = checkpoint.restore()
    source.sync(learner.weights(), version=done)
    for step, rollouts in source:
        scored = score(rollouts)
        if guard.spent(scored):
            tracker.log(step, scored.metrics)
            break
        now = algorithm.at(step)
        experience = now.experience(scored)
        stats = learner.update(experience, now)
        source.sync(learner.weights(), version=step + 1)
        tracker.log(step, {**scored.metrics, **experience.metrics, **stats})
        tracker.progress(step + 1, len(source))
        checkpoint.after_step(step + 1)
