"""Metrics of process reward models."""

from assent.track.catalogue.declare import Metric, Range, Section

PROCESS_REWARD = Section(
    "Process reward model",
    "",
    (
        Metric(
            "loss/steps", "nats per step", "mean cross-entropy of the labelled steps", Range(high=0.75),
            "ln 2 = 0.693 is guessing. Above it, look at the token audit of the first batch: the labels may stand on "
            "other tokens than the ends of their steps.",
            "loss",
        ),
        Metric(
            "steps/accuracy", "share",
            "labelled steps whose logit has the right sign; a soft label above one half counts as right",
            Range(0.5, 1.0),
            "Most steps of a good policy are right: hold it against the share of right labels, not against one half.",
            "steps right",
        ),
        Metric(
            "steps/probability", "probability", "mean probability that the model gives labelled steps of being right",
            None, "It should near the mean label, which the stage says at its start.",
        ),
    ),
)  # fmt: skip
