"""Metrics of every stage that trains, of pretraining and SFT, and of your own."""

from assent.track.catalogue.declare import Metric, Section

TRAINING = Section(
    "Every stage that trains",
    "",
    (
        Metric("lr", "per step", "learning rate of the first optimiser at this step", None, "It follows the schedule."),
        Metric(
            "grad_norm", "norm", "norm of the policy's gradient before clipping; in a reward model, of that model",
            None,
            "Far above the clipping norm at every step means that clipping sets the step size: lower the learning "
            "rate. A single spike is what clipping is for.",
        ),
        Metric(
            "grad_norm/<role>", "norm", "the same for another role, such as `grad_norm/critic`", None,
            "Read it as `grad_norm`; a critic's is large in the first steps.",
        ),
        Metric("tokens", "tokens", "tokens of the loss trained on since the stage began", None, "It only counts."),
        Metric("epoch", "passes", "passes over the data or prompts, so far", None, "It only counts."),
    ),
)  # fmt: skip

OFFLINE = Section(
    "Pretraining and SFT",
    "The loss is a progress signal here; a validation loss that rises while the loss falls is over-fitting.",
    (
        Metric(
            "loss/tokens", "nats per token", "mean negative log-likelihood of the tokens trained on", None,
            "Compare it with the logarithm of the vocabulary's size, where it begins from scratch. If it does not "
            "fall, look at the learning rate first and at the token audit second.",
            "loss",
        ),
        Metric(
            "validation/loss", "nats per token", "the same on data that is not trained on", None,
            "When it rises, more epochs hurt the likelihood. InstructGPT trained on and chose by reward-model score: "
            "set `judge` to do the same.",
            "val",
        ),
        Metric(
            "validation/score", "score", "mean score of the judge on responses sampled for validation prompts", None,
            "Higher is better; it chooses the epoch when a judge is set.",
            "judged",
        ),
    ),
)  # fmt: skip

USERS = Section(
    "Your own",
    "",
    (
        Metric(
            "user/<name>", "yours", "whatever your own algorithm, scorer or stage reports under this prefix", None,
            "Names without this prefix must be declared in `assent.track.catalogue`.",
        ),
    ),
)  # fmt: skip
