"""Divergences from a model that are measured beside the one which is paid for."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from assent.functional import kl
from assent.types import Mean, Scored, Sequences
from assent.types.micro_batches import map_sequences

TokensOf = Callable[[Sequences], Tensor]
"""A number for each response token, [B, T]."""

Note = Callable[[Scored], Mapping[str, Mean]]
"""Figures of a step, by name."""


def first_divergence(first: TokensOf, *, token_budget: int) -> Note:
    """`kl/first`: k1 to the reference of the run's start; one forward pass, without gradient.

    Args:
        first: its log-probabilities of the response tokens.
        token_budget: tokens of one forward micro-batch.
    """

    def note(scored: Scored) -> Mapping[str, Mean]:
        (first_BT,) = map_sequences(lambda s: (first(s),), scored.sequences, token_budget)
        k1_BT = torch.where(scored.mask_BT, kl.k1(scored.old_logprobs_BT, first_BT), 0.0)
        return {"kl/first": Mean.of(k1_BT.sum(1))}

    return note


def exact_divergence(exact: TokensOf, *, token_budget: int) -> Note:
    """`kl/exact`: the KL of every state that was visited, over the whole vocabulary; a forward pass of policy and
    reference, without gradient.

    Args:
        exact: KL(policy || reference) of the state before each response token, 0 where masked.
        token_budget: tokens of one forward micro-batch.
    """

    def note(scored: Scored) -> Mapping[str, Mean]:
        (exact_BT,) = map_sequences(lambda s: (exact(s),), scored.sequences, token_budget)
        return {"kl/exact": Mean.of(torch.where(scored.mask_BT, exact_BT, 0.0).sum(1))}

    return note
