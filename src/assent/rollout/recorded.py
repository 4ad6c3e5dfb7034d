"""The decode step as a recording: one launch in place of one for every operation.

On a GPU a step of a small model is some hundred operations of a few microseconds each, and the processor that launches
them is slower than they are. CUDA can record them once and play them again, on the same memory. So the step's inputs
and its logits have fixed places here, the cache has one already, and the shapes, which must not change either, are
rounded up: slots to a power of two, what is read of the cache to `SEEN` tokens. Slots beyond those in use are idle, and
what is computed for them is thrown away; their next sequence writes every place before it reads it.

Every recording is compared with the plain step when it is made. Where recording fails, or differs, it is given up with
a warning, and every operation is launched by itself.

Never run on a GPU yet: none was at hand. The bookkeeping is tested on a CPU (tests/rollout/test_recorded.py).
"""

import logging
import os
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from assent.rollout.cache import Cache, step
from assent.rollout.decoders import Decoder

logger = logging.getLogger(__name__)

SEEN = 256
"""Tokens of the cache by which recordings differ; attention reads up to this many for nothing."""

GAP = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 5e-1}
"""Largest difference of a logit from the plain step that is put down to another choice of kernel."""


class Recorder(Protocol):
    """Records what a function launches."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """What plays it again: the same operations on the same memory."""
        ...


class CudaRecorder:
    """CUDA graphs, all of which share one pool of memory, since none plays while another does."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # as CUDA asks: libraries choose their kernels and work space before
            run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            run()
        return graph.replay


def recorder_for(device: torch.device) -> Recorder | None:
    """CUDA's own on a GPU, unless `ASSENT_GRAPHS=0` is in the environment; none elsewhere."""
    return CudaRecorder() if device.type == "cuda" and os.environ.get("ASSENT_GRAPHS", "1") != "0" else None


class RecordedStep:
    """`cache.step` on one decoder and one cache, played from recordings.

    Args:
        decoder, cache: whose memory stays where it is as long as this is used.
        recorder: makes the recordings.
    """

    def __init__(self, decoder: Decoder, cache: Cache, recorder: Recorder) -> None:
        decoder.reserve(cache.length)  # tables that the step reads must not grow into other memory
        self._decoder, self._cache, self._recorder = decoder, cache, recorder
        like = decoder.head.weight
        self._token_ids, self._positions = torch.zeros((2, cache.slots), dtype=torch.int64, device=like.device)
        self._logits = like.new_zeros((cache.slots, like.shape[0]))
        self._played: dict[tuple[int, int], Callable[[], None]] = {}
        self.given_up = ""

    @property
    def recordings(self) -> int:
        return len(self._played)

    def __call__(self, token_ids_B: Tensor, positions_B: Tensor, seen: int) -> Tensor:
        """As `cache.step`; the logits are overwritten by the next call."""
        if self.given_up:
            return step(self._decoder, self._cache, token_ids_B, positions_B, seen)
        rows = len(token_ids_B)
        self._token_ids[:rows].copy_(token_ids_B)
        self._positions[:rows].copy_(positions_B)
        shape = min(self._cache.slots, 1 << (rows - 1).bit_length()), min(self._cache.length, -(-seen // SEEN) * SEEN)
        play = self._played.get(shape)
        if play is None:
            return self._first(shape, rows)
        play()
        return self._logits[:rows]

    def _first(self, shape: tuple[int, int], rows: int) -> Tensor:
        """Record a shape, and hold what is played against the plain step, whose logits are returned."""
        slots, seen = shape

        def run() -> None:
            token_ids, positions = self._token_ids[:slots], self._positions[:slots]
            self._logits[:slots].copy_(step(self._decoder, self._cache, token_ids, positions, seen))

        run()
        expected = self._logits[:rows].clone()
        try:
            play = self._recorder.record(run)
            self._logits.zero_()
            play()
            gap = float((self._logits[:rows] - expected).abs().max())
        except RuntimeError as error:
            return self._give_up(str(error).splitlines()[0], expected)
        if not gap <= GAP.get(expected.dtype, 0.0):
            return self._give_up(f"what it played differs by {gap:.2g} from the step itself", expected)
        self._played[shape] = play
        return expected

    def _give_up(self, reason: str, expected: Tensor) -> Tensor:
        self.given_up = reason
        self._played.clear()
        logger.warning("native engine launches every operation by itself, since recording a step failed: %s", reason)
        return expected
