"""The oracle: one request at a time, a full forward per token, no cache. Slow and obvious."""

from array import array
from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from assent.rollout.randomness import uniforms
from assent.rollout.requests import check_requests, not_finite, positions_of, vocabulary_of
from assent.rollout.weights import Weights
from assent.types import Kept, Request, Sample, Sampling


class EagerEngine:
    """An Engine by definition, to test others against.

    Args:
        model: a Hugging Face causal language model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._weights = Weights(model)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        """One sample per request, in order."""
        check_requests(requests, sampling, vocabulary=vocabulary_of(self._model), positions=positions_of(self._model))
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                return [self._one(index, request, sampling) for index, request in enumerate(requests)]
        finally:
            self._model.train(training)

    def _one(self, index: int, request: Request, sampling: Sampling) -> Sample:
        stream = uniforms([request.seed], sampling.max_new_tokens)[0].tolist()
        token_ids: list[int] = []
        logprobs: list[float] = []
        kept: list[list[int]] = []

        def response(*, ended: bool) -> Sample:
            record = Kept(array("i", map(len, kept)), array("i", chain(*kept))) if sampling.restricted else None
            return Sample(tuple(token_ids), tuple(logprobs), ended, record)

        for t in range(sampling.max_new_tokens):
            logits = self._next_logits([*request.token_ids, *token_ids]) / sampling.temperature
            if t < sampling.min_new_tokens:
                logits[list(sampling.stop_token_ids)] = -torch.inf
            if sampling.restricted:
                kept.append(_most_probable(logits, sampling))
                left_out = torch.ones_like(logits, dtype=torch.bool).index_fill(0, torch.tensor(kept[-1]), False)
                logits[left_out] = -torch.inf
            logprobs_V = torch.log_softmax(logits, dim=-1)
            if bool(logprobs_V.isnan().any()):
                raise not_finite(index)
            token = int(logits.argmax()) if sampling.greedy else _inverse_cdf(logprobs_V.exp(), stream[t])
            token_ids.append(token)
            logprobs.append(float(logprobs_V[token]))
            text = "" if sampling.stop is None else sampling.stop.decode(token_ids)
            if token in sampling.stop_token_ids or (sampling.stop and any(s in text for s in sampling.stop.strings)):
                return response(ended=True)
        return response(ended=False)

    def _next_logits(self, token_ids: list[int]) -> Tensor:
        device = next(self._model.parameters()).device
        return self._model(torch.tensor([token_ids], device=device), use_cache=False).logits[0, -1].double().cpu()

    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Take these weights, in place where they are the model's own."""
        self._weights.take(weights, version=version)

    def fingerprint(self) -> str:
        """Digest of the weights that the next token will be sampled from."""
        return self._weights.fingerprint()


def _most_probable(logits_V: Tensor, sampling: Sampling) -> list[int]:
    """What top-k and then top-p leave, by counting down from the most probable; equals of the last one are kept."""
    ranked = sorted((v for v in range(len(logits_V)) if logits_V[v] > -torch.inf), key=lambda v: -float(logits_V[v]))
    if sampling.top_k:
        ranked = [v for v in ranked if logits_V[v] >= logits_V[ranked[: sampling.top_k][-1]]]
    if sampling.top_p < 1:
        shares = torch.softmax(logits_V[ranked], dim=-1).tolist()
        need = next((n for n in range(1, len(shares)) if sum(shares[:n]) >= sampling.top_p), len(shares))
        ranked = [v for v, share in zip(ranked, shares, strict=True) if share >= shares[need - 1]]
    return sorted(ranked)


def _inverse_cdf(probabilities_V: Tensor, uniform: float) -> int:
    """The first token at which the running sum exceeds the uniform number's share of the whole."""
    target, total = uniform * float(probabilities_V.sum()), 0.0
    for token, p in enumerate(probabilities_V.tolist()):
        total += p
        if total > target:
            return token
    raise AssertionError("the running sum ends at the whole, which exceeds any share of it")
