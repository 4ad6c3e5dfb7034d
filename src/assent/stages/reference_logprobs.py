"""What the reference says of every response, computed once and kept for every stage that asks the same again."""

import hashlib
import os
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from assent.data.judged import Row, block
from assent.dist import processes
from assent.functional.fingerprint import fingerprint
from assent.models.folders import CausalModel
from assent.models.forward import ModelForward, in_blocks
from assent.models.placement import products_of
from assent.pipeline.stage import StageContext
from assent.stages.reload import POLICY, configuration

FOLDER = "reference_logprobs"

ROWS = 2048
"""Responses between two lines of progress."""


def reference_logprobs(
    reference: CausalModel, rows: Sequence[Row], context: StageContext, *, block_tokens: int
) -> Tensor:
    """Log-probability of each response, summed over its included tokens, `[R]`, nats.

    A response that stands in several rows is read once. What was computed is kept beside the run's artefacts, under the
    fingerprint of weights, architecture, code and tokens: another epoch, a resumed run, and a stage that trains
    another algorithm on the same responses against the same reference read it back, to the last bit.

    Args:
        reference: frozen.
        rows: at least one.
        block_tokens: tokens read at once; memory and speed only.
    """
    path = context.cache / FOLDER / f"{_key(reference, rows, block_tokens)}.pt"
    if path.exists():
        kept = torch.load(path, weights_only=True)
        context.say(
            f"reference log-probabilities of {len(rows):,} responses: computed before, read back; saved "
            f"{kept['seconds']:.1f} s"
        )
        return torch.as_tensor(kept["logprobs"])
    begun = time.perf_counter()
    logprobs_R = _compute(reference, rows, context, block_tokens)
    if processes.current().rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        torch.save({"logprobs": logprobs_R, "seconds": time.perf_counter() - begun}, draft)
        os.replace(draft, path)
    return logprobs_R


def _compute(reference: CausalModel, rows: Sequence[Row], context: StageContext, block_tokens: int) -> Tensor:
    begun = time.perf_counter()
    places: dict[Row, int] = {}
    index = [places.setdefault(row, len(places)) for row in rows]
    distinct, sums = list(places), []
    forward = ModelForward(policy=reference.model)
    context.say(f"reference log-probabilities of {len(distinct):,} responses, once")
    for start in range(0, len(distinct), ROWS):
        sequences = block(distinct[start : start + ROWS])
        with torch.no_grad():
            (logprobs_BT,) = in_blocks(lambda s: (forward.logprobs(s),), sequences, block_tokens=block_tokens)
        sums.append(torch.where(sequences.mask_BT, logprobs_BT, 0.0).sum(1))
        if start + ROWS < len(distinct):
            context.say(f"  {start + ROWS:,} of {len(distinct):,}, {time.perf_counter() - begun:.0f} s")
    context.say(f"  done in {time.perf_counter() - begun:.1f} s")
    return torch.cat(sums)[torch.tensor(index)]


def _key(reference: CausalModel, rows: Sequence[Row], block_tokens: int) -> str:
    model = reference.model
    digest = hashlib.sha256(fingerprint(dict(model.named_parameters())).encode())
    how = f"{model.device} {products_of(model)} {block_tokens}"
    digest.update(f"{configuration(POLICY, model, reference.tokenizer)} {how}".encode())
    for prompt, response in rows:
        for ids in (prompt, response.token_ids, response.included):
            digest.update(torch.tensor([len(ids), *ids]).numpy().tobytes())
    return digest.hexdigest()[:32]
