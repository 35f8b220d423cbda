"""Tensors in a safetensors file with a header in JSON, which says what they were when they were written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import RunError

HEADER, DIGEST = "unsample", "sha256"


def tensor_bytes(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """The file, with a digest of its header and tensors."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    whole = {**header, DIGEST: _digest(ready, header)}
    data: bytes = save(ready, metadata={HEADER: json.dumps(whole)})  # one entry, for several come in any order
    return data


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and header of a file, or None if it is missing, not whole, or not what was written.

    Raises:
        RunError: It cannot be read now, as when too many files are open.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, SafetensorError, KeyError, ValueError, RecursionError):
        return None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from None
    digest = header.pop(DIGEST, None) if isinstance(header, dict) else ""
    return None if digest is not None and digest != _digest(tensors, header) else (tensors, header)


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    whole = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        whole.update(f"\0{name}\0{tensors[name].dtype}\0{list(tensors[name].shape)}\0".encode())
        whole.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
