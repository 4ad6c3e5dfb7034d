"""Micro-batches: a memory knob and nothing else."""

from collections.abc import Callable

import torch
from torch import Tensor

from assent.types.batches import Sequences


def micro_batches(costs: Tensor, token_budget: int, together: Tensor | None = None) -> list[Tensor]:
    """Cut units into micro-batches whose padded size stays within a budget of tokens.

    Units are ordered by cost, so that neighbours have like lengths and little is padded; the order is a function of the
    arguments alone. A unit above the budget gets a micro-batch of its own.

    Args:
        costs: int64 [units], tokens of each unit.
        token_budget: tokens of one micro-batch, padding included.
        together: int64 [units]; units of one number stay side by side, since what they share is read once.

    Returns:
        int64 index tensors that partition the units.
    """
    order = torch.argsort(costs, descending=True, stable=True)
    if together is not None:
        # A group stands where its most costly unit stood; within it the order by cost is kept.
        place = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
        first = order.new_full((int(together.max()) + 1,), len(order)).scatter_reduce(0, together, place, "amin")
        order = order[torch.argsort(first[together[order]], stable=True)]
    cuts, widest = [0], 0
    for i, cost in enumerate(costs[order].tolist()):
        widest = max(widest, cost)
        if i > cuts[-1] and (i + 1 - cuts[-1]) * widest > token_budget:
            cuts.append(i)
            widest = cost
    return [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)]


def cut_evenly(order: Tensor, count: int) -> list[Tensor]:
    """Cut an order of units into `count` parts whose sizes differ by one at most; into fewer where it has fewer units.

    Not `Tensor.chunk`, which makes as few as three parts of six units when asked for four.
    """
    return list(order.tensor_split(min(count, len(order))))


def map_sequences(
    function: Callable[[Sequences], tuple[Tensor, ...]], sequences: Sequences, token_budget: int
) -> tuple[Tensor, ...]:
    """Apply a forward pass micro-batch by micro-batch, without gradient, and put the rows back in order.

    Args:
        function: gives tensors [b] or [b, t] for each micro-batch, t its longest response.
        sequences: what to run on.
        token_budget: tokens of one micro-batch, padding included; a longer single sequence is one of its own.

    Returns:
        The same tensors as [B] or [B, T], 0 beyond each response; where the sequences are.
    """
    outputs: list[Tensor] = []
    device = sequences.token_ids_BL.device
    longest = sequences.mask_BT.shape[1]
    with torch.no_grad():
        _, together = sequences.distinct_prompts()
        for rows in micro_batches(sequences.lengths_B, token_budget, together):
            parts = function(sequences.select(rows))
            if not outputs:
                shapes = [(len(sequences), longest) if p.dim() == 2 else (len(sequences),) for p in parts]
                outputs = [p.new_zeros(shape, device=device) for p, shape in zip(parts, shapes, strict=True)]
            for whole, part in zip(outputs, parts, strict=True):
                if part.dim() == 2:
                    whole[rows, : part.shape[1]] = part.to(device)
                else:
                    whole[rows] = part.to(device)
    return tuple(outputs)
