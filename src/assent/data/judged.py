"""Judged responses to batches for direct alignment: each distinct response of a prompt is held, and read, once.

A unit is a prompt with its judged responses. Comparisons of the same prompt and responses by several annotators are one
unit; nothing larger is ever put together, so that a unit is no wider than the widest comparison.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from assent.data.order import Order, Walk, digest_of, permutation
from assent.errors import DataError
from assent.protocols import State
from assent.records import Preference
from assent.types import Batch, MismatchedBatch, PairBatch, ReferencedPairBatch, Sequences, UnpairedBatch

B = TypeVar("B", bound=Batch)
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Response:
    """A response as token ids, and which of them are included in its log-probability; none empty."""

    token_ids: Ids
    included: tuple[bool, ...]

    @classmethod
    def whole(cls, token_ids: Sequence[int]) -> "Response":
        """Every token is included."""
        return cls(tuple(token_ids), (True,) * len(token_ids))

    def __post_init__(self) -> None:
        if not self.token_ids or len(self.token_ids) != len(self.included):
            raise DataError(
                "a response needs a token, and each token a word on whether it is included",
                got=f"{len(self.token_ids)} tokens, {len(self.included)} words",
                why="there would be nothing to train on",
                fix="give every response its end token, or leave the row out",
            )


Row = tuple[Ids, Response]
"""A prompt and a response to it."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A prompt as token ids, all responses of one comparison, and what was said of their pairs."""

    prompt_ids: Ids
    responses: tuple[Response, ...]
    preferences: tuple[Preference, ...]

    @property
    def strict(self) -> list[tuple[Response, Response]]:
        """Preferred and other of the pairs that carry an order."""
        return [(self.responses[p.better], self.responses[p.worse]) for p in self.preferences if not p.tie]


@dataclass(frozen=True, slots=True)
class Called:
    """A prompt as token ids, a response, and whether it was called desirable."""

    prompt_ids: Ids
    response: Response
    desirable: bool


class Unit(Protocol):
    """A prompt and its judged responses, each once."""

    @property
    def prompt_ids(self) -> Ids: ...
    @property
    def responses(self) -> tuple[Response, ...]: ...
    @property
    def judgements(self) -> Iterable[Sequence[int]]:
        """What tells one set of judgements from another."""
        ...


