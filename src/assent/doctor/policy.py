"""D1, D3, D4 and D5: learner, engine and reference are the same policy before the first update."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from assent.doctor.layout import Gradients, Read
from assent.doctor.report import NOISE, Finding, refusal
from assent.functional.fingerprint import fingerprint
from assent.protocols import Engine, Forward
from assent.types import (
    ActorCriticOutputs,
    Batch,
    LeashedOutputs,
    Loss,
    ReferencedPairBatch,
    Request,
    Sampling,
    Scored,
    Sequences,
    TokenOutputs,
    UnpairedBatch,
)
from assent.types.micro_batches import cut_evenly

SAMPLER_NOISE: Mapping[torch.dtype, float] = {
    torch.float64: 1e-2,
    torch.float32: 1e-2,
    torch.float16: 5e-2,
    torch.bfloat16: 2e-1,
}
"""Largest difference between an engine's log-probability of a token and the learner's, in nats. Another kernel rounds
otherwise, so this is wider than `NOISE`; ignoring a temperature of 0.9 already moves likely tokens by 5e-2."""

MOST_CANARIES = 24
"""Weights perturbed one by one in D4, spread over the model."""

CANARY_TOKENS = 4
"""Greedy tokens sampled after each perturbation."""

# ------------------------------------------------------------------------------------------------ D1


class OldLogprobs(Batch, Protocol):
    """A batch that remembers the log-probabilities its responses had before the update."""

    @property
    def old_logprobs_BT(self) -> Tensor: ...
    @property
    def mask_BT(self) -> Tensor: ...


class HasLoss(Protocol):
    """The half of an algorithm that the learner's accumulation calls."""

    def loss(self, batch: Any, forward: Forward) -> Loss: ...


@dataclass
class Overheard:
    """A forward that passes everything on and keeps the log-probabilities it gave."""

    forward: Forward
    given: list[Tensor] = field(default_factory=list)

    def logprobs(self, sequences: Sequences) -> Tensor:
        return self._keep(self.forward.logprobs(sequences))

    def tokens(self, sequences: Sequences) -> TokenOutputs:
        outputs = self.forward.tokens(sequences)
        self._keep(outputs.logprobs_BT)
        return outputs

    def actor_critic(self, sequences: Sequences) -> ActorCriticOutputs:
        outputs = self.forward.actor_critic(sequences)
        self._keep(outputs.logprobs_BT)
        return outputs

    def leashed(self, sequences: Sequences) -> LeashedOutputs:
        outputs = self.forward.leashed(sequences)
        self._keep(outputs.logprobs_BT)
        return outputs

    def values(self, sequences: Sequences) -> Tensor:
        return self.forward.values(sequences)

    def cost_values(self, sequences: Sequences) -> Tensor:
        return self.forward.cost_values(sequences)

    def scores(self, sequences: Sequences) -> Tensor:
        return self.forward.scores(sequences)

    def step_scores(self, sequences: Sequences, at_BT: Tensor) -> Tensor:
        return self.forward.step_scores(sequences, at_BT)

    def _keep(self, logprobs_BT: Tensor) -> Tensor:
        self.given.append(logprobs_BT.detach())
        return logprobs_BT


@dataclass
class Listening:
    """An algorithm that also compares what its forward gives with the old log-probabilities."""

    algorithm: HasLoss
    gaps: list[Tensor] = field(default_factory=list)

    def loss(self, batch: Any, forward: Forward) -> Loss:
        overheard = Overheard(forward)
        loss = self.algorithm.loss(batch, overheard)
        self.gaps += [(given - batch.old_logprobs_BT)[batch.mask_BT] for given in overheard.given]
        return loss


def ratio_starts_at_one(
    gradients: Gradients, experience: OldLogprobs, algorithm: HasLoss, *, minibatches: int, dtype: torch.dtype
) -> Finding:
    """D1: the log-probabilities that the loss itself computes, minibatch by minibatch, are the old ones.

    Args:
        gradients: the learner's accumulation, its models in training mode.
        experience: of the first rollouts.
        algorithm: whose loss asks the forward.
        minibatches: into which the experience is cut, at random as in an update.
        dtype: of the weights; sets the tolerance.
    """
    order = torch.randperm(len(experience), generator=torch.Generator().manual_seed(0))
    listening = Listening(algorithm)
    for rows in cut_evenly(order, minibatches):
        gradients(experience.select(rows), listening, None)
    tolerance = NOISE[dtype]
    if not listening.gaps:
        return Finding(0.0, tolerance, "the algorithm asks for no log-probabilities")
    gap = torch.cat(listening.gaps)
    worst = gap.abs().max().item()
    if not worst <= tolerance:
        beyond = (gap.abs() > tolerance).float().mean().item()
        raise refusal(
            "D1",
            got=f"the training forward differs from the old log-probabilities by up to {worst:.3g} nats "
            f"({beyond:.0%} of {len(gap)} tokens beyond {tolerance:.1g}); "
            f"the ratio is {gap.exp().min().item():.3f} to {gap.exp().max().item():.3f} instead of 1",
            why="the loss would clip and weight tokens for a change that no update has made",
            causes=(
                "dropout or router noise is on in training: set it to 0 in the model's config",
                "the temperature is applied in sampling or scoring but not in the training forward, or twice",
                "positions or padding differ between scoring and training: see D2",
                "scoring uses other weights than the learner: build both on one forward",
            ),
        )
    detail = f"largest |log-ratio| {worst:.2g} over {len(gap)} tokens, {minibatches} minibatches, in training mode"
    return Finding(worst, tolerance, detail)


