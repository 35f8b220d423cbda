"""`load`: from a name, a directory, a file or a live pipeline to a `Model`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .._arguments import Idle, optional, sides, takes
from ..core.files import expanded
from ..core.model import ClassConditioner, Model
from ..core.reading import read_json
from ..errors import ArgumentError, ModelError, UnknownNameError, one_line, shortened
from .cards import FOLDER, Card, cards
from .digest import digest_of
from .download import how_to_fetch
from .families import family_of, from_pipeline, whole
from .offload import one_at_a_time
from .openai import SUFFIXES, load_openai
from .pipeline_files import quiet, read_index, read_pipeline

CONFIGS = ("model_index.json", "*config.json", "classes.json")
"""Files of a model on the hub that describe it."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@takes(
    {"size": optional(sides)},
    [
        Idle(
            ("device", "dtype", "revision", "variant", "offload", "tiling"),
            lambda given: not isinstance(given.source, (str, Path)),
            "on a pipeline or model, which is loaded already",
        ),
        Idle(
            ("size",),
            lambda given: isinstance(given.source, Model) and given.size != given.source.image_size,
            "on a Model, which has one",
        ),
    ],
)
def load(
    source: Any = "tiny-imagenet-32-v",
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
        source: A name of `unsample models`, a local directory in diffusers layout, a hub name "owner/model", a checkpoint of
            improved-diffusion or guided-diffusion (.pt), or a live pipeline. A live pipeline shares its networks, and keeps
            its device and precision.
        size: Height and width of the images, for models that take several; default is the model's own.
        device: `auto` takes a GPU if there is one.
        dtype: The networks' precision; states stay float32 or float64 whatever it is, and autoencoders at least float32.
        revision: A commit or tag, for hub names.
        variant: `fp16` reads the weights saved under that name; of directories and hub names.
        offload: Keep text encoder, autoencoder and network on the CPU, and only the one in use on the device.
        tiling: Let the autoencoder work through large images in tiles.

    Raises:
        ModelError: Missing, damaged, or of a family that is not supported.
        UnknownNameError: A name without a slash that no card and no directory has.
        ArgumentError: A size, device or precision that cannot be had; an argument that is not for such a source.
    """
    if not isinstance(source, (str, Path)):
        given = {"revision": revision, "variant": variant, "offload": offload or None, "tiling": tiling or None}
        _refuse(**given, of="a live model is taken as it is")
    if isinstance(source, Model):
        return source
    if not isinstance(source, (str, Path)):
        return from_pipeline(whole(source), size=size)
    device, dtype = device_of(device), _dtype(dtype)
    name, path = find(str(source), revision, variant)
    if path.is_file():
        _refuse(variant=variant, of=f"{name} is one file")
        return load_openai(path, name=name, size=size, device=device, dtype=dtype, offload=offload, tiling=tiling)
    index = read_index(path)
    family = family_of(index["_class_name"])
    pipeline = read_pipeline(path, index, family.parts, dtype=dtype, variant=variant)
    if family.channels_last:
        pipeline.unet.to(memory_format=torch.channels_last)
    if tiling:
        _work_in_tiles(pipeline, name)
    parts = (pipeline.components[part] for part in family.parts)
    networks = [part for part in parts if isinstance(part, torch.nn.Module)]
    digest = digest_of(*networks)
    if offload:
        one_at_a_time(networks, device)
    else:
        with quiet():
            pipeline.to(device)
    return replace(adapted(path, pipeline, name, size, digest), device=device)


def _work_in_tiles(pipeline: Any, name: str) -> None:
    """Have the autoencoder work in tiles, if there is one."""
    autoencoder = pipeline.components.get("vae") or pipeline.components.get("vqvae")
    if not hasattr(autoencoder, "enable_tiling"):
        raise ArgumentError(f"model {name!r} has no autoencoder that works in tiles: leave out tiling")
    autoencoder.enable_tiling()


def adapted(path: Path, pipeline: Any, name: str, size: tuple[int, int] | None, digest: str = "") -> Model:
    """The model of a pipeline that was read from `path`, its classes named.

    Raises:
        ModelError: Its parts do not fit together, or a config says what it cannot mean.
        ArgumentError: A size that the model cannot take.
    """
    try:
        return _named(path, from_pipeline(pipeline, size=size, name=name, digest=digest))
    except ModelError as error:
        raise ModelError(f"cannot load {name!r}: {error}") from None
    except ArgumentError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f"cannot load {name!r}: its configs do not fit together or are damaged ({one_line(error, 200)})"
        ) from None


def find(name: str, revision: str | None = None, variant: str | None = None, *, weights: bool = True) -> tuple[str, Path]:
    """The name of a model and its directory or file, downloaded if need be; without weights, its configs alone.

    Raises:
        ModelError: Known by name, but neither here nor to be had.
        UnknownNameError: A name without a slash that no card and no directory has.
        ArgumentError: A revision of a model that is not on the hub.
    """
    known, path = cards(), expanded(name)
    if name in known:
        path = known[name].path or _fetched(known[name], revision, variant, weights)
        _refuse(revision=revision if known[name].path else None, of=f"{name} is read from {path}")
        return name, path
    if path.is_dir() or path.is_file():
        _refuse(revision=revision, of=f"{name} is read from there")
    if path.is_dir():
        return path.name, path
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise ModelError(f"expected a checkpoint, given {name}: there is no such file")
        return path.stem, path
    if path.exists():
        raise ModelError(f"expected a directory in diffusers layout, given the file {name}; give the directory it is in")
    if "/" not in name:
        raise UnknownNameError("model", name, known, see="`unsample models` lists them")
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"expected a model's directory, given {name}: there is no such directory")
    return name, _download(name, revision, variant, weights)


def _refuse(*, of: str, **given: Any) -> None:
    """Refuse arguments that would be passed over in silence, whose values are not None."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ArgumentError(f"{of}: leave out {' and '.join(names)}")


def _fetched(card: Card, revision: str | None, variant: str | None, weights: bool) -> Path:
    """The directory of a model that is known by name, from the hub."""
    if card.files:
        raise ModelError(f"the weights of {card.name!r} are not here: {how_to_fetch(card.name)}")
    if not card.source:
        raise ModelError(f"the weights of {card.name!r} are not installed: install unsample again")
    if not card.on_hub:
        raise ModelError(
            f"the weights of {card.name!r} are not here: expected the file {card.source} in the current folder or in that of "
            f"{FOLDER}; github.com/openai/{card.about} links to it"
        )
    try:
        return _download(card.source, revision, variant, weights)
    except ModelError as error:
        raise ModelError(f"{card.name!r} is not here: {error}, or put its directory into that of {FOLDER}") from None


def _download(name: str, revision: str | None, variant: str | None, weights: bool) -> Path:
    """The directory that a hub's model is in, once its safetensors are; HF_HUB_OFFLINE=1 takes only what is there."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import snapshot_download

    unused: dict[str, None] = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder", "watermarker"))
    safe: dict[str, Any] = {"variant": variant, "use_safetensors": True, "trust_remote_code": False, **unused}
    try:
        with quiet():
            if weights:
                return Path(DiffusionPipeline.download(name, revision=revision, **safe))
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(CONFIGS)))
    except Exception as error:  # diffusers and the hub each raise their own
        raise ModelError(
            f"cannot load {name!r} from the hub ({one_line(error)}); where there is a network, `hf download {name}` fetches it"
        ) from None


def classes_of(model: Model) -> ClassConditioner | None:
    """The classes that a model is conditioned on; None for one that takes prompts or nothing."""
    own = getattr(model.conditioner, "classes", model.conditioner)
    return own if isinstance(own, ClassConditioner) else None


def _named(path: Path, model: Model) -> Model:
    """The model with the names that a `classes.json`, {"names": [...], "null": index}, gives its classes."""
    file, own = path / "classes.json", classes_of(model)
    if own is None or not file.is_file():
        return model
    classes = len(own.names)
    try:
        given = read_json(file)
        names, null = tuple(map(str, given["names"])), given["null"]
        if len(names) > classes or not (null in (None, own.null) or 0 <= null < classes):
            raise ValueError(f"it names {len(names)} classes, the network has {classes}")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f'{file} is damaged: expected {{"names": [...], "null": index}} ({error})') from None
    return replace(model, conditioner=ClassConditioner(names, null))


def device_of(device: str | torch.device) -> torch.device:
    """The device of a name; `auto` is a GPU if there is one.

    Raises:
        ArgumentError: No such device, or none that this PyTorch can compute on.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise ArgumentError(f"expected a device like cpu, cuda or cuda:1, given {shortened(repr(device))}") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"device {device!r} is not available: this PyTorch sees no CUDA device; use cpu")
    try:
        torch.zeros(1, device=chosen).cpu()
    except Exception:  # each backend raises its own
        raise ArgumentError(f"device {str(device)!r} is not available: this PyTorch holds no values there; use cpu") from None
    return chosen


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise UnknownNameError("dtype", dtype, _DTYPES)
    return _DTYPES[dtype]
