"""What equal learners share: sums over the process group."""

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from assent.types import Mean


class Alone:
    """A group of one."""

    rank, world = 0, 1

    def wait(self) -> None:
        return

    def sum_number(self, x: float) -> float:
        return x

    def sum_metrics(self, metrics: dict[str, Mean]) -> dict[str, Mean]:
        return metrics

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        return


class Group:
    """The group that `torchrun` started: gradients and metrics are summed, never averaged.

    The loss was already divided by the global denominator, so the sum of gradients is the gradient.
    """

    def __init__(self) -> None:
        if not dist.is_initialized():
            # Numbers and files are settled on the CPU, gradients where the models are.
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def wait(self) -> None:
        """Return when every process has come here."""
        self.sum_number(0.0)

    def sum_number(self, x: float) -> float:
        total = torch.tensor(x, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item()

    def sum_metrics(self, metrics: dict[str, Mean]) -> dict[str, Mean]:
        everyone: list[dict[str, Mean] | None] = [None] * self.world
        dist.all_gather_object(everyone, metrics)
        names = sorted({n for m in everyone if m for n in m})
        zero = Mean(0.0, 0.0)
        return {n: sum((m[n] for m in everyone if m and n in m), zero) for n in names}

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        # A parameter without gradient on one rank may have one on another: all take part, in one flat message.
        kept = [p for p in parameters if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in kept])
        dist.all_reduce(flat)
        for p, g in zip(kept, flat.split([p.numel() for p in kept]), strict=True):
            p.grad = _copy_into(p.grad, g.view_as(p))


def _copy_into(grad: Tensor | None, value: Tensor) -> Tensor:
    return value.clone() if grad is None else grad.copy_(value)


def current() -> Alone | Group:
    """The group this process belongs to, as `torchrun` announces it in the environment."""
    return Group() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Alone()
