"""Tensors in a safetensors file with a header in JSON, which says what they were when they were written; parts of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from typing_extensions import TypedDict

from ..core.files import ABSENT, regular
from ..core.reading import json_of
from ..errors import RunError

HEADER, DIGEST = "unsample", "sha256"


class _Header(TypedDict, total=False):
    """What the file of a part says besides its tensors."""

    nfe: int
    seconds: float
    nfe_up: int
    files: dict[str, str]


@dataclass(frozen=True, eq=False)
class Part:
    """A finished piece of a run: tensors with one row per item, what they cost in all, and on the way up alone.

    `files` are the digests of files that were written with it.
    """

    tensors: Mapping[str, Tensor]
    nfe: int
    seconds: float
    nfe_up: int = 0
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, signed: bool) -> Part | None:
        """The part that a file holds; None and errors as `read_tensors`."""
        found = read_tensors(path, signed=signed)
        try:
            return cls(found[0], **TypeAdapter(_Header).validate_python(found[1])) if found else None
        except ValidationError:
            return None

    @property
    def rows(self) -> int:
        """How many items it is of."""
        return len(next(iter(self.tensors.values()), ()))

    def to_bytes(self) -> bytes:
        """The file that `read` takes."""
        header = {"nfe": self.nfe, "seconds": self.seconds, "nfe_up": self.nfe_up, "files": dict(self.files)}
        return tensor_bytes(self.tensors, header)


def tensor_bytes(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """The file, with a digest of its header and tensors."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    whole = {**header, DIGEST: _digest(ready, header)}
    data: bytes = save(ready, metadata={HEADER: json.dumps(whole)})  # one entry, for several come in any order
    return data


def read_tensors(path: Path, *, signed: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and header of a file, or None if it is missing, not whole, or not what was written.

    Files of earlier versions have no digest: where one must be there, `signed`, they are not what was written either.

    Raises:
        RunError: It cannot be read now, as when too many files are open.
    """
    try:
        with safe_open(str(regular(path)), framework="pt") as file:
            header = json_of((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (*ABSENT, SafetensorError, KeyError, ValueError):
        return None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from None
    digest = header.pop(DIGEST, None) if isinstance(header, dict) else ""
    unsigned = digest is None and not signed
    return (tensors, header) if unsigned or digest == _digest(tensors, header) else None


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    whole = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        whole.update(f"\0{name}\0{tensors[name].dtype}\0{list(tensors[name].shape)}\0".encode())
        whole.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
