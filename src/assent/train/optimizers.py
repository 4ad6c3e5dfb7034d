"""Optimisers as values that build themselves on named parameters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class AdamW:
    """AdamW in the number type of the weights.

    Args:
        lr: peak learning rate.
        betas: InstructGPT and Llama 2 use (0.9, 0.95).
        eps: 1e-5 as in Llama 2's PPO; PyTorch's Adam takes larger early steps than TensorFlow's at the same value
            ("N implementation details", 20), and 1e-5 tames them.
        weight_decay: on matrices only, never on norms or biases.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    lr: float
    name: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-5
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        kept = [p for _, p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in kept if p.dim() >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in kept if p.dim() < 2], "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
        return [torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=_fusable(kept))]


@dataclass(frozen=True, slots=True)
class Muon:
    """Muon on hidden matrices, AdamW on embeddings, heads, norms and biases.

    Args:
        lr: of the hidden matrices; the update has unit spectral norm, so 0.02 is the usual scale (K. Jordan 2024).
        rest: the AdamW for everything else.
        momentum: Nesterov momentum, 0.95 as published.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    lr: float
    name: Literal["muon"] = "muon"
    rest: AdamW = field(default_factory=lambda: AdamW(lr=3e-3))
    momentum: float = 0.95

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        named = [(n, p) for n, p in parameters if p.requires_grad]
        hidden = [p for n, p in named if p.dim() == 2 and not _at_an_end(n)]
        taken = {id(p) for p in hidden}
        return [
            *([MuonOptimizer(hidden, lr=self.lr, momentum=self.momentum)] if hidden else []),
            *self.rest.build([(n, p) for n, p in named if id(p) not in taken]),
        ]


OptimizerSpec = AdamW | Muon


def _at_an_end(name: str) -> bool:
    """Embeddings and heads of the families at hand: their rows are tokens or scalars, not a map between features."""
    ends = ("embed", "wte", "wpe", "lm_head", "score", "value_head", "classifier")
    return any(part in name for part in ends) or "head" in name.split(".")


def _fusable(parameters: list[nn.Parameter]) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)


class MuonOptimizer(torch.optim.Optimizer):
    """Momentum, orthogonalised by five Newton-Schulz steps, in the number type of the weights.

    `torch.optim.Muon` runs these steps in bf16, which a CPU without bf16 units does a hundred times slower; here
    matrices of one shape are orthogonalised together in one batched product.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, same in by_shape.items():
                update = orthogonalise(torch.stack([self._momentum(p, group["momentum"]) for p in same]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for p, u in zip(same, update, strict=True):
                    p.add_(u, alpha=-group["lr"] * scale)

    def _momentum(self, p: nn.Parameter, momentum: float) -> Tensor:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum)


def orthogonalise(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices, roughly: singular values end between 0.7 and 1.2.

    Quintic Newton-Schulz iteration with the coefficients of K. Jordan (2024), "Muon: an optimizer for hidden layers".

    Args:
        matrices: float [n, rows, columns].
        steps: iterations.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