@dataclass(frozen=True, slots=True)
class PairUnit:
    """Implements `Unit`; `pairs` are the preferred and the other response of each, as index."""

    prompt_ids: Ids
    responses: tuple[Response, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def judgements(self) -> Iterable[Sequence[int]]:
        return self.pairs


@dataclass(frozen=True, slots=True)
class UnpairedUnit:
    """Implements `Unit`; `calls` are the responses that were judged, as index, and whether each was desirable."""

    prompt_ids: Ids
    responses: tuple[Response, ...]
    calls: tuple[tuple[int, bool], ...]

    @property
    def judgements(self) -> Iterable[Sequence[int]]:
        return self.calls


# ------------------------------------------------------------------------------------------------ what is trained on


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What taught nothing.

    Args:
        ties: pairs that the annotator called equal.
        identical: ordered pairs of two responses with the same tokens: no policy can prefer one of them.
        blank: judgements of a response of which no token is included.
    """

    ties: int
    identical: int
    blank: int

    def __str__(self) -> str:
        blank = f" and {self.blank:,} judgements of responses without content" if self.blank else ""
        return f"{self.ties:,} ties, {self.identical:,} pairs of identical responses{blank} left out"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Every strictly ordered pair of some comparisons, by prompt, and what was left out."""

    units: Sequence[PairUnit]
    left_out: LeftOut

    @classmethod
    def of(cls, comparisons: Iterable[Compared]) -> "Pairs":
        told, left_out = _telling(comparisons)
        return cls([_pair_unit(prompt, pairs) for prompt, pairs in told], left_out)

    @property
    def count(self) -> int:
        return sum(len(unit.pairs) for unit in self.units)

    def __str__(self) -> str:
        rows = sum(len(unit.responses) for unit in self.units)
        return (
            f"{self.count:,} ordered pairs of {rows:,} responses to {len(self.units):,} prompts; {self.left_out}; each "
            f"response is read once a pass, not {2 * self.count / max(rows, 1):.1f} times"
        )


@dataclass(frozen=True, slots=True)
class SingleJudgements:
    """Judgements of single responses, by prompt, and what was left out."""

    units: Sequence[UnpairedUnit]
    left_out: LeftOut

    @classmethod
    def of(cls, comparisons: Iterable[Compared], called: Iterable[Called] = ()) -> "SingleJudgements":
        """Of each ordered pair the preferred response is desirable and the other is not (as KTO is given pairs)."""
        told, left_out = _telling(comparisons)
        units = [_unpaired_unit(prompt, pairs) for prompt, pairs in told]
        kept = list(called)
        full = [c for c in kept if any(c.response.included)]
        units += [UnpairedUnit(c.prompt_ids, (c.response,), ((0, c.desirable),)) for c in full]
        return cls(units, LeftOut(left_out.ties, left_out.identical, left_out.blank + len(kept) - len(full)))

    @property
    def desirable(self) -> int:
        return sum(good for unit in self.units for _, good in unit.calls)

    @property
    def undesirable(self) -> int:
        return sum(not good for unit in self.units for _, good in unit.calls)

    def __str__(self) -> str:
        rows = sum(len(unit.responses) for unit in self.units)
        return (
            f"{self.desirable:,} desirable and {self.undesirable:,} undesirable judgements of {rows:,} responses to "
            f"{len(self.units):,} prompts; {self.left_out}"
        )


Told = tuple[Ids, list[tuple[Response, Response]]]
"""A prompt and its ordered pairs of different responses."""


def _telling(comparisons: Iterable[Compared]) -> tuple[list[Told], LeftOut]:
    """The pairs that teach, prompt by prompt; one comparison after another of the same responses is one prompt."""
    together: dict[tuple[Ids, tuple[Response, ...]], list[tuple[Response, Response]]] = {}
    ties = identical = blank = 0
    for comparison in comparisons:
        strict = comparison.strict
        different = [(a, b) for a, b in strict if a.token_ids != b.token_ids]
        full = [(a, b) for a, b in different if any(a.included) and any(b.included)]
        ties += len(comparison.preferences) - len(strict)
        identical += len(strict) - len(different)
        blank += len(different) - len(full)
        if full:
            together.setdefault((comparison.prompt_ids, comparison.responses), []).extend(full)
    return [(prompt, pairs) for (prompt, _), pairs in together.items()], LeftOut(ties, identical, blank)


def _pair_unit(prompt_ids: Ids, pairs: Sequence[tuple[Response, Response]]) -> PairUnit:
    places = _places(pairs)
    return PairUnit(prompt_ids, tuple(places), tuple((places[a], places[b]) for a, b in pairs))


def _unpaired_unit(prompt_ids: Ids, pairs: Sequence[tuple[Response, Response]]) -> UnpairedUnit:
    places = _places(pairs)
    calls = [call for a, b in pairs for call in ((places[a], True), (places[b], False))]
    return UnpairedUnit(prompt_ids, tuple(places), tuple(calls))


def _places(pairs: Sequence[tuple[Response, Response]]) -> dict[Response, int]:
    """Every distinct response once, with its index."""
    return {response: i for i, response in enumerate(dict.fromkeys(side for pair in pairs for side in pair))}


# ------------------------------------------------------------------------------------------------ rows


def rows_of(units: Iterable[Unit]) -> list[Row]:
    """Prompt and response of every row, in the order of units."""
    return [(unit.prompt_ids, response) for unit in units for response in unit.responses]


def block(rows: Sequence[Row]) -> Sequences:
    """These rows, padded into a block."""
    return Sequences.of(
        [prompt for prompt, _ in rows], [r.token_ids for _, r in rows], included=[r.included for _, r in rows]
    )


def mismatched(units: Sequence[Unit], *, seed: int) -> list[Row]:
    """The prompt of every row with a response to another prompt: the next such row in a random circle of all.

    The circle is drawn once, so that the reference reads these rows once, however many epochs follow.

    Raises:
        DataError: all responses are to one prompt.
    """
    rows = rows_of(units)
    order = permutation(len(rows), "mismatched", seed, 0).tolist()
    if len({prompt for prompt, _ in rows}) < 2:
        raise DataError(
            "KTO's baseline needs responses to at least two different prompts",
            got=f"{len(rows)} responses to one prompt",
            why="it is the policy's log-ratio on a prompt with a response to another one",
            fix="train on more prompts, or take an algorithm without it: bco, or dpo on comparisons",
        )
    mates = [0] * len(rows)
    following = order[0]
    for i in [*reversed(order), *reversed(order)]:  # twice round, since the first row's mate may lie behind it
        mates[i] = following if rows[following][0] != rows[i][0] else mates[following]
        following = i
    return [(prompt, rows[mates[i]][1]) for i, (prompt, _) in enumerate(rows)]


# ------------------------------------------------------------------------------------------------ batches


class JudgedBatches(Generic[B]):
    """Units as batches; implements `BatchSource`.

    Args:
        units: at least one.
        collate: the batch of the named units, by index.
        batch_size: units per optimiser step, over all ranks: prompts with all their judgements.
        epochs, seed, shard: as in `TokenBatches`.

    Raises:
        DataError: there is no unit, or some batch has fewer units than there are ranks.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        collate: Callable[[list[int]], B],
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        digest = digest_of(part for unit in units for part in _parts(unit))
        order = Order(len(units), batch_size, epochs, seed, *shard)
        self._walk = Walk(order, digest, lambda epoch, rows: collate(rows.tolist()))

    def __len__(self) -> int:
        return len(self._walk.order)

    def __iter__(self) -> Iterator[tuple[int, B]]:
        return iter(self._walk)

    def state_dict(self) -> State:
        return self._walk.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._walk.load_state_dict(state)


def _parts(unit: Unit) -> Iterator[Sequence[int]]:
    yield unit.prompt_ids
    for response in unit.responses:
        yield response.token_ids
        yield response.included
    yield from unit.judgements


def pair_batch(units: Sequence[PairUnit], ref_logprobs_B: Tensor | None = None) -> PairBatch:
    """These units as one batch; with the reference's summed log-probability of every row where it is given, nats."""
    counts_G, starts = _counts(units)
    pairs = [(s + a, s + b) for unit, s in zip(units, starts, strict=True) for a, b in unit.pairs]
    indices = (counts_G, torch.tensor([a for a, _ in pairs]), torch.tensor([b for _, b in pairs]))
    sequences = block(rows_of(units))
    if ref_logprobs_B is None:
        return PairBatch(sequences, *indices)
    return ReferencedPairBatch(sequences, *indices, ref_logprobs_B)


def unpaired_batch(units: Sequence[UnpairedUnit], ref_logprobs_B: Tensor) -> UnpairedBatch:
    """The same of units that were judged response by response."""
    counts_G, starts = _counts(units)
    calls = [(s + i, good) for unit, s in zip(units, starts, strict=True) for i, good in unit.calls]
    row_J, desirable_J = torch.tensor([i for i, _ in calls]), torch.tensor([good for _, good in calls])
    return UnpairedBatch(block(rows_of(units)), counts_G, row_J, desirable_J, ref_logprobs_B)


def mismatched_batch(
    units: Sequence[UnpairedUnit], ref_logprobs_B: Tensor, others: Sequence[Row], others_ref_logprobs_B: Tensor
) -> MismatchedBatch:
    """The same with every row's prompt before a response to another prompt, and what the reference says of that."""
    b = unpaired_batch(units, ref_logprobs_B)
    parts = (b.sequences, b.counts_G, b.row_J, b.desirable_J, b.ref_logprobs_B)
    return MismatchedBatch(*parts, block(others), others_ref_logprobs_B)


def _counts(units: Sequence[Unit]) -> tuple[Tensor, list[int]]:
    counts_G = torch.tensor([len(unit.responses) for unit in units])
    return counts_G, (counts_G.cumsum(0) - counts_G).tolist()


def row_ranges(units: Sequence[Unit]) -> list[range]:
    """Which rows of all belong to each unit."""
    counts_G, starts = _counts(units)
    return [range(s, s + n) for s, n in zip(starts, counts_G.tolist(), strict=True)]
