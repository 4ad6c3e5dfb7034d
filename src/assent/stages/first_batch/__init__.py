"""The doctor's checks, put together for each kind of stage; the only place that knows both sides."""

from assent.stages.first_batch.comparisons import check_comparisons
from assent.stages.first_batch.online import Rl, check_rl
from assent.stages.first_batch.pairs import check_pairs
from assent.stages.first_batch.running import SkipChecks, reloaded_in
from assent.stages.first_batch.steps import check_steps
from assent.stages.first_batch.tokens import check_tokens

__all__ = [
    "Rl",
    "SkipChecks",
    "check_comparisons",
    "check_pairs",
    "check_rl",
    "check_steps",
    "check_tokens",
    "reloaded_in",
]
