"""Pure maths of learning from human feedback: tensors and numbers in, tensors out.

Public API. Every function states its formula, shapes, units and source, reduces nothing unless its name says so, and
obeys the same conventions: a mask is bool and True means included; masked places of an output are exactly 0, and what
stands in a masked place of an input (nan and infinity included) changes neither values nor gradients; half precision
is raised to float32 before any sum, softmax or exp; log-ratios are clamped to +-20 before exp; impossible input
raises `ValueError` with what, got and fix. Log-probabilities, entropies and KL are in nats.

Functions without a mask work element by element: reduce their result with `masked.masked_mean`. That keeps the value
clean of what is masked; for the gradient, fill the masked places of the *inputs* first (0 times nan is nan).
"""

from assent.functional import (
    advantages,
    combine,
    control,
    kl,
    length,
    logprobs,
    masked,
    policy,
    preference,
    process,
    ratio,
    returns,
    reward,
    selection,
    value,
)

__all__ = [
    "advantages",
    "combine",
    "control",
    "kl",
    "length",
    "logprobs",
    "masked",
    "policy",
    "preference",
    "process",
    "ratio",
    "returns",
    "reward",
    "selection",
    "value",
]
