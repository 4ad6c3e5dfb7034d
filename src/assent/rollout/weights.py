"""Weights by name: taking new ones, and proving which ones are read."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from assent.errors import ContractError
from assent.functional.fingerprint import fingerprint


class Weights:
    """The tensors an engine reads, under the names its trainer uses for them.

    Args:
        model: its parameters at this moment are what the engine reads; they are held, not looked up again, so that a
            model whose parameters are later *replaced* by new objects shows a fingerprint other than its engine's.
    """

    def __init__(self, model: nn.Module) -> None:
        self._held: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self._held.update(model.state_dict(keep_vars=True))
        self._names = [name for name, _ in model.named_parameters()]
        self.version = 0

    def take(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Copy the given tensors into the held ones; a tensor that *is* the held one costs nothing.

        Raises:
            ContractError: a name is unknown or missing, or a shape differs.
        """
        self._check(weights)
        with torch.no_grad():
            for name, tensor in weights.items():
                held = self._held[name]
                if not _same_memory(held, tensor):
                    held.copy_(tensor)
        self._names = list(weights)
        self.version = version

    def _check(self, weights: Mapping[str, Tensor]) -> None:
        given = {id(self._held[name]) for name in weights if name in self._held}
        unknown = sorted(set(weights) - set(self._held))
        missing = sorted(name for name in self._names if id(self._held[name]) not in given)
        if unknown or missing:
            raise ContractError(
                "the weights do not belong to this engine's model",
                got=f"unknown {unknown[:3]} ({len(unknown)} in all), missing {missing[:3]} ({len(missing)} in all)",
                why="a weight that is not taken over would be sampled from in its old state",
                fix="pass every parameter of the policy under the names of model.named_parameters()",
            )
        for name, tensor in weights.items():
            if tensor.shape != self._held[name].shape:
                raise ContractError(
                    "a weight has another shape than the engine's",
                    got=f"{name}: {tuple(tensor.shape)} for {tuple(self._held[name].shape)}",
                    why="learner and engine hold different models",
                    fix="build both from the same model folder",
                )

    def fingerprint(self) -> str:
        return fingerprint({name: self._held[name] for name in self._names})


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and a.stride() == b.stride() and a.device == b.device
