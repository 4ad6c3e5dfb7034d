"""The cached path of any Hugging Face causal model: batches of equally long prompts, so that nothing is padded."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from assent.rollout.decoders import Model
from assent.rollout.draw import Draw
from assent.rollout.randomness import uniforms
from assent.types import Request, Sampling


def generate(
    model: Model, requests: Sequence[Request], sampling: Sampling, draw: Draw, *, slots: int
) -> tuple[Tensor, Tensor]:
    """Tokens and log-probabilities, each [requests, max_new_tokens]; what follows a stop token means nothing.

    Requests are served in batches of at most `slots` whose prompts have the same length: no mask and no shifted
    positions, which is the one input that every family reads alike. Samples of one prompt share its prefill.
    """
    device = next(model.parameters()).device
    tokens = torch.zeros((len(requests), sampling.max_new_tokens), dtype=torch.int64, device=device)
    logprobs = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].token_ids), requests[i].token_ids))
    while order:
        length = len(requests[order[0]].token_ids)
        batch = [i for i in order[:slots] if len(requests[i].token_ids) == length]
        order = order[len(batch) :]
        rows = torch.tensor(batch, device=device)
        tokens[rows], logprobs[rows] = _batch(model, [requests[i] for i in batch], sampling, draw)
    return tokens, logprobs


def _prefill(model: Model, requests: Sequence[Request], device: torch.device) -> tuple[Tensor, DynamicCache]:
    """Next-token logits of each request and a cache with one row for each, every distinct prompt being read once."""
    distinct = list(dict.fromkeys(r.token_ids for r in requests))
    row_of = {prompt: row for row, prompt in enumerate(distinct)}
    rows = torch.tensor([row_of[r.token_ids] for r in requests], device=device)
    cache = DynamicCache(config=model.config)
    out = model(torch.tensor(distinct, device=device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    if len(distinct) < len(requests):
        cache.batch_select_indices(rows)
    return out.logits[:, -1][rows], cache


def _batch(model: Model, requests: Sequence[Request], sampling: Sampling, draw: Draw) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    budget = sampling.max_new_tokens
    uniform_BT = uniforms([r.seed for r in requests], budget).to(device)
    tokens = torch.zeros((len(requests), budget), dtype=torch.int64, device=device)
    logprobs = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
    logits, cache = _prefill(model, requests, device)
    going = torch.arange(len(requests), device=device)
    for t in range(budget):
        too_early = torch.full((len(going),), True, device=device) if t < sampling.min_new_tokens else None
        drawn, values = draw(logits, uniform_BT[going, t], too_early)
        tokens[going, t], logprobs[going, t] = drawn, values.float()
        stays = ~draw.is_stop_V[drawn]
        if not bool(stays.all()):
            kept = stays.nonzero()[:, 0]
            going, drawn = going[kept], drawn[kept]
            cache.batch_select_indices(kept)
        if t + 1 == budget or not len(going):
            break
        out = model(drawn[:, None], past_key_values=cache, use_cache=True)
        logits = out.logits[:, -1]
    return tokens, logprobs
