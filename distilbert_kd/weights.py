"""The identity of a model's weights."""

import hashlib

import torch
from torch import nn


__all__ = ["weights_sha256"]


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of all weights and buffers, whatever the mode."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
