"""What judges cost."""

from assent.track.catalogue.declare import Metric, Section

JUDGES = Section(
    "Judges behind an endpoint",
    "Of a stage whose scores come from a language model; `compare` and `critique` close with the same counts.",
    (
        Metric("judge/calls", "calls", "requests sent in this step, retries not counted", None, "It is what you pay."),
        Metric("judge/remembered", "answers", "answers taken from what was asked before", None, "They cost nothing."),
        Metric("judge/prompt_tokens", "tokens", "tokens of the questions, as the endpoint counts", None, "A cost."),
        Metric("judge/response_tokens", "tokens", "tokens of the answers, as the endpoint counts", None, "A cost."),
    ),
)  # fmt: skip
