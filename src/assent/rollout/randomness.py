"""One random stream per request, by counting: number t of a stream is a hash of (seed, t), so no generator is kept."""

import hashlib
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

_GOLDEN = numpy.uint64(0x9E3779B97F4A7C15)
_BITS_64 = (1 << 64) - 1
# Keeps u * total below total in float32, so that an inverse-CDF search always lands on a token of positive probability.
_BELOW_ONE = 1.0 - 2.0**-22


def _mix(z: numpy.ndarray) -> numpy.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return z ^ (z >> numpy.uint64(31))


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """The first `count` numbers of each stream, float32 [len(seeds), count] in [0, 1 - 2**-22), 24 bits each.

    The seed is hashed before the counter is added, so that neighbouring seeds do not give shifted copies of one stream.
    """
    start = _mix(numpy.array([s & _BITS_64 for s in seeds], dtype=numpy.uint64) + _GOLDEN)
    counter = numpy.arange(1, count + 1, dtype=numpy.uint64) * _GOLDEN
    bits = _mix(start[:, None] + counter[None, :]) >> numpy.uint64(40)
    return torch.from_numpy(bits.astype(numpy.float32) * numpy.float32(2.0**-24 * _BELOW_ONE))


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and their order; the same on every machine and in every session."""
    # Each part with its type and length, so that no two lists of parts run together into one text.
    text = "".join(f"{type(p).__name__}{len(str(p))}:{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
