"""What the losses on single judged responses share: what is logged of them."""

import torch
from torch import Tensor

from assent.algorithms._pairs import log_ratios
from assent.types import BaselinedBatch, Loss, Mean


def unpaired_loss(per_judgement: Tensor, batch: BaselinedBatch, rewards_B: Tensor, sums_B: Tensor) -> Loss:
    """The loss of each judgement, with what is logged of both kinds.

    Args:
        per_judgement: `[J]`.
        rewards_B: implicit reward of each row.
        sums_B: log-probability of each row's response, summed over its included tokens, nats.
    """
    row_J, liked_J = batch.row_J, batch.desirable_J
    rewards_J, sums_J, shift_J = rewards_B[row_J], sums_B[row_J], log_ratios(batch, sums_B)[row_J]
    metrics = {
        "loss/preference": Mean.of(per_judgement),
        "implicit_reward/desirable": Mean.of(rewards_J, liked_J),
        "implicit_reward/undesirable": Mean.of(rewards_J, ~liked_J),
        "logprobs/desirable": Mean.of(sums_J, liked_J),
        "logprobs/undesirable": Mean.of(sums_J, ~liked_J),
        "logprobs/desirable_shift": Mean.of(shift_J, liked_J),
        "logprobs/undesirable_shift": Mean.of(shift_J, ~liked_J),
    }
    return Loss(per_judgement, torch.ones_like(per_judgement, dtype=torch.bool), metrics)
