"""A short name for the exact weights of networks."""

from __future__ import annotations

import hashlib

import torch

LARGE, HASHED = 2**22, 2**16
"""Of tensors with more than LARGE values only HASHED, evenly spaced, are hashed: hashing billions takes minutes."""


def digest_of(*modules: torch.nn.Module) -> str:
    """A name for the exact weights of networks, 12 hexadecimal digits; "" for networks without any (on the meta device)."""
    digest = hashlib.sha256()
    for key, tensor in (entry for module in modules for entry in sorted(module.state_dict().items())):
        if tensor.is_meta:
            return ""
        flat = tensor.detach().flatten()
        if len(flat) > LARGE:
            flat = flat[:: len(flat) // HASHED]
        digest.update(key.encode())
        digest.update(flat.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
