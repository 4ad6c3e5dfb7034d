"""Metrics of reward models."""

from assent.track.catalogue.declare import Metric, Range, Section

REWARD_MODEL = Section(
    "Reward model",
    "",
    (
        Metric(
            "loss/pairs", "nats per pair", "mean over prompts of the mean loss over the prompt's ordered pairs",
            Range(high=0.75),
            "ln 2 = 0.693 is guessing. Above it, the model is sure and wrong: lower the learning rate and check which "
            "response is the preferred one in the data.",
            "loss",
        ),
        Metric(
            "pairs/accuracy", "share", "ordered pairs in which the preferred response scores higher; a tie counts half",
            Range(0.5, 0.95),
            "Below 0.5 the labels are inverted or the score is read at the wrong token. Above 0.95 on human data is "
            "memorised or leaked: annotators agree with each other in about 73 % (InstructGPT).",
            "acc",
        ),
        Metric(
            "pairs/margin", "score", "mean of the preferred score minus the other", Range(low=0.0),
            "It grows in training. Below 0 for long: as accuracy below 0.5.",
        ),
    ),
)  # fmt: skip
