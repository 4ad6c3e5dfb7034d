"""Continuous batching: slots that requests move through, and the order in which they come."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from assent.rollout.cache import Cache, prefill, step
from assent.rollout.decoders import Decoder
from assent.rollout.draw import Draw
from assent.rollout.outputs import Outputs
from assent.rollout.randomness import uniforms
from assent.types import Request, Sampling

# Idle slots are refilled, or moved out of the way, once this share of them has ended: below it the copying costs more.
IDLE_SHARE = 1 / 16

PAD = 8
"""Prompts are read in lengths of a multiple of it."""


Read = Callable[[Tensor, Tensor, int], Tensor]
"""`cache.step` on one decoder and cache."""


@dataclass(frozen=True)
class _Waiting:
    """A request whose prompt is row `row` of a prefilled cache."""

    index: int
    cache: Cache | None
    row: int


class Queue:
    """Requests in the order of service: longest prompt first, samples of one prompt together and prefilled once.

    Longest first keeps the lengths in the slots similar (attention reads up to the longest) and leaves the short ones,
    which cost least, for the thinning end.

    A prompt is padded to a length that follows from its own, so that the sums over its keys are cut into the same
    pieces whatever is read beside it.

    Args:
        prefill_tokens: prompt tokens read at once, padding included; a longer prompt is read alone.
        positions: that the model has; None if they never end.
    """

    def __init__(
        self, decoder: Decoder, requests: Sequence[Request], prefill_tokens: int, positions: int | None
    ) -> None:
        self._decoder, self._prefill_tokens, self._positions = decoder, prefill_tokens, positions
        self._requests = requests
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].token_ids), requests[i].token_ids))
        self._groups: deque[list[int]] = deque()
        for index in order:
            if self._groups and requests[self._groups[-1][0]].token_ids == requests[index].token_ids:
                self._groups[-1].append(index)
            else:
                self._groups.append([index])
        self._ready: deque[_Waiting] = deque()

    def __bool__(self) -> bool:
        return bool(self._ready or self._groups)

    def take(self, count: int) -> list[_Waiting]:
        """Up to `count` requests that share one prefilled cache."""
        if not self._ready:
            self._prefill()
        taken = [self._ready.popleft()]
        while self._ready and len(taken) < count and self._ready[0].cache is taken[0].cache:
            taken.append(self._ready.popleft())
        return taken

    def _prefill(self) -> None:
        """All but the last token of the next prompts; the last is the first input of the decode step."""
        length = self._padded_length(self._groups[0])
        chunk = [self._groups.popleft()]
        while self._groups and (len(chunk) + 1) * length <= self._prefill_tokens:
            if self._padded_length(self._groups[0]) != length:
                break
            chunk.append(self._groups.popleft())
        cache = None
        if length:
            prompts = [self._requests[group[0]].token_ids[:-1] for group in chunk]
            padded = [[*ids, *([0] * (length - len(ids)))] for ids in prompts]
            cache = prefill(self._decoder, torch.tensor(padded, device=self._decoder.head.weight.device))
        self._ready.extend(_Waiting(i, cache, row) for row, group in enumerate(chunk) for i in group)

    def _padded_length(self, group: list[int]) -> int:
        length = len(self._requests[group[0]].token_ids) - 1
        padded = length + -length % PAD
        return padded if self._positions is None else min(padded, self._positions)


class Slots:
    """The requests in flight. Slot s holds one sequence: its last token, where that stands, where its next goes.

    Every request owns a line of `max_new_tokens + 1` cells in the outputs. A slot that has ended stands still with its
    cursor on the cell after its last token, where what it still draws does no harm, until it is refilled or dropped.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: Cache,
        requests: Sequence[Request],
        sampling: Sampling,
        draw: Draw,
        read: Read | None = None,
    ) -> None:
        device = decoder.head.weight.device
        self._decoder, self._cache, self._requests, self._draw = decoder, cache, requests, draw
        self._budget, self.outputs = sampling.max_new_tokens, Outputs(len(requests), sampling, draw)
        self._line = self.outputs.line
        self._minimum = sampling.min_new_tokens
        self._read = read or partial(step, decoder, cache)
        self._uniforms = uniforms([r.seed for r in requests], self._line).to(device).view(-1)
        # Rows of the state: last token, its position, cursor, last cell of the line, first cell where it may end.
        self._state = torch.zeros((5, cache.slots), dtype=torch.int64, device=device)
        self._going = torch.zeros(cache.slots, dtype=torch.int64, device=device)
        self._reach = [0] * cache.slots
        self._steps = 0
        self.used = 0

    @property
    def capacity(self) -> int:
        return self._cache.slots

    def count_going(self) -> int:
        """Slots in use that have not ended; waits for the device."""
        return int(self._going[: self.used].sum())

    def idle(self) -> list[int]:
        """Slots that a request can be put into, in use and ended, or never used."""
        ended = (self._going[: self.used] == 0).nonzero()[:, 0].tolist()
        return ended + list(range(self.used, self.capacity))

    def put(self, slots: Sequence[int], waiting: Sequence[_Waiting]) -> None:
        """Start requests that share one prefilled cache in the given slots."""
        device = self._going.device
        columns = []
        for slot, request in zip(slots, waiting, strict=True):
            prompt, start = self._requests[request.index].token_ids, request.index * self._line
            columns.append((prompt[-1], len(prompt) - 1, start, start + self._budget - 1, start + self._minimum))
            self._reach[slot] = len(prompt) - self._steps
        where = torch.tensor(slots, device=device)
        self._state[:, where] = torch.tensor(columns, device=device).T
        self._going[where] = 1
        shared = waiting[0].cache
        if shared is not None:
            self._cache.take(where, shared, torch.tensor([w.row for w in waiting], device=device))
        self.used = max(self.used, 1 + max(slots))

    def compact(self) -> None:
        """Move the going slots to the front, so that the ended ones cost nothing."""
        going = self._going[: self.used].tolist()
        kept = sum(going)
        holes = [s for s in range(kept) if not going[s]]
        movers = [s for s in range(kept, self.used) if going[s]]
        if holes:
            to, source = (torch.tensor(x, device=self._going.device) for x in (holes, movers))
            self._cache.move(to, source, self._seen())
            self._state[:, to] = self._state[:, source]
            self._going[to] = 1
            for hole, mover in zip(holes, movers, strict=True):
                self._reach[hole] = self._reach[mover]
        self._going[kept : self.used] = 0
        self.used = kept

    def _seen(self) -> int:
        """1 + the largest position of any going slot, known without asking the device."""
        return min(self._cache.length, max(self._reach[: self.used]) + self._steps)

    def advance(self) -> None:
        """One token for every slot in use."""
        last, position, cursor, end, minimum = self._state[:, : self.used].unbind(0)
        going = self._going[: self.used]
        logits = self._read(last, position, self._seen())
        too_early = cursor < minimum if self._minimum else None
        drawn = self._draw(logits, self._uniforms[cursor], too_early)
        done = self.outputs.take(cursor, drawn).logical_or_(cursor == end)
        last.copy_(drawn.tokens_B)
        position.add_(going)
        cursor.add_(going)
        going.masked_fill_(done, 0)
        self._steps += 1


def serve(slots: Slots, queue: Queue, *, look_every: int) -> None:
    """Run every request of the queue to its end.

    Args:
        look_every: steps between two looks at which slots have ended; each look waits for the device.
    """
    going = 0
    while queue or going:
        threshold = max(1, int(slots.used * IDLE_SHARE))
        if queue and slots.capacity - going >= threshold:
            idle = slots.idle()
            while queue and idle:
                taken = queue.take(len(idle))
                slots.put(idle[: len(taken)], taken)
                idle = idle[len(taken) :]
        elif slots.used - going >= threshold:
            slots.compact()
        for _ in range(look_every):
            slots.advance()
        going = slots.count_going()
