"""What a model is, read from its configs alone: no weights are read, so that the largest pipeline takes a moment.

A checkpoint file has no config beside it that says all, and is read whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..core.model import Model, PixelCodec
from ..core.schedule import AnySchedule, FlowSchedule
from .families import family_of, from_pipeline
from .load import adapted, classes_of, find, load
from .notes import VARIANCE_DROPPED
from .pipeline_files import read_index, read_pipeline


@dataclass(frozen=True)
class Inspection:
    """What a model is.

    Attributes:
        name: What it is called.
        family: Of `unsample.models.families`; "" for a model made by hand.
        pipeline: Its diffusers class; "" for one that is none.
        parameters: Of each network but the text encoders.
        shape: Channels, height and width of a state.
        image_size: Height and width of its images.
        codec: `kind`, `scale` (pixels to a cell), and the `factor` and `shift` in state = (latent - shift) * factor.
        schedule: `kind`, `timesteps`, `digest`, and the `alpha_bar` of its first and last level, or a flow model's `shift`.
        prediction: What the network predicts.
        spacing, steps_offset, clean: The grid of the model's own sampler; None for a flow model, whose schedule is its grid.
        conditions: What it can be conditioned on, in words.
        guidance: How it is guided, in words.
        notes: What was found in its files and is not used.
        classes: Their names, of a model with classes.
    """

    name: str
    family: str
    pipeline: str
    parameters: Mapping[str, int]
    shape: tuple[int, int, int]
    image_size: tuple[int, int]
    codec: Mapping[str, str | float]
    schedule: Mapping[str, str | float]
    prediction: str
    spacing: str | None
    steps_offset: int | None
    clean: str | None
    conditions: str
    guidance: str
    notes: tuple[str, ...]
    classes: tuple[str, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Its attributes, for JSON; without the names of its classes."""
        return {name: value for name, value in asdict(self).items() if name != "classes"}

    def rows(self) -> list[tuple[str, str]]:
        """Its attributes for people, one line each."""
        sizes = {"shape": "x".join(map(str, self.shape)), "image_size": "x".join(map(str, self.image_size))}
        values = {**vars(self), **sizes, "parameters": {name: f"{count:,}" for name, count in self.parameters.items()}}
        lines = {**values, "notes": "; ".join(self.notes) or "none"}
        return [
            (name, _line(value))
            for name, value in lines.items()
            if name not in ("name", "classes") and value not in (None, "")
        ]


def inspect_model(source: Any, *, size: tuple[int, int] | None = None, revision: str | None = None) -> Inspection:
    """What the model of a name, a directory, a file, a hub name or a pipeline is; for a hub name its configs are downloaded.

    Args:
        source: As for `unsample.load`, or a `Model`.
        size: Height and width of the images; default is the model's own.
        revision: A commit or tag, for hub names.

    Raises:
        ModelError: Missing, damaged, or of a family that is not supported.
        UnknownNameError: A name without a slash that no card and no directory has.
        ArgumentError: A size that the model cannot take.

    >>> network = inspect_model("tiny-imagenet-32")
    >>> network.family, network.shape, network.parameters
    ('pixel U-Net', (3, 32, 32), {'unet': 2761827})
    """
    if isinstance(source, Model):
        return _inspection(source)
    if not isinstance(source, (str, Path)):
        return _inspection(from_pipeline(source, size=size), source)
    name, path = find(str(source), revision, weights=False)
    if path.is_file():
        return replace(_inspection(load(path, size=size, device="cpu")), name=name)
    index = read_index(path)
    pipeline = read_pipeline(path, index, family_of(index["_class_name"]).parts, dtype=torch.float32, weights=False)
    return _inspection(adapted(path, pipeline, name, size), pipeline)


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_line(one)}" for name, one in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _inspection(model: Model, pipeline: Any = None) -> Inspection:
    networks = {} if pipeline is None else dict(pipeline.components)
    is_flow = isinstance(model.schedule, FlowSchedule)
    return Inspection(
        name=model.name,
        family=model.family,
        pipeline="" if pipeline is None else type(pipeline).__name__,
        parameters=_parameters(networks or {"network": model.network, **getattr(model.network, "__dict__", {})}),
        shape=model.shape,
        image_size=model.image_size,
        codec=_codec(model),
        schedule=_schedule(model.schedule),
        prediction=model.prediction,
        spacing=None if is_flow else model.spacing,
        steps_offset=None if is_flow else model.steps_offset,
        clean=None if is_flow else model.clean,
        conditions=_conditions(model),
        guidance=_guidance(model),
        notes=(*model.notes, *_dropped(networks)),
        classes=own.names if (own := classes_of(model)) else (),
    )


def _parameters(parts: Mapping[str, Any]) -> dict[str, int]:
    networks = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    return {
        name: sum(weight.numel() for weight in network.parameters())
        for name, network in networks.items()
        if not name.startswith("text_encoder")
    }


def _codec(model: Model) -> dict[str, str | float]:
    codec: Any = model.codec
    if isinstance(codec, PixelCodec):
        return {"kind": "none", "scale": codec.scale}
    kind = type(getattr(codec, "vae", codec)).__name__
    numbers = {name: float(getattr(codec, name)) for name in ("factor", "shift") if hasattr(codec, name)}
    return {"kind": kind, "scale": codec.scale, **numbers}


def _schedule(schedule: AnySchedule) -> dict[str, str | float]:
    common: dict[str, str | float] = {"timesteps": len(schedule), "digest": schedule.digest}
    if isinstance(schedule, FlowSchedule):
        return {"kind": "flow", **common, "shift": schedule.shift}
    return {"kind": "table", **common, "first_alpha_bar": schedule.alpha_bar[0], "last_alpha_bar": schedule.alpha_bar[-1]}


def _conditions(model: Model) -> str:
    own = classes_of(model)
    if own is not None:
        return f"{len(own.names)} classes{'' if own.null is None else ', none'}"
    return "none" if model.conditioner is None else "prompts"


def _guidance(model: Model) -> str:
    if model.distilled:
        return "an input of the network"
    own = classes_of(model)
    return "none" if model.conditioner is None or (own is not None and own.null is None) else "classifier-free"


def _dropped(networks: Mapping[str, Any]) -> tuple[str, ...]:
    """A learned variance, which a deterministic move has no use for."""
    for network in (networks.get("unet"), networks.get("transformer")):
        if network is not None and network.config.get("out_channels") == 2 * network.config.in_channels:
            return (VARIANCE_DROPPED,)
    return ()
