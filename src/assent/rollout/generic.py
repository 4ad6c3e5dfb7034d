"""The path of any Hugging Face causal model: batches of equally long prompts, so that nothing is padded.

With the model's own cache, or, where that cannot be used, reading every sequence anew for each of its tokens.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from assent.errors import AssentError
from assent.rollout.agreement import require_agreement
from assent.rollout.decoders import Model
from assent.rollout.draw import Draw
from assent.rollout.outputs import Outputs
from assent.rollout.randomness import uniforms
from assent.rollout.requests import positions_of, vocabulary_of
from assent.types import Request, Sampling

PROBED = 12
"""Tokens of the sequences that a cache is tried on; half of them are prompt."""


class Reading(Protocol):
    """Equally long sequences that grow by a token at a time."""

    def start(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """Logits of the first response token of each, [B, V]."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these alone."""
        ...

    def read(self, tokens_B: Tensor) -> Tensor:
        """Logits of what follows, [B, V]."""
        ...


class _Cached:
    """By the model's own cache; every distinct prompt is read once."""

    def __init__(self, model: Model) -> None:
        self._model, self._device = model, next(model.parameters()).device

    def start(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        distinct = list(dict.fromkeys(prompts))
        row_of = {prompt: row for row, prompt in enumerate(distinct)}
        rows = torch.tensor([row_of[prompt] for prompt in prompts], device=self._device)
        ids = torch.tensor(distinct, device=self._device)
        self._cache = DynamicCache(config=self._model.config)
        out = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        if len(distinct) < len(prompts):
            self.keep(rows)
        logits: Tensor = out.logits[:, -1][rows]
        return logits

    def keep(self, rows: Tensor) -> None:
        self._cache.batch_select_indices(rows)

    def read(self, tokens_B: Tensor) -> Tensor:
        logits: Tensor = self._model(tokens_B[:, None], past_key_values=self._cache, use_cache=True).logits[:, -1]
        return logits


class _Whole:
    """By reading all of each sequence for every token: slow, and right for every model."""

    def __init__(self, model: Model) -> None:
        self._model, self._device = model, next(model.parameters()).device

    def start(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        self._ids_BL = torch.tensor(prompts, device=self._device)
        return self._logits()

    def keep(self, rows: Tensor) -> None:
        self._ids_BL = self._ids_BL[rows]

    def read(self, tokens_B: Tensor) -> Tensor:
        self._ids_BL = torch.cat([self._ids_BL, tokens_B[:, None]], 1)
        return self._logits()

    def _logits(self) -> Tensor:
        logits: Tensor = self._model(self._ids_BL, use_cache=False).logits[:, -1]
        return logits


@torch.inference_mode()
def cache_unfit(model: Model) -> str:
    """Why the model's cache cannot be decoded with; empty where it can.

    Found by trying: on random prompts, one of them twice, of which a row is dropped on the way.
    """
    length = max(2, min(PROBED, positions_of(model) or PROBED))
    ids = torch.randint(vocabulary_of(model), (2, length), generator=torch.Generator().manual_seed(0))
    ids_BL = ids.to(next(model.parameters()).device)[[0, 1, 0]]
    training = model.training
    model.eval()
    try:
        found, expected = (_probed(reading, ids_BL) for reading in (_Cached(model), _Whole(model)))
        require_agreement(found, expected, next(model.parameters()).dtype)
    except AssentError as error:
        return f"with its cache {error.got}"
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return f"its cache cannot be used: {type(error).__name__}: {error}"
    finally:
        model.train(training)
    return ""


def _probed(reading: Reading, ids_BL: Tensor) -> Tensor:
    half = ids_BL.shape[1] // 2
    logits = [reading.start([tuple(row) for row in ids_BL[:, :half].tolist()])[1:]]
    kept = torch.tensor([1, 2], device=ids_BL.device)
    reading.keep(kept)
    logits += [reading.read(ids_BL[kept, place]) for place in range(half, ids_BL.shape[1])]
    return torch.stack(logits, 1)


def generate(
    model: Model, requests: Sequence[Request], sampling: Sampling, draw: Draw, *, slots: int, cached: bool = True
) -> Outputs:
    """What was drawn for the requests.

    They are served in batches of at most `slots` whose prompts have the same length: no mask and no shifted
    positions, which is the one input that every family reads alike. Samples of one prompt share its prefill.
    """
    device = next(model.parameters()).device
    outputs = Outputs(len(requests), sampling, draw)
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].token_ids), requests[i].token_ids))
    while order:
        length = len(requests[order[0]].token_ids)
        batch = [i for i in order[:slots] if len(requests[i].token_ids) == length]
        order = order[len(batch) :]
        lines, reading = torch.tensor(batch, device=device) * outputs.line, _Cached(model) if cached else _Whole(model)
        _batch(reading, [requests[i] for i in batch], lines, outputs, sampling, draw)
    return outputs


def _batch(
    reading: Reading, requests: Sequence[Request], lines_B: Tensor, outputs: Outputs, sampling: Sampling, draw: Draw
) -> None:
    """Equally long prompts to the end of all their responses.

    Args:
        lines_B: the first cell of each.
    """
    budget, device = sampling.max_new_tokens, lines_B.device
    uniform_BT = uniforms([r.seed for r in requests], budget).to(device)
    logits = reading.start([r.token_ids for r in requests])
    going = torch.arange(len(requests), device=device)
    for t in range(budget):
        too_early = torch.full((len(going),), True, device=device) if t < sampling.min_new_tokens else None
        drawn = draw(logits, uniform_BT[going, t], too_early)
        tokens, stays = drawn.tokens_B, ~outputs.take(lines_B[going] + t, drawn)
        if not bool(stays.all()):
            kept = stays.nonzero()[:, 0]
            going, tokens = going[kept], tokens[kept]
            reading.keep(kept)
        if t + 1 == budget or not len(going):
            break
        logits = reading.read(tokens)
