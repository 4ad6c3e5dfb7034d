"""Looking without touching: whatever a check draws or switches is put back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from assent.protocols import Stateful


@contextmanager
def no_trace(module: nn.Module, *parts: Stateful, training: bool | None = None) -> Iterator[None]:
    """Restore the modules' modes, the parts' states and the global random streams of torch, numpy and Python.

    Args:
        module: holds every model whose mode matters.
        parts: whose state is put back, such as running moments and KL coefficient.
        training: mode to set meanwhile; None leaves it.
    """
    modes = [(m, m.training) for m in module.modules()]
    states = [part.state_dict() for part in parts]
    python, numbers = random.getstate(), np.random.get_state()
    devices = list({p.device.index or 0 for p in module.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        try:
            if training is not None:
                module.train(training)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)
            for part, state in zip(parts, states, strict=True):
                part.load_state_dict(state)
            for m, mode in modes:
                m.training = mode
