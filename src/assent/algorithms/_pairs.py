"""What the losses on pairs share: how a response's log-probability is read, and what is logged of a pair."""

import torch
from torch import Tensor

from assent.protocols import Forward
from assent.types import Mean, PairBatch, ReferencedPairBatch


def sums_of(batch: PairBatch, forward: Forward) -> Tensor:
    """Log-probability of each row's response under the policy, summed over its included tokens, `[2P]`, nats."""
    sequences = batch.sequences
    return torch.where(sequences.mask_BT, forward.logprobs(sequences), 0.0).sum(1)


def per_token(batch: PairBatch, sums_B: Tensor) -> Tensor:
    """The same sums divided by the number of included tokens, `[2P]`, nats per token."""
    return sums_B / batch.sequences.mask_BT.sum(1)


def sides(rows_B: Tensor) -> tuple[Tensor, Tensor]:
    """Preferred and other, `[P]` each."""
    return rows_B[0::2], rows_B[1::2]


def pair_metrics(per_pair: Tensor, rewards_B: Tensor, sums_B: Tensor) -> dict[str, Mean]:
    """What every loss on pairs logs.

    Args:
        per_pair: the loss, `[P]`.
        rewards_B: implicit rewards, `[2P]`.
        sums_B: as `sums_of`.
    """
    chosen, rejected = sides(rewards_B)
    likely, other = sides(sums_B)
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
    chosen, rejected = sides(sums_B - batch.ref_logprobs_B)
    return {"logprobs/chosen_shift": Mean.of(chosen), "logprobs/rejected_shift": Mean.of(rejected)}