# ------------------------------------------------------------------------------------------------ D3, D5


def engine_is_scored(scored: Scored, *, dtype: torch.dtype) -> Finding:
    """D3: what the engine says of the tokens it drew is what the learner says of them."""
    mask = scored.mask_BT
    gap = (scored.sampler_logprobs_BT - scored.old_logprobs_BT)[mask].abs().double()
    tolerance, worst = SAMPLER_NOISE[dtype], gap.max().item()
    figures = f"p50 {gap.quantile(0.5).item():.2g}, p95 {gap.quantile(0.95).item():.2g}, largest {worst:.2g} nats"
    if not worst <= tolerance:
        raise refusal(
            "D3",
            got=f"engine against learner, per token: {figures} (allowed: {tolerance:.1g})",
            why="the policy would be trained on a distribution that nobody sampled from",
            causes=(
                "the temperature of the engine is not that of the learner's forward",
                "sampling is truncated (top-k, top-p) or end tokens are forbidden at first (min_new_tokens): "
                "sample from the full distribution",
                "the engine holds other weights: see D4",
                "the engine computes in another number type: use that of the learner",
            ),
        )
    return Finding(worst, tolerance, figures)


def kl_starts_at_zero(scored: Scored, *, same_start: bool, dtype: torch.dtype) -> Finding:
    """D5: policy and reference agree on every token, where the reference is the policy's own start.

    Args:
        same_start: whether the recipe names the starting policy as reference. Otherwise the KL is reported.
    """
    mask, tolerance = scored.mask_BT, NOISE[dtype]
    gap = torch.where(mask, scored.old_logprobs_BT - scored.ref_logprobs_BT, 0.0).double()
    kl, worst = gap.sum(1).mean().item(), gap.abs().max().item()
    if not same_start:
        return Finding(kl, None, f"the reference is another model: KL starts at {kl:.3g} nats per response")
    if not worst <= tolerance:
        raise refusal(
            "D5",
            got=f"KL to the reference is {kl:.3g} nats per response; tokens differ by up to {worst:.3g} nats "
            f"(allowed: {tolerance:.1g})",
            why="the policy would be pulled towards a model that it did not start from",
            causes=(
                "the reference is another checkpoint: the base model instead of the fine-tuned one",
                "the reference is `adapters off` although the policy starts from an adapter: snapshot the start",
                "policy and reference are read at different temperatures",
                "the policy was changed before the run: load both from the same folder",
            ),
        )
    return Finding(worst, tolerance, f"largest difference of a token {worst:.2g} nats; KL {kl:.2g} per response")


@dataclass
class _AtReference:
    """A loss on pairs that also compares what its forward gives with the reference, per token of a response."""

    algorithm: HasLoss
    gaps: list[Tensor] = field(default_factory=list)

    def loss(self, batch: ReferencedPairBatch | UnpairedBatch, forward: Forward) -> Loss:
        overheard = Overheard(forward)
        loss = self.algorithm.loss(batch, overheard)
        mask = batch.sequences.mask_BT
        for given in overheard.given:
            self.gaps.append((torch.where(mask, given, 0.0).sum(1) - batch.ref_logprobs_B) / mask.sum(1))
        return loss


def pairs_start_at_reference(
    gradients: Gradients,
    batch: ReferencedPairBatch | UnpairedBatch,
    algorithm: HasLoss,
    *,
    same_start: bool,
    dtype: torch.dtype,
) -> Finding:
    """D5 for direct alignment: every log-ratio is 0 before the first update, so that the loss of DPO is ln 2.

    Args:
        gradients: the learner's accumulation, its models in training mode.
        batch: the first pairs, or judgements of single responses.
        algorithm: whose loss asks the forward.
        same_start: whether the reference is the policy's own start. Otherwise the log-ratio is reported.
    """
    listening = _AtReference(algorithm)
    gradients(batch, listening, None)
    gap, tolerance = torch.cat(listening.gaps).double(), NOISE[dtype]
    worst = gap.abs().max().item()
    if not same_start:
        found = gap.mean().item()
        return Finding(found, None, f"the reference is another model: log-ratios start at {found:.3g} nats per token")
    if not worst <= tolerance:
        raise refusal(
            "D5",
            got=f"the training forward differs from the reference by up to {worst:.3g} nats per token of a response "
            f"(allowed: {tolerance:.1g})",
            why="every implicit reward must start at 0; DPO's loss would not start at ln 2, and its gradient would "
            "weigh pairs by a difference that no update has made",
            causes=(
                "dropout or router noise is on in training: set it to 0 in the model's config",
                "the reference is another checkpoint than the policy's start",
                "the reference's log-probabilities belong to other pairs or another order of them",
                "sums and means per token are mixed: a reference log-probability is the sum over the response",
            ),
        )
    return Finding(worst, tolerance, f"largest log-ratio {worst:.2g} nats per token: DPO's loss starts at ln 2")


