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
    desirable_J, shift_B = batch.desirable_J, log_ratios(batch, sums_B)
    of_row = {"implicit_reward": rewards_B, "logprobs": sums_B}
    metrics = {"loss/preference": Mean.of(per_judgement)}
    for family, rows_B in of_row.items():
        metrics[f"{family}/desirable"] = Mean.of(rows_B[batch.row_J], desirable_J)
        metrics[f"{family}/undesirable"] = Mean.of(rows_B[batch.row_J], ~desirable_J)
    metrics["logprobs/desirable_shift"] = Mean.of(shift_B[batch.row_J], desirable_J)
    metrics["logprobs/undesirable_shift"] = Mean.of(shift_B[batch.row_J], ~desirable_J)
    return Loss(per_judgement, torch.ones_like(per_judgement, dtype=torch.bool), metrics)
