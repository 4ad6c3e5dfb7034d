"""Digest of named tensors: proof of which weights a part really holds."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint(named: Mapping[str, Tensor]) -> str:
    """sha256 over names, number types, shapes and bytes, in the order of the names, as hexadecimal text.

    Args:
        named: tensors of any shape and device; a change of one bit changes the digest.
    """
    digest = hashlib.sha256()
    for name in sorted(named):
        tensor = named[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
