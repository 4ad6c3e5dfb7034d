"""`assent verify`: every algorithm on a world whose optimum is known, through the real loop.

The table says how far each ends from where the mathematics says it must. It is what a user runs to trust an
installation, and what a test runs to trust a change.
"""

from collections.abc import Callable

from assent.stages.verify.constrained import ppo_lagrangian
from assent.stages.verify.online import CLAIMS as ONLINE
from assent.stages.verify.pairs import CLAIMS as PAIRS
from assent.stages.verify.supervised import plackett_luce, reward_model, sft, soft_reward_model
from assent.stages.verify.worlds import Verdict

CLAIMS: tuple[Callable[[], Verdict], ...] = (
    sft,
    reward_model,
    soft_reward_model,
    plackett_luce,
    *PAIRS,
    *ONLINE,
    ppo_lagrangian,
)


def verify() -> list[Verdict]:
    """Train every algorithm that claims an optimum, from the same start, and measure where it ends."""
    return [run() for run in CLAIMS]
