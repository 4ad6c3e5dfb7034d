"""What an engine has drawn so far: the tokens, when a response ends, and what else is recorded of each."""

from array import array
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from assent.rollout.draw import Choice, Draw
from assent.rollout.requests import not_finite
from assent.types import Kept, Sample, Sampling, StopStrings, listed

BYTES_OF_A_LETTER = 4
"""A token is a byte at least, so that so many tokens hold the last letter of a text."""
BROKEN = "\N{REPLACEMENT CHARACTER}"
MARGIN = 8
"""Tokens before those that may complete a string: decoders treat the first of a text unlike the others."""


class Outputs:
    """A line of `max_new_tokens + 1` cells for each request; the last one is never part of a response.

    Args:
        count: requests.
    """

    def __init__(self, count: int, sampling: Sampling, draw: Draw) -> None:
        device = draw.is_stop_V.device
        self.line = sampling.max_new_tokens + 1
        self._count, self._draw, self._stop = count, draw, sampling.stop
        cells = count * self.line
        self.tokens = torch.zeros(cells, dtype=torch.int64, device=device)
        self.logprobs = torch.zeros(cells, dtype=torch.float32, device=device)
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self._closed = torch.zeros(cells, dtype=torch.bool, device=device)
        if self._stop is not None:
            self._may_close_V = closing_tokens(self._stop, len(draw.is_stop_V)).to(device)
            self._window = MARGIN + BYTES_OF_A_LETTER * max(map(len, self._stop.strings))

    def take(self, cell_B: Tensor, drawn: Choice) -> Tensor:
        """Write these tokens into these cells; bool [B], which of them end their response."""
        self.tokens[cell_B] = drawn.tokens_B
        self.logprobs[cell_B] = drawn.logprobs_B.float()
        if drawn.kept_BV is not None:
            _, ids = drawn.kept_BV.nonzero(as_tuple=True)
            self._kept.append((cell_B.clone().cpu(), drawn.kept_BV.sum(1).cpu(), ids.int().cpu()))
        ends_B = self._draw.is_stop_V[drawn.tokens_B]
        return ends_B if self._stop is None else ends_B | self._closing(cell_B, drawn.tokens_B)

    def _closing(self, cell_B: Tensor, tokens_B: Tensor) -> Tensor:
        """Which of the responses have a stop string now. Only those are read whose last token may complete one."""
        assert self._stop is not None
        closing_B = torch.zeros_like(tokens_B, dtype=torch.bool)
        for row in self._may_close_V[tokens_B].nonzero()[:, 0].tolist():
            cell = int(cell_B[row])
            start = max(cell // self.line * self.line, cell + 1 - self._window)
            text = self._stop.decode(self.tokens[start : cell + 1].tolist())
            closing_B[row] = any(s in text for s in self._stop.strings)
        self._closed[cell_B] = closing_B
        return closing_B

    def samples(self) -> list[Sample]:
        """Each line up to the first token that ends it, or whole.

        Raises:
            NonFiniteError: a log-probability within a response is nan or infinite.
        """
        tokens_RT, logprobs_RT, closed_RT = (
            x.view(self._count, self.line)[:, :-1] for x in (self.tokens, self.logprobs, self._closed)
        )
        ends_RT = self._draw.is_stop_V[tokens_RT] | closed_RT
        ended = ends_RT.any(1)
        lengths = torch.where(ended, ends_RT.int().argmax(1) + 1, tokens_RT.shape[1])
        within_RT = torch.arange(tokens_RT.shape[1], device=lengths.device) < lengths[:, None]
        if not bool(torch.where(within_RT, logprobs_RT, 0.0).isfinite().all()):
            raise not_finite(int((within_RT & ~logprobs_RT.isfinite()).any(1).nonzero()[0]))
        kept = self._kept_of(lengths.tolist()) if self._kept else [None] * self._count
        rows = zip(tokens_RT.tolist(), logprobs_RT.tolist(), lengths.tolist(), ended.tolist(), kept, strict=True)
        return [Sample(tuple(ids[:n]), tuple(values[:n]), end, k) for ids, values, n, end, k in rows]

    def _kept_of(self, lengths: Sequence[int]) -> list[Kept | None]:
        """Line by line, from what was recorded step by step."""
        cell_C, count_C, ids_M = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
        start_C = count_C.cumsum(0) - count_C
        # A slot that stands still writes its cell again and again, but never one of a response.
        at = torch.zeros(self._count * self.line, dtype=torch.int64).scatter_(0, cell_C, torch.arange(len(cell_C)))
        found: list[Kept | None] = []
        for row, length in enumerate(lengths):
            cells = at[row * self.line : row * self.line + length]
            ids = ids_M[listed(start_C[cells], count_C[cells])]
            found.append(Kept(array("i", count_C[cells].tolist()), array("i", ids.tolist())))
        return found


@lru_cache(maxsize=8)
def closing_tokens(stop: StopStrings, vocabulary: int) -> Tensor:
    """bool [V]: tokens that may complete one of the strings, since their text has the last letter of one, or part of a
    letter. Whose text cannot be told is among them."""
    last = {s[-1] for s in stop.strings}
    # After a token with a text of its own, since decoders strip the blank of the one that comes first.
    first = next((token for token in range(vocabulary) if stop.decode([token]).isalnum()), 0)
    texts = [_text_after(first, stop, token) for token in range(vocabulary)]
    return torch.tensor([text is None or any(letter in last or letter == BROKEN for letter in text) for text in texts])


def _text_after(first: int, stop: StopStrings, token: int) -> str | None:
    before, both = stop.decode([first]), stop.decode([first, token])
    return both[len(before) :] if both.startswith(before) else None
