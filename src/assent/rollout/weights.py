"""Weights by name: taking new ones, and proving which ones are read."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from assent.errors import ContractError
from assent.functional.fingerprint import fingerprint


class Weights:
    """The tensors of a model, under every name that a trainer may use for them; looked up again at each use.

    Args:
        model: a Hugging Face model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names: list[str] = []
        self.version = 0

    def _held(self) -> dict[str, Tensor]:
        """Tied weights under each of their names, and the buffers that a state dict holds."""
        held: dict[str, Tensor] = dict(self._model.named_parameters(remove_duplicate=False))
        held.update(self._model.state_dict(keep_vars=True))
        return held

    def take(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Copy the given tensors into the held ones; a tensor that *is* the held one costs nothing.

        Raises:
            ContractError: a name is unknown or missing, or a shape differs.
        """
        held = self._held()
        self._check(weights, held)
        with torch.no_grad():
            for name, tensor in weights.items():
                if not _same_memory(held[name], tensor):
                    held[name].copy_(tensor)
        self._names = list(weights)
        self.version = version

    def _check(self, weights: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> None:
        given = {id(held[name]) for name in weights if name in held}
        unknown = sorted(set(weights) - set(held))
        missing = sorted(name for name, p in self._model.named_parameters() if id(p) not in given)
        if unknown or missing:
            raise ContractError(
                "the weights do not belong to this engine's model",
                got=f"unknown {unknown[:3]} ({len(unknown)} in all), missing {missing[:3]} ({len(missing)} in all)",
                why="a weight that is not taken over would be sampled from in its old state",
                fix="pass every parameter of the policy under the names of model.named_parameters()",
            )
        for name, tensor in weights.items():
            if tensor.shape != held[name].shape:
                raise ContractError(
                    "a weight has another shape than the engine's",
                    got=f"{name}: {tuple(tensor.shape)} for {tuple(held[name].shape)}",
                    why="learner and engine hold different models",
                    fix="build both from the same model folder",
                )

    def fingerprint(self) -> str:
        """Digest under the names last taken, and under its own name any parameter that these do not cover."""
        held = self._held()
        named = {name: held[name] for name in self._names if name in held}
        covered = {id(tensor) for tensor in named.values()}
        named.update((name, p) for name, p in self._model.named_parameters() if id(p) not in covered)
        return fingerprint(named)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and a.stride() == b.stride() and a.device == b.device
