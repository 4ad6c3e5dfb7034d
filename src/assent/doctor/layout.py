"""D2 and D7: how sequences lie in a batch is memory and speed, never results."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from assent.doctor.report import NOISE, Finding, refusal
from assent.protocols import OfflineAlgorithm
from assent.types import Batch, Sequences

Read = Callable[[Sequences], Tensor]
"""`[b]` or `[b, t]` for a block: log-probabilities, values or scores."""

EXTRA_COLUMNS = 5
"""Columns of padding added on the right; any number would do."""

GRADIENT_NOISE: Mapping[torch.dtype, float] = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 5e-2,
    torch.bfloat16: 5e-2,
}
"""Largest relative difference of a gradient's norm put down to the order of summation. Ours: float32 differs by about
1e-6; a wrong denominator by 1e-1 and more."""


def padded(sequences: Sequences, *, columns: int, fill: int) -> Sequences:
    """The same sequences with `columns` more slots on the right and `fill` in every slot that is padding."""
    return sequences.padded(columns, fill=fill)


def spread(sequences: Sequences, count: int) -> Sequences:
    """At most `count` rows whose lengths span all lengths, so that a block of them holds padding."""
    order = sequences.lengths_B.argsort(stable=True)
    places = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long().unique()
    return sequences.select(order[places])


# ------------------------------------------------------------------------------------------------ D2


def padding_changes_nothing(
    reads: Mapping[str, Read], sequences: Sequences, *, end_id: int, room: int, dtype: torch.dtype
) -> Finding:
    """D2: each sequence alone, in a block, in another order, with more padding, and padded with the end token.

    Args:
        reads: what is read, by the name a person would give it.
        sequences: a few rows of different lengths.
        end_id: the end token, which padding may equal.
        room: columns of padding that the model still has positions for.
        dtype: of the weights; sets the tolerance.
    """
    worst, tolerance = 0.0, NOISE[dtype]
    for name, read in reads.items():
        with torch.no_grad():
            alone = [read(sequences.select(torch.tensor([i])))[0] for i in range(len(sequences))]
            scale = max(1.0, *(a.abs().max().item() for a in alone))
            for layout, rows, block in _layouts(sequences, end_id, room):
                gap = max(
                    (a - alone[i][: a.shape[0]]).abs().max().item() if a.dim() else (a - alone[i]).abs().item()
                    for a, i in zip(_trimmed(read(block), block), rows, strict=True)
                )
                if not gap / scale <= tolerance:
                    raise _layout_matters(name, layout, gap, tolerance * scale)
                worst = max(worst, gap / scale)
    layouts = sum(1 for _ in _layouts(sequences, end_id, room))
    detail = f"{', '.join(reads)} of {len(sequences)} sequences, alone and in {layouts} layouts"
    return Finding(worst, tolerance, detail)


def _layouts(sequences: Sequences, end_id: int, room: int) -> Iterator[tuple[str, list[int], Sequences]]:
    rows = list(range(len(sequences)))
    yield "in a padded block", rows, sequences
    turned = rows[::-1][1:] + rows[-1:]
    yield "in a block of another order", turned, sequences.select(torch.tensor(turned))
    columns = max(0, min(EXTRA_COLUMNS, room))
    yield f"with {columns} more columns of padding", rows, padded(sequences, columns=columns, fill=0)
    yield "padded with the end token", rows, padded(sequences, columns=columns, fill=end_id)
    other = int(sequences.token_ids_BL[0, 0])
    yield "padded with a word", rows, padded(sequences, columns=columns, fill=other)


def _trimmed(values: Tensor, block: Sequences) -> list[Tensor]:
    if values.dim() == 1:
        return list(values)
    return [row[:n] for row, n in zip(values, block.response_lengths_B.tolist(), strict=True)]


def _layout_matters(name: str, layout: str, gap: float, allowed: float) -> Exception:
    return refusal(
        "D2",
        got=f"{name} differ by up to {gap:.3g} between a sequence alone and the same sequence {layout} "
        f"(allowed: {allowed:.1g})",
        why="the loss would depend on which sequences happen to share a batch, and the ratio would not start at 1",
        causes=(
            "positions are counted from the left edge of a left-padded block: pass position ids, or pad on the right",
            "attention sees padding: pass a mask, or use a causal model with padding on the right",
            "the model finds the end of a sequence by looking for the pad or end token: read it from the lengths",
            "the attention kernel is not exact for blocks of this shape: try attn_implementation='eager'",
        ),
    )


# ------------------------------------------------------------------------------------------------ D7

Gradients = Callable[[Batch, OfflineAlgorithm, int | None], Mapping[str, Tensor]]
"""`(batch, algorithm, token budget) -> gradient by name`, by the learner's own accumulation; None is its own budget."""

