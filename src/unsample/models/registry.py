"""`load`: from a name or a directory to a `Model`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from ..errors import ArgumentError, ModelError, UnknownNameError
from ..model import Model
from .pixel import load_pixel

__all__ = ["Card", "cards", "load"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True)
class Card:
    """What `unsample models` says of a model."""

    name: str
    family: str
    size: str
    parameters: str
    conditions: str
    licence: str
    about: str

    @property
    def path(self) -> Path:
        """Where its weights are, or would be."""
        return Path(str(resources.files(__package__) / "weights" / self.name))

    @property
    def present(self) -> bool:
        """Whether they are."""
        return (self.path / "model_index.json").is_file()


def cards() -> dict[str, Card]:
    """The models known by name."""
    text = (resources.files(__package__) / "cards.toml").read_text()
    return {name: Card(name=name, **entry) for name, entry in tomllib.loads(text).items()}


def load(
    name: str = "tiny-imagenet-32",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    revision: str | None = None,
) -> Model:
    """A model by name, directory or hub name.

    Args:
        name: A name of `unsample models`, a local directory in diffusers layout, or a hub name "owner/model".
        device: `auto` takes a GPU if there is one.
        dtype: The network's precision; states stay float32 or float64 whatever it is.
        revision: A commit or tag, for hub names.

    Raises:
        ModelError: Missing, damaged, or of a family that is not supported.
        UnknownNameError: A name without a slash that no card and no directory has.
    """
    device, dtype = device_of(device), _dtype(dtype)
    known = cards()
    if name in known:
        if not known[name].present:
            raise ModelError(f"the weights of {name!r} are not installed: expected them in {known[name].path}")
        return load_pixel(str(known[name].path), name=name, device=device, dtype=dtype)
    path = Path(name).expanduser()
    if path.is_dir():
        for part in ("unet/config.json", "scheduler/scheduler_config.json"):
            if not (path / part).is_file():
                raise ModelError(
                    f"{name} is not a diffusers pixel pipeline: expected {part} in it; save one with save_pretrained"
                )
        return load_pixel(str(path), name=path.name, device=device, dtype=dtype)
    if path.exists():
        raise ModelError(f"expected a directory in diffusers layout, given the file {name}; give the directory it is in")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UnknownNameError("model", name, known)
    return load_pixel(name, name=name, device=device, dtype=dtype, revision=revision)


def device_of(device: str | torch.device) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ArgumentError(f"expected a device like cpu, cuda or cuda:1, given {device!r}") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"device {device!r} was asked for, but this PyTorch sees no CUDA device; use cpu")
    return chosen


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise UnknownNameError("dtype", dtype, _DTYPES)
    return _DTYPES[dtype]
