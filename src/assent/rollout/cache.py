"""Preallocated keys and values, one row per slot, and attention over them: whole prompts, or one token per slot."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from assent.kernels.attend import attend as compiled_attend
from assent.rollout.decoders import Decoder


@dataclass(frozen=True)
class Cache:
    """Keys and values of `slots` sequences, up to `length` tokens each. What lies beyond a sequence means nothing.

    Args:
        keys: [layers, slots, kv_heads, head_dim, length]; transposed, which is how one query per row reads it fastest.
        values: [layers, slots, kv_heads, length, head_dim].
    """

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, decoder: Decoder, slots: int, length: int) -> "Cache":
        shape = (len(decoder.blocks), slots, decoder.kv_heads)
        weight, dim = decoder.head.weight, decoder.head_dim
        # Zeros, not garbage: masked places are multiplied by a weight of 0, and 0 times nan is nan.
        return cls(weight.new_zeros((*shape, dim, length)), weight.new_zeros((*shape, length, dim)))

    @property
    def slots(self) -> int:
        return self.keys.shape[1]

    @property
    def length(self) -> int:
        return self.keys.shape[4]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, of all slots."""
        return self.keys[index], self.values[index]

    def take(self, slots: Tensor, other: "Cache", rows: Tensor) -> None:
        """Copy the other cache's rows into these slots."""
        length = other.length
        self.keys[:, slots, :, :, :length] = other.keys[:, rows]
        self.values[:, slots, :, :length] = other.values[:, rows]

    def move(self, to: Tensor, source: Tensor, length: int) -> None:
        """Copy the first `length` tokens of some slots into others."""
        self.keys[:, to, :, :, :length] = self.keys[:, source, :, :, :length]
        self.values[:, to, :, :length] = self.values[:, source, :, :length]


def prefill(decoder: Decoder, token_ids_BL: Tensor) -> Cache:
    """Keys and values of right-padded token rows. Causal, so that padding on the right is seen by no real token.

    The last block's queries and feed-forward are not computed: nothing reads them.
    """
    rows, length = token_ids_BL.shape
    cache = Cache.empty(decoder, rows, length)
    positions = torch.arange(length, device=token_ids_BL.device)
    angles = decoder.angles(positions)
    x = decoder.embed(token_ids_BL, positions)
    grouped = decoder.heads != decoder.kv_heads
    for index, block in enumerate(decoder.blocks):
        normed = block.normed(x)
        keys, values = block.kv(normed, angles)
        cache.keys[index].copy_(keys.permute(0, 2, 3, 1))
        cache.values[index].copy_(values.transpose(1, 2))
        if index + 1 < len(decoder.blocks):
            q, k, v = (y.transpose(1, 2) for y in (block.q(normed, angles), keys, values))
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=block.scale, enable_gqa=grouped)
            x = block.finish(x, attended.transpose(1, 2))
    return cache


def step(decoder: Decoder, cache: Cache, token_ids_B: Tensor, positions_B: Tensor, seen: int) -> Tensor:
    """Feed one token to each of the first B slots; logits of the next, [B, vocabulary].

    Args:
        token_ids_B: int64, the token that stands at `positions_B`.
        positions_B: int64, where its keys and values go; every earlier place of the slot is read.
        seen: at least 1 + the largest position.
    """
    attend = compiled_attend() if cache.keys.dtype == torch.float32 and cache.keys.device.type == "cpu" else None
    read = _Read.of(positions_B, seen, cache) if attend is None else None
    angles = decoder.angles(positions_B)
    x = decoder.embed(token_ids_B, positions_B)
    for index, block in enumerate(decoder.blocks):
        normed = block.normed(x)
        q, (keys, values), layer = block.q(normed, angles), block.kv(normed, angles), cache.layer(index)
        if attend is not None:
            attended = attend(q, keys, values, layer, positions_B, block.scale)
        else:
            assert read is not None
            attended = read(q, keys, values, layer, block.scale)
        x = block.finish(x, attended)
    return decoder.logits(x)


@dataclass(frozen=True)
class _Read:
    """Attention of one new token per slot in torch operations, all slots read to the longest.

    Args:
        row_B: the slots, 0 to B - 1.
        positions_B: where the new tokens stand.
        beyond: -inf at the places of a slot after its new token, [B, 1, seen].
    """

    row_B: Tensor
    positions_B: Tensor
    beyond: Tensor

    @classmethod
    def of(cls, positions_B: Tensor, seen: int, cache: Cache) -> "_Read":
        rows = len(positions_B)
        every = torch.arange(max(rows, seen), device=positions_B.device)
        beyond = cache.keys.new_zeros((rows, 1, seen))
        beyond.masked_fill_((every[:seen] > positions_B[:, None])[:, None], float("-inf"))
        return cls(every[:rows], positions_B, beyond)

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, layer: tuple[Tensor, Tensor], scale: float) -> Tensor:
        """Write the new keys and values, and attend; `[B, heads, head_dim]`."""
        kept_keys, kept_values = layer
        kept_keys[self.row_B, :, :, self.positions_B] = keys
        kept_values[self.row_B, :, self.positions_B] = values
        (rows, heads, dim), seen = q.shape, self.beyond.shape[-1]
        queries = (q * scale).view(rows * kept_keys.shape[1], -1, dim)
        scores = torch.bmm(queries, kept_keys[:rows, :, :, :seen].flatten(0, 1)).view(rows, heads, seen)
        weights = torch.softmax(scores.add_(self.beyond), dim=-1).view(len(queries), -1, seen)
        return torch.bmm(weights, kept_values[:rows, :, :seen].flatten(0, 1)).view(rows, heads, dim)
