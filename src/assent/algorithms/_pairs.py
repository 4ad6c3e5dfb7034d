"""What the losses on judged responses share: how a response's log-probability is read, and what is logged of it."""

from typing import Protocol

import torch
from torch import Tensor

from assent.protocols import Forward
from assent.types import Loss, Mean, PairBatch, ReferencedPairBatch, Sequences


class Responses(Protocol):
    """Any batch of responses, a row each."""

    @property
    def sequences(self) -> Sequences: ...


class Referenced(Responses, Protocol):
    """Responses of which it is known how likely the reference finds them, in nats, summed over included tokens."""

    @property
    def ref_logprobs_B(self) -> Tensor: ...


def sums_of(batch: Responses, forward: Forward) -> Tensor:
    """Log-probability of each row's response under the policy, summed over its included tokens, `[B]`, nats."""
    return sums_over(batch.sequences, forward)


def sums_over(sequences: Sequences, forward: Forward) -> Tensor:
    """The same of a block of sequences."""
    return torch.where(sequences.mask_BT, forward.logprobs(sequences), 0.0).sum(1)


def per_token(batch: Responses, sums_B: Tensor) -> Tensor:
    """Such sums divided by the number of included tokens, `[B]`, nats per token; 0 where none is included."""
    return sums_B / batch.sequences.mask_BT.sum(1).clamp(min=1)


def log_ratios(batch: Referenced, sums_B: Tensor) -> Tensor:
    """log pi - log pi_ref of each row's response, `[B]`, nats."""
    return sums_B - batch.ref_logprobs_B


def held_up(per_pair: Tensor, batch: PairBatch, sums_B: Tensor, *, nll_weight: float) -> Tensor:
    """The loss plus `nll_weight` times the negative log-likelihood per token of the preferred response.

    A loss on differences may lower both sides of a pair; this term does not let the preferred one fall.
    """
    if not nll_weight:
        return per_pair
    chosen, _ = batch.sides(per_token(batch, sums_B))
    return per_pair - nll_weight * chosen


def pair_loss(per_pair: Tensor, batch: PairBatch, rewards_B: Tensor, sums_B: Tensor) -> Loss:
    """The loss of each pair, with what every loss on pairs logs.

    Args:
        per_pair: `[P]`.
        rewards_B: implicit reward of each row.
        sums_B: as `sums_of`.
    """
    metrics = pair_metrics(per_pair, batch, rewards_B, sums_B)
    if isinstance(batch, ReferencedPairBatch):
        metrics |= displacement(batch, sums_B)
    return Loss(per_pair, torch.ones_like(per_pair, dtype=torch.bool), metrics)


def pair_metrics(per_pair: Tensor, batch: PairBatch, rewards_B: Tensor, sums_B: Tensor) -> dict[str, Mean]:
    """Loss, implicit rewards and log-probabilities of both sides; arguments as `pair_loss`."""
    chosen, rejected = batch.sides(rewards_B)
    likely, other = batch.sides(sums_B)
    return {
        "loss/preference": Mean.of(per_pair),
        "implicit_reward/accuracy": Mean.of((chosen > rejected).float() + 0.5 * (chosen == rejected).float()),
        "implicit_reward/margin": Mean.of(chosen - rejected),
        "implicit_reward/chosen": Mean.of(chosen),
        "implicit_reward/rejected": Mean.of(rejected),
        "logprobs/chosen": Mean.of(likely),
        "logprobs/rejected": Mean.of(other),
    }


def displacement(batch: ReferencedPairBatch, sums_B: Tensor) -> dict[str, Mean]:
    """How far both sides have moved from the reference, nats per response: both falling is likelihood displacement."""
    chosen, rejected = batch.sides(log_ratios(batch, sums_B))
    return {"logprobs/chosen_shift": Mean.of(chosen), "logprobs/rejected_shift": Mean.of(rejected)}
