"""Preallocated keys and values, one row per slot, and attention over them: whole prompts, or one token per slot."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

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
        weight, dim = decoder.weight, decoder.head_dim
        # Zeros, not garbage: masked places are multiplied by a weight of 0, and 0 times nan is nan.
        return cls(weight.new_zeros((*shape, dim, length)), weight.new_zeros((*shape, length, dim)))

    @property
    def slots(self) -> int:
        return self.keys.shape[1]

    @property
    def length(self) -> int:
        return self.keys.shape[4]

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
    rows = len(token_ids_B)
    every = torch.arange(max(rows, seen), device=token_ids_B.device)
    row = every[:rows]
    beyond = torch.zeros((rows, 1, seen), dtype=decoder.weight.dtype, device=token_ids_B.device)
    beyond.masked_fill_((every[:seen] > positions_B[:, None])[:, None], float("-inf"))
    angles = decoder.angles(positions_B)
    x = decoder.embed(token_ids_B, positions_B)
    group = decoder.heads // decoder.kv_heads
    for index, block in enumerate(decoder.blocks):
        normed = block.normed(x)
        keys, values = block.kv(normed, angles)
        cache.keys[index][row, :, :, positions_B] = keys
        cache.values[index][row, :, positions_B] = values
        q = (block.q(normed, angles) * block.scale).view(-1, group, decoder.head_dim)
        scores = torch.bmm(q, cache.keys[index, :rows, :, :, :seen].flatten(0, 1)).view(rows, decoder.heads, seen)
        weights = torch.softmax(scores.add_(beyond), dim=-1).view(-1, group, seen)
        attended = torch.bmm(weights, cache.values[index, :rows, :, :seen].flatten(0, 1))
        x = block.finish(x, attended.view(rows, decoder.heads, decoder.head_dim))
    return decoder.logits(x)
