"""What judges cost and how they behave."""

from assent.track.catalogue.declare import Metric, Range, Section

JUDGES = Section(
    "Judges behind an endpoint",
    "Of a stage that asks a language model for scores, comparisons or critiques.",
    (
        Metric("judge/calls", "calls", "requests sent in this step, retries not counted", None, "It is what you pay."),
        Metric("judge/remembered", "answers", "answers taken from what was asked before", None, "They cost nothing."),
        Metric("judge/prompt_tokens", "tokens", "tokens of the questions, as the endpoint counts", None, "A cost."),
        Metric("judge/response_tokens", "tokens", "tokens of the answers, as the endpoint counts", None, "A cost."),
        Metric(
            "judge/consistent", "share", "pairs of which both orders prefer the same response", Range(low=0.6),
            "At 0.5 the judge chooses by position or by chance: take a better model or a clearer template.",
        ),
        Metric(
            "judge/first", "share", "mean probability of whichever response is shown first", Range(0.35, 0.65),
            "Far from 0.5 is position bias; the mean of both orders cancels it, at the price of weak labels.",
        ),
    ),
)  # fmt: skip
