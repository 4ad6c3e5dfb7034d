"""The attention of a decode step in C; torch operations where it cannot be compiled.

Between the matrix products of a small model on a CPU, a decode step is bound by the calls around them: eight torch
operations a layer, all of which read to the longest slot. `attend.c` is one call that reads each slot to its own end.
It is held against torch operations when it is loaded, and the engine that uses it against the model's own forward.
"""

import ctypes
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assent.kernels import build

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("attend.c")
GAP = 1e-5
"""Largest difference from torch that is put down to rounding, for values near 1."""


@dataclass(frozen=True)
class Attend:
    """The compiled function."""

    function: Any

    def __call__(
        self, q: Tensor, keys: Tensor, values: Tensor, layer: tuple[Tensor, Tensor], positions_B: Tensor, scale: float
    ) -> Tensor:
        """Write the new keys and values at their positions, and attend to all up to there; `[B, heads, head_dim]`.

        Args:
            q: float32 [B, heads, head_dim].
            keys, values: float32 [B, kv_heads, head_dim], of the new tokens.
            layer: cached keys [slots, kv_heads, head_dim, length] and values [slots, kv_heads, length, head_dim].
            positions_B: int64, where the new tokens stand.
        """
        q, keys, values = (x if x[0].is_contiguous() else x.contiguous() for x in (q, keys, values))
        rows, heads, dim = q.shape
        kept_keys, kept_values = layer
        kv_heads, length, threads = kept_keys.shape[1], kept_keys.shape[3], torch.get_num_threads()
        out, scratch = q.new_empty((rows, heads, dim)), q.new_empty(threads * length)  # whatever torch's default type
        tensors = (q, keys, values, kept_keys, kept_values, positions_B, out, scratch)
        strides = (q.stride(0), keys.stride(0), values.stride(0))
        self.function(*(x.data_ptr() for x in tensors), *strides, rows, heads, kv_heads, dim, length, scale, threads)
        return out


@cache
def attend() -> Attend | None:
    """The compiled function, checked; None where there is no compiler, or it fails, or its figures differ."""
    try:
        function = Attend(_function(build.load(SOURCE)))
        gap = _gap(function)
    except build.FAILURES as error:
        logger.info("decoding keeps to torch operations, since attend.c could not be compiled: %s", error)
        return None
    if not gap < GAP:
        logger.warning("decoding keeps to torch operations: attend.c as compiled here differs from them by %.2g", gap)
        return None
    return function


def _function(library: ctypes.CDLL) -> Any:
    function = library.attend
    function.restype = None
    function.argtypes = [ctypes.c_void_p] * 8 + [ctypes.c_int64] * 8 + [ctypes.c_float, ctypes.c_int32]
    return function


def _gap(function: Attend) -> float:
    """Largest difference from torch operations, in what is attended and in what is written."""
    generator = torch.Generator().manual_seed(0)
    rows, heads, kv_heads, dim, length = 5, 6, 2, 20, 37
    q, k, v = (torch.randn(rows, n, dim, generator=generator) for n in (heads, kv_heads, kv_heads))
    keys, values = (torch.randn(rows + 1, kv_heads, *s, generator=generator) for s in ((dim, length), (length, dim)))
    positions = torch.tensor([0, 7, 8, 30, length - 1])
    expected_keys, expected_values, each = keys.clone(), values.clone(), torch.arange(rows)
    expected_keys[each, :, :, positions], expected_values[each, :, positions] = k, v
    out = function(q, k, v, (keys, values), positions, dim**-0.5)
    scores = torch.einsum("rgxd,rgdt->rgxt", q.view(rows, kv_heads, -1, dim), expected_keys[:rows]) * dim**-0.5
    beyond = torch.arange(length) > positions[:, None]
    weights = scores.masked_fill(beyond[:, None, None], float("-inf")).softmax(-1)
    expected = torch.einsum("rgxt,rgtd->rgxd", weights, expected_values[:rows]).reshape(rows, heads, dim)
    return max(
        float((a - b).abs().max()) for a, b in ((out, expected), (keys, expected_keys), (values, expected_values))
    )
