"""The native engine: continuous batching in this process, with torch alone."""

import copy
import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from assent.errors import AssentError, ContractError, NonFiniteError
from assent.rollout import generic
from assent.rollout.agreement import require_agreement
from assent.rollout.cache import Cache, prefill, step
from assent.rollout.decoders import Decoder, angles_of, decoder_of, laid_out, window_of
from assent.rollout.draw import Draw
from assent.rollout.outputs import Outputs
from assent.rollout.recorded import RecordedStep, Recorder, recorder_for
from assent.rollout.requests import check_requests, positions_of, vocabulary_of
from assent.rollout.slots import PAD, Queue, Slots, serve
from assent.rollout.weights import Weights
from assent.types import Request, Sample, Sampling

logger = logging.getLogger(__name__)

# (steps between two looks at which slots have ended, prompt tokens of one prefill). A CPU is asked for nothing, and
# 512 tokens keep the activations of a small model in its second-level cache (1024 gives the same rate, 4096 10 % less).
# A GPU is kept waiting by every look, and needs thousands of tokens to be busy.
CPU_PACE, GPU_PACE = (1, 512), (4, 8192)


class NativeEngine:
    """Samples many requests at once: slots are refilled as sequences end, a prompt is read once for all its samples.

    For GPT-2, Llama, Mistral, Qwen2 and Qwen3 a lean decode step reads the model's own weights, and keeps no packed or
    transposed copy from one call to the next that could go stale: a learner that updates these tensors has updated the
    engine. It is compared
    with the model's forward when the engine is made, and again when a parameter object has been replaced. Where it does
    not cover the model, or differs from it, `path` is "generic", `reason` says why and a warning is logged: the model's
    own forward is then used, with a cache.

    Args:
        model: a Hugging Face causal language model, on its device. It is not copied, but for another number type; its
            mode is left as found.
        slots: sequences in flight at once; each costs one line of cache. On one core, a Llama of 2 x 96 gives 90 % of
            its best rate at 32 slots and all of it from 64, a GPT-2 of 4 x 160 all of it at 32.
        dtype: number type to sample in, where it is not that of the weights: the engine then holds a copy of them, as
            of now and of each `sync`.
        recorder: of decode steps; on a GPU CUDA's own when None.

    Raises:
        ContractError: `slots` below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        slots: int = 64,
        dtype: torch.dtype | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        if slots < 1:
            raise ContractError("an engine needs slots", got=slots, why="it samples in them", fix="set slots >= 1")
        if dtype not in (None, next(model.parameters()).dtype):
            model = _copied_to(dtype, model)
        self._model, self._slots = model, slots
        self._weights = Weights(model)
        self._recorder = recorder or recorder_for(next(model.parameters()).device)
        self._cache: Cache | None = None
        self._recorded: RecordedStep | None = None
        self._read: Sequence[tuple[Tensor, torch.dtype, torch.device]] = ()
        self._decoder: Decoder | None = None
        self._cached = True
        self.reason = ""
        self._resolve()

    def _resolve(self) -> None:
        """Make the lean step anew where the model's parameters are other objects, or of another kind, than it reads."""
        now = [(p, p.dtype, p.device) for p in self._model.parameters()]
        if len(now) == len(self._read) and all(
            a is b and x == y and c == d for (a, x, c), (b, y, d) in zip(now, self._read, strict=True)
        ):
            return
        self._read, self._decoder, self._cache, self._recorded = now, None, None, None
        self.reason, self._cached = "", True
        try:
            decoder = decoder_of(self._model)
            compare(decoder, self._model)
            self._decoder = decoder
        except AssentError as error:
            self.reason = str(error.got)
        except (AttributeError, RuntimeError, TypeError) as error:
            self.reason = f"the lean step failed on it: {error}"
        if not self.reason:
            return
        without = generic.cache_unfit(self._model)
        if without:
            self._cached, self.reason = False, f"{self.reason}; {without}"
        logger.warning("native engine takes the %s path: %s", self.path, self.reason)

    @property
    def path(self) -> str:
        """ "lean", "generic" or "whole"."""
        if self._decoder is not None:
            return "lean"
        return "generic" if self._cached else "whole"

    @property
    def version(self) -> int:
        """Of the weights last taken by `sync`."""
        return self._weights.version

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        """One sample per request, in order.

        Raises:
            ContractError: no requests, a token outside the vocabulary, or prompt and budget beyond the model's reach.
            ConfigError: an impossible `sampling`.
            NonFiniteError: the weights give nan or infinite log-probabilities.
        """
        vocabulary = vocabulary_of(self._model)
        check_requests(requests, sampling, vocabulary=vocabulary, positions=positions_of(self._model))
        self._resolve()
        decoder = self._decoder
        longest = max(len(r.token_ids) for r in requests) + sampling.max_new_tokens
        window = window_of(self._model)
        if decoder is not None and window is not None and longest > window:
            logger.warning(
                "native engine takes the generic path for this call: sequences may reach %d tokens, beyond "
                "the model's sliding window of %d",
                longest,
                window,
            )
            decoder = None
        with torch.inference_mode():
            draw = Draw.of(sampling, vocabulary, next(self._model.parameters()).device)
            if decoder is None:
                outputs = self._generic(requests, sampling, draw, cached=self._may_cache(longest))
            else:
                outputs = self._lean(decoder, requests, sampling, draw)
            try:
                return outputs.samples()
            except NonFiniteError:
                self._cache = self._recorded = (
                    None  # nan in a masked place is still nan for the sequence that comes there next
                )
                raise

    def _may_cache(self, longest: int) -> bool:
        """Not where the model turns the keys of a long sequence by other angles than those that it cached."""
        steady = angles_of(self._model)
        if steady is None or longest <= steady:
            return self._cached
        logger.warning(
            "native engine keeps no cache for this call: sequences may reach %d tokens, and from %d on the model turns "
            "all of their keys by other angles",
            longest,
            steady + 1,
        )
        return False

    def _generic(self, requests: Sequence[Request], sampling: Sampling, draw: Draw, *, cached: bool) -> Outputs:
        training = self._model.training
        self._model.eval()
        try:
            return generic.generate(self._model, requests, sampling, draw, slots=self._slots, cached=cached)
        finally:
            self._model.train(training)

    def _lean(self, decoder: Decoder, requests: Sequence[Request], sampling: Sampling, draw: Draw) -> Outputs:
        longest = max(len(r.token_ids) for r in requests) + sampling.max_new_tokens
        decoder.reserve(longest + PAD)
        rows = min(self._slots, len(requests))
        if self._cache is None or self._cache.slots < rows or self._cache.length < longest:
            self._cache = self._recorded = None  # frees the old ones before the new ones are made
            self._cache = Cache.empty(decoder, rows, -(-longest // 32) * 32)
            if self._recorder is not None:
                self._recorded = RecordedStep(decoder, self._cache, self._recorder)
        slots = Slots(decoder, self._cache, requests, sampling, draw, self._recorded)
        look_every, chunk = CPU_PACE if decoder.head.weight.device.type == "cpu" else GPU_PACE
        with laid_out(decoder):
            serve(slots, Queue(decoder, requests, chunk, positions_of(self._model)), look_every=look_every)
        return slots.outputs

    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Take these weights; those that are the model's own tensors are not copied.

        Raises:
            ContractError: names or shapes are not the model's.
        """
        self._weights.take(weights, version=version)

    def fingerprint(self) -> str:
        """Digest of the weights that the next token will be sampled from, under the names last synced."""
        return self._weights.fingerprint()


def _copied_to(dtype: torch.dtype | None, model: nn.Module) -> nn.Module:
    """A copy in this number type, but for the rotary frequencies: an angle is a frequency times a position, so that one
    of 8 bits is off by a radian some hundred tokens on. Who loads a folder in half precision has them in full too."""
    copied = copy.deepcopy(model).to(dtype).requires_grad_(False)
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            owner, _, own = name.rpartition(".")
            setattr(copied.get_submodule(owner), own, buffer.clone())
    return copied


@torch.inference_mode()
def compare(decoder: Decoder, model: nn.Module) -> None:
    """Lean prefill and decode against the model's forward, on random tokens.

    Raises:
        ContractError: a log-probability differs by more than `agreement.TOLERANCE`.
    """
    weight, vocabulary = decoder.head.weight, vocabulary_of(model)
    positions = positions_of(model) or 12
    length = max(2, min(12, positions, window_of(model) or 12))
    ids = torch.randint(vocabulary, (2, length), generator=torch.Generator().manual_seed(0)).to(weight.device)
    start = max(1, length // 2)
    decoder.reserve(length)
    cache, prompt = Cache.empty(decoder, 2, length), prefill(decoder, ids[:, :start])
    both = torch.arange(2, device=weight.device)
    cache.take(both, prompt, both)
    steps = [step(decoder, cache, ids[:, t], both * 0 + t, t + 1) for t in range(start, length)]
    training = model.training
    model.eval()
    try:
        expected = model(ids, use_cache=False).logits[:, start:]
    finally:
        model.train(training)
    require_agreement(torch.stack(steps, 1), expected, weight.dtype)