# ------------------------------------------------------------------------------------------------ D4


def engine_follows_weights(
    engine: Engine,
    weights: Mapping[str, Tensor],
    logprobs: Read,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    version: int,
    dtype: torch.dtype,
    held_in: torch.dtype | None = None,
) -> Finding:
    """D4: fingerprints agree; perturb one weight, sync, and the engine must say what the learner now says.

    Every perturbed weight is put back exactly, also when a check fails.

    Args:
        engine: which samples.
        weights: the learner's own tensors, by name.
        logprobs: the learner's log-probabilities of response tokens.
        prompts: one or two, as token ids.
        sampling: of the run; its temperature is used.
        version: that the engine stands at.
        dtype: of the products; sets the tolerance.
        held_in: number type in which the engine holds the weights; None for their own.
    """

    def digest() -> str:
        return fingerprint({n: w if held_in is None else w.to(held_in) for n, w in weights.items()})

    greedy = Sampling(min(CANARY_TOKENS, sampling.max_new_tokens), sampling.stop_token_ids, sampling.temperature, True)

    def answer() -> Answer:
        samples = engine.generate([Request(tuple(p), 0) for p in prompts], greedy)
        tokens = [s.token_ids for s in samples]
        with torch.no_grad():
            learned = logprobs(Sequences.of(prompts, tokens))
        return (
            tokens,
            [x for s in samples for x in s.logprobs],
            [x for row, t in zip(learned.tolist(), tokens, strict=True) for x in row[: len(t)]],
        )

    engine.sync(weights, version=version)
    start = digest()
    _require(
        engine.fingerprint() == start, "after a sync the engine's fingerprint is not that of the learner's weights"
    )
    before = answer()
    worst, moved = _gap(before), 0
    # An engine that computes as the learner does is held to the learner's own rounding, so that a weight that matters
    # little is heard too; one with other kernels to what D3 allows.
    tolerance = NOISE[dtype] if worst <= NOISE[dtype] else SAMPLER_NOISE[dtype]
    _require(worst <= tolerance, f"right after a sync, the engine's greedy log-probabilities are {worst:.3g} nats off")
    names = _canaries(weights)
    for place, name in enumerate(names):
        with _perturbed(weights[name], seed=place):
            engine.sync(weights, version=version)
            if place == 0:
                _require_changed(engine.fingerprint(), start, digest(), name)
            after = answer()
        gap = _gap(after)
        _require(
            gap <= tolerance,
            f"{name!r} was changed and synced, and the engine's greedy log-probabilities are {gap:.3g} nats off the "
            f"learner's (allowed: {tolerance:.1g})",
        )
        worst, moved = max(worst, gap), moved + (after[:2] != before[:2])
    _require(moved > 0, f"{len(names)} weights were changed one by one, and no greedy log-probability moved")
    engine.sync(weights, version=version)
    _require(engine.fingerprint() == start, "the weights were put back and synced, and the engine still holds others")
    detail = f"fingerprint {start[:12]}; {len(names)} weights perturbed one by one, {moved} moved the output"
    return Finding(worst, tolerance, detail)


Answer = tuple[list[tuple[int, ...]], list[float], list[float]]
"""Greedy tokens, and the log-probabilities that engine and learner give them."""


def _gap(answer: Answer) -> float:
    return max(abs(a - b) for a, b in zip(answer[1], answer[2], strict=True))


def _canaries(weights: Mapping[str, Tensor]) -> list[str]:
    names = [n for n, w in weights.items() if w.is_floating_point() and w.numel()]
    places = torch.linspace(0, len(names) - 1, min(MOST_CANARIES, len(names))).round().long().unique()
    return [names[i] for i in places.tolist()]


@contextmanager
def _perturbed(weight: Tensor, *, seed: int) -> Iterator[None]:
    """Noise of the weight's own size, so that one tensor among hundreds is heard; taken back bit by bit."""
    kept = weight.detach().clone()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(weight.shape, generator=generator).to(weight)
    size = kept.double().square().mean().sqrt().item() + 1e-2
    try:
        with torch.no_grad():
            weight.add_(noise * size)
        yield
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def _require_changed(engine_now: str, start: str, learner_now: str, name: str) -> None:
    _require(engine_now != start, f"{name!r} was changed and synced, and the engine's fingerprint stayed the same")
    _require(engine_now == learner_now, f"{name!r} was changed and synced, and the two fingerprints differ")


def _require(holds: bool, got: str) -> None:
    if not holds:
        raise refusal(
            "D4",
            got=got,
            why="rollouts would come from another model than the one that is trained, and no curve would show it",
            causes=(
                "the engine keeps a copy of the weights (cast, transposed, fused) that sync does not refresh",
                "names differ between learner and engine, so that some weights are never taken over",
                "adapters are merged before or after the sync in only one of the two",
                "the engine samples from the base model",
            ),
        )
