"""Metrics of direct alignment."""

from assent.track.catalogue.declare import Metric, Range, Section

ALIGN = Section(
    "Direct alignment",
    "The implicit reward of a response is beta times its log-ratio to the reference (DPO; per token in IPO), or its "
    "log-probability per token (SimPO times beta, ORPO).",
    (
        Metric(
            "loss/preference", "nats", "mean loss of the pairs; squared nats per token in IPO", None,
            "DPO starts at ln 2 = 0.693 where the reference is the start. Towards 0 within one pass the pairs are "
            "memorised: fewer epochs, a lower learning rate, or label_smoothing.",
            "pair loss",
        ),
        Metric(
            "implicit_reward/accuracy", "share",
            "pairs whose preferred response has the higher implicit reward; equal counts half", Range(0.45, 0.95),
            "A policy that starts at its reference starts at 0.5. Below 0.45 look which response the data calls "
            "preferred; above 0.95 on people's comparisons is memorised: look at the held-out accuracy.",
            "implicit acc",
        ),
        Metric(
            "implicit_reward/margin", "reward", "mean implicit reward, preferred minus other", None,
            "It grows. Growing while the samples get worse is over-optimisation: a larger beta, or stop earlier.",
            "margin",
        ),
        Metric(
            "implicit_reward/chosen", "reward", "mean implicit reward of the preferred responses", None,
            "Read it with `logprobs/chosen_shift`.",
        ),
        Metric(
            "implicit_reward/rejected", "reward", "mean implicit reward of the other responses", None,
            "It falls below that of the preferred ones.",
        ),
        Metric(
            "logprobs/chosen", "nats per response", "mean log-probability of the preferred responses under the policy",
            None,
            "Where it falls while the margin grows, the probability goes to responses that are in no pair (likelihood "
            "displacement).",
        ),
        Metric(
            "logprobs/rejected", "nats per response", "the same of the other responses", None,
            "It may fall; far below the preferred ones' it says that the policy is pushed away more than drawn.",
        ),
        Metric(
            "logprobs/chosen_shift", "nats per response",
            "mean log-probability of the preferred responses under the policy minus that under the reference",
            Range(low=-5.0),
            "Likelihood displacement: what people preferred has become e^5 times less likely than it was, and "
            "responses that nobody judged more likely. Set nll_weight (1 in iterative RPO), raise beta, lower the "
            "learning rate, and check that the pairs were sampled from the reference.",
            "shift",
        ),
        Metric(
            "logprobs/rejected_shift", "nats per response", "the same of the other responses", None,
            "It falls below `logprobs/chosen_shift`; the difference times beta is the margin.",
        ),
    ),
)  # fmt: skip
