"""What the reference says of every pair, computed once and kept beside the state of the run."""

import hashlib
import os
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from assent.data.batches import PairExample
from assent.dist import processes
from assent.functional.fingerprint import fingerprint
from assent.models.folders import CausalModel
from assent.models.forward import ModelForward, in_blocks
from assent.pipeline.run import StageContext
from assent.types import Sequences

FILE = "reference_logprobs.pt"

ROWS = 2048
"""Responses between two lines of progress."""


def reference_logprobs(
    reference: CausalModel, examples: Sequence[PairExample], context: StageContext, *, block_tokens: int
) -> Tensor:
    """Log-probability of the chosen and the rejected response of each pair, summed over its tokens, `[P, 2]`, nats.

    A response that stands in several pairs is read once. What was computed is kept in the stage's state under the
    fingerprint of weights and tokens, so that a resumed run reads it back, and one with other pairs does not.

    Args:
        reference: frozen.
        examples: at least one pair.
        block_tokens: tokens read at once; memory and speed only.
    """
    path, key = context.state / FILE, _key(reference, examples)
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["key"] == key:
            context.say(f"reference log-probabilities of {len(examples):,} pairs: computed before, read back")
            return torch.as_tensor(kept["logprobs"])
    logprobs_P2 = _compute(reference, examples, context, block_tokens)
    if processes.current().rank == 0:
        draft = path.with_suffix(".tmp")
        torch.save({"key": key, "logprobs": logprobs_P2}, draft)
        os.replace(draft, path)
    return logprobs_P2


def _compute(
    reference: CausalModel, examples: Sequence[PairExample], context: StageContext, block_tokens: int
) -> Tensor:
    begun = time.perf_counter()
    places: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    index = [
        places.setdefault((tuple(e.prompt_ids), tuple(ids)), len(places))
        for e in examples
        for ids in (e.chosen_ids, e.rejected_ids)
    ]
    rows, sums = list(places), []
    forward = ModelForward(policy=reference.model)
    context.say(f"reference log-probabilities of {len(rows):,} responses in {len(examples):,} pairs, once")
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        sequences = Sequences.of([prompt for prompt, _ in part], [response for _, response in part])
        with torch.no_grad():
            (logprobs_BT,) = in_blocks(lambda s: (forward.logprobs(s),), sequences, block_tokens=block_tokens)
        sums.append(torch.where(sequences.mask_BT, logprobs_BT, 0.0).sum(1))
        if start + ROWS < len(rows):
            context.say(f"  {start + ROWS:,} of {len(rows):,}, {time.perf_counter() - begun:.0f} s")
    context.say(f"  done in {time.perf_counter() - begun:.1f} s")
    return torch.cat(sums)[torch.tensor(index)].view(-1, 2)


def _key(reference: CausalModel, examples: Sequence[PairExample]) -> str:
    digest = hashlib.sha256(fingerprint(dict(reference.model.named_parameters())).encode())
    for example in examples:
        for ids in (example.prompt_ids, example.chosen_ids, example.rejected_ids):
            digest.update(torch.tensor([len(ids), *ids]).numpy().tobytes())
    return digest.hexdigest()
