"""The families of models that are known, and `from_pipeline`: from a diffusers pipeline to a `Model`.

`FAMILIES` is the table of what is supported. A family is a thin adapter, one file each: what its network is called with, how a
condition is encoded, and which codec and schedule go with it. Everything else is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

import torch

from ...core.model import Model
from ...errors import ModelError
from .live import check_live, evaluating
from .prompts import Embedding, PromptConditioner
from .shapes import Size

__all__ = ["FAMILIES", "OPTIONAL", "Family", "family_of", "from_pipeline", "whole"]


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Attributes:
        name: What people call it.
        module: The adapter, a file of this package with `adapt(pipeline, size) -> Model`.
        parts: The parts of a pipeline that an inversion needs, in the order it uses them.
        pipelines: The diffusers classes it comes in.
        channels_last: Its U-Net is laid out so when it is read, and faster for it.
    """

    name: str
    module: str
    parts: tuple[str, ...]
    pipelines: tuple[str, ...]
    channels_last: bool = False

    def adapt(self, pipeline: Any, size: Size | None) -> Model:
        """The model of a pipeline."""
        adapter: Callable[[Any, Size | None], Model] = import_module(f".{self.module}", __package__).adapt
        return adapter(pipeline, size)


OPTIONAL = ("tokenizer_3", "text_encoder_3")
"""Parts that a pipeline works without; they are None."""

FAMILIES = (
    Family("pixel U-Net", "pixel", ("unet", "scheduler"), ("DDPMPipeline", "DDIMPipeline"), channels_last=True),
    Family("score-based U-Net", "score", ("unet", "scheduler"), ("ScoreSdeVePipeline",)),
    Family("latent U-Net", "latent", ("vqvae", "unet", "scheduler"), ("LDMPipeline",), channels_last=True),
    Family("DiT", "dit", ("vae", "transformer", "scheduler"), ("DiTPipeline",)),
    Family(
        "Stable Diffusion",
        "stable_diffusion",
        ("tokenizer", "text_encoder", "vae", "unet", "scheduler"),
        ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
    ),
    Family(
        "Stable Diffusion XL",
        "stable_diffusion",
        ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "vae", "unet", "scheduler"),
        ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
    ),
    Family(
        "DeepFloyd IF", "deepfloyd", ("tokenizer", "text_encoder", "unet", "scheduler"), ("IFPipeline", "IFImg2ImgPipeline")
    ),
    Family(
        "PixArt",
        "pixart",
        ("tokenizer", "text_encoder", "vae", "transformer", "scheduler"),
        ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
    ),
    Family(
        "Stable Diffusion 3",
        "stable_diffusion_3",
        (
            *("tokenizer", "tokenizer_2", "tokenizer_3", "text_encoder", "text_encoder_2", "text_encoder_3"),
            *("vae", "transformer", "scheduler"),
        ),
        ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"),
    ),
    Family(
        "FLUX",
        "flux",
        ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "vae", "transformer", "scheduler"),
        ("FluxPipeline", "FluxImg2ImgPipeline"),
    ),
)


def family_of(pipeline: str) -> Family:
    """The family of a diffusers pipeline class.

    Raises:
        ModelError: None that is known.

    >>> family_of("StableDiffusionXLPipeline").name
    'Stable Diffusion XL'
    """
    for family in FAMILIES:
        if pipeline in family.pipelines:
            return family
    raise ModelError(
        f"no adapter for the pipeline class {pipeline!r}: expected one of {', '.join(f.pipelines[0] for f in FAMILIES)}; "
        "any other network can be brought with unsample.Model.from_callable"
    )


def whole(pipeline: Any) -> Any:
    """`pipeline`, if it has all parts that an inversion needs.

    Raises:
        ModelError: A part is missing or None, or the class of the pipeline is not known.
    """
    family = family_of(type(pipeline).__name__)
    parts = getattr(pipeline, "components", {})
    lacking = [part for part in family.parts if parts.get(part) is None and part not in OPTIONAL]
    if lacking:
        raise ModelError(f"{type(pipeline).__name__} lacks {', '.join(lacking)}: expected a whole pipeline of {family.name}")
    return pipeline


def from_pipeline(pipeline: Any, *, size: Size | None = None, name: str = "", digest: str = "") -> Model:
    """The model of a live diffusers pipeline, which shares its networks and stays as it is.

    Args:
        pipeline: An instance of a class of `FAMILIES`.
        size: Height and width of the images; default is the size the pipeline makes by itself.
        name: For manifests; default is the class.
        digest: For manifests, a hash of its weights.

    Raises:
        ModelError: A pipeline of another class, or one with parts that do not belong to its family.
        ArgumentError: A size that the model cannot take.
    """
    family = family_of(type(pipeline).__name__)
    check_live(pipeline.components["unet" if "unet" in family.parts else "transformer"])
    model = family.adapt(pipeline, size)
    conditioner = model.conditioner
    if isinstance(conditioner, PromptConditioner):
        encoders = [part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part is not None]
        conditioner = replace(conditioner, encode=partial(_encoded, encoders, conditioner.encode))
    return replace(
        model,
        conditioner=conditioner,
        device=torch.device(pipeline._execution_device),
        name=name or type(pipeline).__name__,
        digest=digest,
        family=family.name,
    )


def _encoded(encoders: Sequence[Any], encode: Callable[[str | None], Embedding], prompt: str | None) -> Embedding:
    """The encoding of a prompt by text encoders in evaluation."""
    with ExitStack() as stack:
        for encoder in encoders:
            stack.enter_context(evaluating(encoder))
        return encode(prompt)
