"""Metrics of reward models."""

from assent.track.catalogue.declare import Metric, Range, Section

REWARD_MODEL = Section(
    "Reward model",
    "",
    (
        Metric(
            "loss/pairs", "nats per pair", "mean over prompts of the mean loss over the prompt's ordered pairs, "
            "without margin and centring",
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
        Metric(
            "pairs/label_entropy", "nats per pair", "entropy of the soft labels, averaged as the loss", None,
            "The least that `loss/pairs` can reach on these labels; the difference is what is left to learn.",
        ),
        Metric(
            "loss/ranking", "nats per choice",
            "mean over prompts of -log P(ranking) / (K - 1), or of the loss of its ordered pairs where it has no whole "
            "ranking", None,
            "Guessing is ln(K!) / (K - 1): 0.693 for K = 2, 1.06 for K = 4.",
            "loss",
        ),
        Metric(
            "ranking/whole", "share", "prompts with a strict, complete and consistent ranking", Range(low=0.5),
            "Below it most prompts are trained pair by pair: k_wise says the same with less.",
        ),
        Metric(
            "loss/safety", "nats per label", "mean over prompts of the cross-entropy of their safety labels",
            Range(high=0.75),
            "As `loss/pairs`; where few responses are unsafe, calling all safe is below 0.693 too: look at the recall.",
        ),
        Metric(
            "safety/accuracy", "share", "labelled responses on the right side of score 0", None,
            "Compare it with the share of safe responses, which a constant reaches.",
        ),
        Metric(
            "safety/unsafe_recall", "share", "unsafe responses with a score below 0", Range(low=0.5),
            "Llama 2 reports 0.73 without the classification and 0.90 with it. Below half: raise the coefficient, or "
            "label more unsafe responses.",
        ),
    ),
)  # fmt: skip
