"""Which weights of a scalar model are trained: all, or its head and the layers next to it."""

from torch import nn

from assent.errors import ConfigError
from assent.models.encoder import ClassifierEncoder
from assent.models.folders import AnyScalar


def train_top(scalar: AnyScalar, layers: int) -> int:
    """Freeze all but the head, the last `layers` blocks of the trunk and what stands between them (norm, pooler).

    Args:
        layers: 0 trains the head alone (linear probing).

    Returns:
        How many weights are trained.

    Raises:
        ConfigError: the trunk has fewer blocks.
    """
    trunk = scalar.model.base_model
    blocks = max((m for m in trunk.modules() if isinstance(m, nn.ModuleList)), key=len, default=nn.ModuleList())
    if layers > len(blocks):
        raise ConfigError(
            "there are not so many layers to train",
            got=f"train_layers: {layers} for {len(blocks)} layers of {type(scalar.model).__name__}",
            why="a setting that cannot be kept would mislead",
            fix="leave train_layers out to train everything",
        )
    scalar.requires_grad_(True)
    trunk.requires_grad_(False)
    if layers:
        blocks[-layers:].requires_grad_(True)  # type: ignore[union-attr]
    own_head = isinstance(scalar, ClassifierEncoder)
    if layers or own_head:
        _above(trunk, blocks, pooler=own_head)
    return sum(p.numel() for p in scalar.parameters() if p.requires_grad)


def _above(trunk: nn.Module, blocks: nn.ModuleList, *, pooler: bool) -> None:
    """Train what is neither embedding nor block: final norms, and the pooler where the score goes through it."""
    for name, child in trunk.named_children():
        inside = list(child.modules())
        below = any(isinstance(m, nn.Embedding) or m is blocks for m in inside)
        if not below and (pooler or name != "pooler"):
            child.requires_grad_(True)
