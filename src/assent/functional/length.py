"""What the length of a response alone costs."""

from torch import Tensor

from assent.functional import _guards
from assent.functional._precision import as_float


def soft_overlong(lengths_B: Tensor, *, longest: int, cache: int) -> Tensor:
    """0 up to `longest - cache` tokens, then falling evenly to -1 at `longest`, and -1 beyond.

    Args:
        lengths_B: tokens of each response, its end token included.
        longest: L_max, at least 2; 20480 in the paper.
        cache: L_cache, the tokens over which the penalty grows, 1 to `longest - 1`; 4096 in the paper.

    Returns:
        `[B]` in [-1, 0], score units; to be added to the score.

    Raises:
        ValueError: `cache` is not from 1 to `longest - 1`, or a length is below 0.

    Source: DAPO (arXiv 2503.14476, equation 13).
    """
    _guards.count("cache", cache)
    _guards.count("longest", longest, low=cache + 1)
    _guards.elements_within("lengths_B", lengths_B, low=0.0, high=float("inf"))
    return -((as_float(lengths_B) - (longest - cache)) / cache).clamp(0.0, 1.0)
