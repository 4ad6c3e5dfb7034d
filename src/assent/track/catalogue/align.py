"""Metrics of direct alignment."""

from assent.track.catalogue.declare import Metric, Range, Section

ALIGN = Section(
    "Direct alignment",
    "The implicit reward of a response is beta times its log-ratio to the reference (DPO and its kin; per token in "
    "IPO), or its log-probability (CPO times beta), or that per token (SimPO times beta, ORPO).",
    (
        Metric(
            "loss/preference", "nats",
            "mean loss of the pairs, or of the judgements of single responses; squared nats per token in IPO, no unit "
            "in KTO and APO", None,
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
            "It falls below `logprobs/chosen_shift`; the difference times beta is the margin. Where both are below "
            "-5 a run warns once.",
        ),
        Metric(
            "implicit_reward/desirable", "reward", "mean implicit reward of the responses that were called desirable",
            None,
            "KTO, BCO: it rises above the baseline.",
        ),
        Metric(
            "implicit_reward/undesirable", "reward", "the same of those that were called undesirable", None,
            "KTO, BCO: it falls below the baseline.",
        ),
        Metric(
            "logprobs/desirable", "nats per response",
            "mean log-probability of the desirable responses under the policy",
            None,
            "As `logprobs/chosen`.",
        ),
        Metric(
            "logprobs/undesirable", "nats per response", "the same of the undesirable ones", None,
            "As `logprobs/rejected`.",
        ),
        Metric(
            "logprobs/desirable_shift", "nats per response",
            "mean log-probability of the desirable responses under the policy minus that under the reference",
            Range(low=-5.0),
            "Likelihood displacement: what people liked has become e^5 times less likely than it was. Raise beta or "
            "desirable_weight, lower the learning rate, and check that the responses were sampled from the reference.",
        ),
        Metric(
            "logprobs/undesirable_shift", "nats per response", "the same of the undesirable ones", None,
            "It falls below `logprobs/desirable_shift`. Where both are below -5 a run warns once.",
        ),
        Metric(
            "baseline/kl", "nats per response",
            "KTO's baseline: mean log-ratio to the reference of responses to another prompt, at least 0", None,
            "It grows as the policy moves. 0 for long: on other prompts' responses the policy is below its reference, "
            "and every response is measured against standing still.",
        ),
        Metric(
            "baseline/reward", "reward",
            "BCO's baseline: half the sum of both kinds' mean rewards, over all steps before", None,
            "It follows the drift of all rewards; the two kinds should lie on its two sides.",
        ),
    ),
)  # fmt: skip
