"""Comparisons to batches: what of a comparison is trained on depends on what the loss reads of it.

`ComparisonBatches` walks over the comparisons; a kind of labels says which pairs of a comparison count, and makes the
batch that its loss takes: `OrderedPairs` for the K-wise loss, `SoftPairs` for soft labels, `WholeRankings` for
Plackett-Luce, `SafetyLabels` where responses are labelled as well.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any, Protocol

import torch
from torch import Tensor

from assent.data.batches import ComparisonExample
from assent.data.order import Order, Walk, digest_of
from assent.protocols import State
from assent.records import Degree, Preference
from assent.types import (
    ComparisonBatch,
    LabelledComparisonBatch,
    RankedComparisonBatch,
    Sequences,
    SoftComparisonBatch,
)


def no_margin(degree: Degree) -> float:
    """Margin 0 whatever the degree: the plain Bradley-Terry loss."""
    return 0.0


class Labels(Protocol):
    """What a loss reads of a comparison."""

    def pairs(self, example: ComparisonExample) -> list[Preference]:
        """The pairs of an example that become pairs of the batch, in their order."""
        ...

    def trains(self, example: ComparisonExample) -> bool:
        """Whether anything is learned from this example."""
        ...

    def batch(self, examples: Sequence[ComparisonExample]) -> ComparisonBatch:
        """The batch of these examples."""
        ...

    def report(self, examples: Sequence[ComparisonExample]) -> str:
        """What one epoch trains on and what is left out, in one line."""
        ...


@dataclass(frozen=True, slots=True)
class OrderedPairs:
    """Pairs that somebody ordered, and the margin that their degree asks for; ties carry no order and drop out.

    Args:
        margin: how far apart the scores of a pair should be at least, in score units, by the stated degree.
    """

    margin: Callable[[Degree], float] = no_margin

    def pairs(self, example: ComparisonExample) -> list[Preference]:
        return example.strict

    def trains(self, example: ComparisonExample) -> bool:
        return bool(example.strict)

    def batch(self, examples: Sequence[ComparisonExample]) -> ComparisonBatch:
        return ComparisonBatch(**_fields(examples, self))

    def report(self, examples: Sequence[ComparisonExample]) -> str:
        kept = [e for e in examples if e.strict]
        pairs = sum(len(e.strict) for e in kept)
        ties = sum(len(e.preferences) - len(e.strict) for e in examples)
        return (
            f"{len(kept):,} comparisons with {pairs:,} ordered pairs; {ties:,} ties left out of "
            f"the pairs; {len(examples) - len(kept):,} comparisons kept out because all their pairs are ties"
        )


@dataclass(frozen=True, slots=True)
class SoftPairs:
    """Pairs with the probability that the first is preferred.

    Args:
        ties: a tie is a pair with the target 0.5; without it, it is left out.
    """

    ties: bool = True

    def pairs(self, example: ComparisonExample) -> list[Preference]:
        return list(example.preferences) if self.ties else example.strict

    def trains(self, example: ComparisonExample) -> bool:
        return bool(self.pairs(example))

    def batch(self, examples: Sequence[ComparisonExample]) -> SoftComparisonBatch:
        targets = [p.target for e in examples for p in self.pairs(e)]
        return SoftComparisonBatch(**_fields(examples, self), target_P=torch.tensor(targets, dtype=torch.float32))

    def report(self, examples: Sequence[ComparisonExample]) -> str:
        kept = [e for e in examples if self.trains(e)]
        pairs = [p for e in kept for p in self.pairs(e)]
        ties = sum(p.tie for e in examples for p in e.preferences)
        fate = "trained on as 0.5" if self.ties else "left out"
        return (
            f"{len(kept):,} comparisons with {len(pairs):,} pairs, {sum(0.5 < p.target < 1 for p in pairs):,} of them "
            f"with a soft label; {ties:,} ties {fate}; {len(examples) - len(kept):,} comparisons without a pair"
        )


@dataclass(frozen=True, slots=True)
class WholeRankings:
    """Ordered pairs, and the ranking where they are one: strict, complete and free of contradictions."""

    def pairs(self, example: ComparisonExample) -> list[Preference]:
        return example.strict

    def trains(self, example: ComparisonExample) -> bool:
        return bool(example.strict)

    def batch(self, examples: Sequence[ComparisonExample]) -> RankedComparisonBatch:
        rankings = [ranking_of(e) for e in examples]
        ranks = [rank for e, r in zip(examples, rankings, strict=True) for rank in (r or [1] * len(e.responses))]
        return RankedComparisonBatch(
            **_fields(examples, self),
            ranks_B=torch.tensor(ranks),
            ranked_G=torch.tensor([r is not None for r in rankings]),
        )

    def report(self, examples: Sequence[ComparisonExample]) -> str:
        kept = [e for e in examples if e.strict]
        whole = sum(ranking_of(e) is not None for e in kept)
        return (
            f"{whole:,} comparisons that are a strict ranking of all their responses; {len(kept) - whole:,} with ties, "
            f"missing or contradictory pairs, trained pair by pair; {len(examples) - len(kept):,} kept out because all "
            "their pairs are ties"
        )


@dataclass(frozen=True, slots=True)
class SafetyLabels:
    """Ordered pairs as `OrderedPairs`, and whether each response is safe, where somebody said."""

    margin: Callable[[Degree], float] = no_margin

    def pairs(self, example: ComparisonExample) -> list[Preference]:
        return example.strict

    def trains(self, example: ComparisonExample) -> bool:
        return bool(example.strict) or bool(example.unsafe)

    def batch(self, examples: Sequence[ComparisonExample]) -> LabelledComparisonBatch:
        return LabelledComparisonBatch(
            **_fields(examples, self),
            safe_B=torch.tensor([not u for e in examples for u in (e.unsafe or [True] * len(e.responses))]),
            labelled_B=torch.tensor([bool(e.unsafe) for e in examples for _ in e.responses]),
        )

    def report(self, examples: Sequence[ComparisonExample]) -> str:
        unsafe, labels = sum(sum(e.unsafe) for e in examples), sum(len(e.unsafe) for e in examples)
        responses = sum(len(e.responses) for e in examples)
        return (
            f"{OrderedPairs().report(examples)}; {labels:,} of {responses:,} responses are labelled, "
            f"{unsafe:,} of them unsafe"
        )


def ranking_of(example: ComparisonExample) -> list[int] | None:
    """Place of each response, 1 is best, where the pairs are a strict order of all responses; None where they are not.

    Every pair must be ordered once, and nothing may beat what beats it: then the numbers of wins are 0, 1, ..., K - 1.
    """
    k = len(example.responses)
    judged = sorted(tuple(sorted((p.better, p.worse))) for p in example.strict)
    if len(example.strict) < len(example.preferences) or judged != list(combinations(range(k), 2)):
        return None
    wins = [sum(p.better == i for p in example.strict) for i in range(k)]
    return [k - w for w in wins] if sorted(wins) == list(range(k)) else None


def _fields(examples: Sequence[ComparisonExample], labels: Labels) -> dict[str, Any]:
    """The fields of a `ComparisonBatch` for the pairs that `labels` keeps."""
    counts = torch.tensor([len(e.responses) for e in examples])
    starts = (counts.cumsum(0) - counts).tolist()
    pairs = [(g, starts[g], p) for g, e in enumerate(examples) for p in labels.pairs(e)]
    margin = getattr(labels, "margin", no_margin)
    sequences = Sequences.of(
        [e.prompt_ids for e in examples for _ in e.responses], [r for e in examples for r in e.responses]
    )
    made = ComparisonBatch(
        sequences,
        counts,
        better_P=torch.tensor([start + p.better for _, start, p in pairs], dtype=torch.int64),
        worse_P=torch.tensor([start + p.worse for _, start, p in pairs], dtype=torch.int64),
        group_P=torch.tensor([g for g, _, _ in pairs], dtype=torch.int64),
        margin_P=torch.tensor([margin(p.degree) for _, _, p in pairs], dtype=torch.float32),
    )
    return {f.name: getattr(made, f.name) for f in fields(made)}


class ComparisonBatches:
    """Comparisons for reward models; implements `BatchSource`. One comparison is one unit.

    A comparison of which the loss learns nothing (all ties, for most) is kept out and counted in `kept_out`. `pairs` is
    the number in one epoch, `ties` that of the pairs that annotators called so, whatever becomes of them.

    Args:
        examples: at least one that trains.
        batch_size: comparisons per optimiser step, over all ranks.
        labels: what the loss reads of a comparison; ordered pairs without margins by default.
        epochs, seed, shard: as in `TokenBatches`.

    Raises:
        DataError: no comparison trains, or some batch has fewer comparisons than there are ranks.
    """

    def __init__(
        self,
        examples: Sequence[ComparisonExample],
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
        labels: Labels | None = None,
    ) -> None:
        self._labels = labels or OrderedPairs()
        self._examples = [e for e in examples if self._labels.trains(e)]
        self.report = self._labels.report(examples)
        self.kept_out = len(examples) - len(self._examples)
        self.pairs = sum(len(self._labels.pairs(e)) for e in self._examples)
        self.ties = sum(p.tie for e in examples for p in e.preferences)
        digest = digest_of(part for e in self._examples for part in _parts(e))
        order = Order(len(self._examples), batch_size, epochs, seed, *shard)
        self._walk = Walk(order, digest, self._collate)

    def __len__(self) -> int:
        return len(self._walk.order)

    def __iter__(self) -> Iterator[tuple[int, ComparisonBatch]]:
        return iter(self._walk)

    def state_dict(self) -> State:
        return self._walk.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._walk.load_state_dict(state)

    def _collate(self, epoch: int, rows: Tensor) -> ComparisonBatch:
        return self._labels.batch([self._examples[i] for i in rows.tolist()])


def _parts(example: ComparisonExample) -> Iterator[Sequence[int]]:
    yield example.prompt_ids
    yield from example.responses
    degrees = list(Degree)
    for p in example.preferences:
        yield (p.better, p.worse, p.tie, degrees.index(p.degree), round(p.target * 2**40))
    yield [int(u) for u in example.unsafe]
