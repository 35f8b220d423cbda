"""`load`: from a name, a directory, a file or a live pipeline to a `Model`."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ..errors import ArgumentError, ModelError, UnknownNameError
from ..model import ClassConditioner, Model
from .families import digest_of, family_of, from_pipeline
from .memory import one_at_a_time
from .parts import read_index, read_pipeline

__all__ = ["Card", "cards", "device_of", "load"]

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
    source: Any = "tiny-imagenet-32",
    *,
    size: tuple[int, int] | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    revision: str | None = None,
    variant: str | None = None,
    offload: bool = False,
    tiling: bool = False,
) -> Model:
    """The model of a name, a directory, a file, a hub name, or a diffusers pipeline.

    Args:
        source: A name of `unsample models`, a local directory in diffusers layout, a hub name "owner/model", or a live
            pipeline. A live pipeline shares its networks, and keeps its device and precision.
        size: Height and width of the images, for models that take several; default is the model's own.
        device: `auto` takes a GPU if there is one.
        dtype: The networks' precision; states stay float32 or float64 whatever it is, and autoencoders at least float32.
        revision: A commit or tag, for hub names.
        variant: `fp16` reads the weights saved under that name.
        offload: Keep text encoder, autoencoder and network on the CPU, and only the one at work on the device.
        tiling: Let the autoencoder work through large images in tiles.

    Raises:
        ModelError: Missing, damaged, or of a family that is not supported.
        UnknownNameError: A name without a slash that no card and no directory has.
        ArgumentError: A size, device or precision that cannot be had.
    """
    if isinstance(source, Model):
        return source
    if not isinstance(source, (str, Path)):
        return from_pipeline(source, size=size)
    device, dtype = device_of(device), _dtype(dtype)
    name, path = _find(str(source), revision, variant)
    index = read_index(path)
    family = family_of(index["_class_name"])
    pipeline = read_pipeline(path, index, family.parts, dtype=dtype, variant=variant)
    autoencoder = pipeline.components.get("vae")
    if tiling:
        if not hasattr(autoencoder, "enable_tiling"):
            raise ArgumentError(f"model {name!r} has no autoencoder that works in tiles: leave out tiling")
        autoencoder.enable_tiling()
    networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    digest = digest_of(pipeline.components["unet" if "unet" in family.parts else "transformer"])
    if offload:
        one_at_a_time(networks, device)
    else:
        pipeline.to(device)
    try:
        model = from_pipeline(pipeline, size=size, name=name, digest=digest)
    except ModelError as error:
        raise ModelError(f"cannot load {name!r}: {error}") from None
    return replace(model, device=device, conditioner=_named(path, model.conditioner))


def _find(name: str, revision: str | None, variant: str | None) -> tuple[str, Path]:
    """What a model is called, and the directory it is in, downloaded if need be."""
    known = cards()
    if name in known:
        if not known[name].present:
            raise ModelError(f"the weights of {name!r} are not installed: expected them in {known[name].path}")
        return name, known[name].path
    path = Path(name).expanduser()
    if path.is_dir():
        return path.name, path
    if path.exists():
        raise ModelError(f"expected a directory in diffusers layout, given the file {name}; give the directory it is in")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UnknownNameError("model", name, known)
    return name, _download(name, revision, variant)


def _download(name: str, revision: str | None, variant: str | None) -> Path:
    """The directory that a hub's model is in, once its safetensors are; HF_HUB_OFFLINE=1 takes only what is there."""
    from diffusers import DiffusionPipeline

    unused: dict[str, None] = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder", "watermarker"))
    try:
        return Path(
            DiffusionPipeline.download(
                name, revision=revision, variant=variant, use_safetensors=True, trust_remote_code=False, **unused
            )
        )
    except Exception as error:  # diffusers and the hub each raise their own
        raise ModelError(f"cannot load {name!r} from the hub: {' '.join(str(error).split())[:300]}") from None


def _named(path: Path, conditioner: Any) -> Any:
    """The conditioner with the names that a `classes.json`, {"names": [...], "null": index}, gives its classes."""
    file = path / "classes.json"
    if not (isinstance(conditioner, ClassConditioner) and file.is_file()):
        return conditioner
    classes = len(conditioner.names)
    try:
        given = json.loads(file.read_text())
        names, null = tuple(map(str, given["names"])), given["null"]
        if len(names) > classes or not (null is None or 0 <= null < classes):
            raise ValueError(f"it names {len(names)} classes, the network has {classes}")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f'{file} is damaged: expected {{"names": [...], "null": index}} ({error})') from None
    return ClassConditioner(names, null)


def device_of(device: str | torch.device) -> torch.device:
    """The device of a name; `auto` is a GPU if there is one."""
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