WHOLE = 2**62
"""A token budget that nothing exceeds: one micro-batch."""


@dataclass(frozen=True)
class Padded:
    """A batch whose every selection has more padding, filled with one token; implements `types.Batch`."""

    batch: Any
    columns: int
    fill: int

    def __len__(self) -> int:
        return len(self.batch)

    def select(self, rows: Tensor) -> Any:
        part = self.batch.select(rows)
        return replace(part, sequences=padded(part.sequences, columns=self.columns, fill=self.fill))

    @property
    def costs(self) -> Tensor:
        costs: Tensor = self.batch.costs
        return costs

    @property
    def denominator(self) -> float:
        return float(self.batch.denominator)


def gradient_is_one(
    gradients: Gradients,
    batch: Batch,
    algorithm: OfflineAlgorithm,
    *,
    end_id: int,
    room: int,
    dtype: torch.dtype,
) -> Finding:
    """D7: the gradient of the whole batch, of micro-batches of one unit, of the learner's own, and with more padding.

    Args:
        gradients: the learner's accumulation, without an optimiser step.
        batch: some units of the first batch, of different lengths.
        end_id, room: see D2.
        dtype: of the weights; sets the tolerance, relative to the gradient's norm.
    """
    tolerance = GRADIENT_NOISE[dtype]
    whole = gradients(batch, algorithm, WHOLE)
    size = _norm(whole)
    columns = max(0, min(EXTRA_COLUMNS, room))
    others = (
        ("in micro-batches of one", gradients(batch, algorithm, 1)),
        ("in the learner's own micro-batches", gradients(batch, algorithm, None)),
        (f"with {columns} more columns of padding", gradients(Padded(batch, columns, end_id), algorithm, WHOLE)),
    )
    worst = 0.0
    for layout, other in others:
        relative = _distance(whole, other) / size if size else _norm(other)
        if not relative <= tolerance:
            raise _gradient_differs(layout, relative, tolerance, _norm(other) / size if size else math.inf)
        worst = max(worst, relative)
    zero = "" if size else "; it is 0: this batch teaches nothing"
    detail = f"gradient norm {size:.4g} over {len(batch)} units, the same in {len(others) + 1} layouts{zero}"
    return Finding(worst, tolerance, detail)


def _norm(gradient: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(g.double().square().sum().item() for g in gradient.values()))


def _distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    if set(a) != set(b):
        return math.inf
    return _norm({n: a[n].double() - b[n].double() for n in a})


def _gradient_differs(layout: str, relative: float, tolerance: float, factor: float) -> Exception:
    return refusal(
        "D7",
        got=f"the gradient {layout} differs from that of the whole batch by {relative:.3g} of its norm "
        f"(allowed: {tolerance:.1g}); it is {factor:.3g} times as long",
        why="a memory setting would silently change the learning rate, and padding would be trained on",
        causes=(
            "the loss divides by its own micro-batch (a mean inside the algorithm): return a loss per item instead",
            "the denominator counts padding or pad rows: count included items only",
            "the algorithm uses figures of the batch at hand (whitening, a baseline): move that to its `experience`",
            "dropout or router noise is on: turn it off in the model's config",
        ),
    )
