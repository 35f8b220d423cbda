"""DeepFloyd IF, its first stage (Shonenkov et al. 2023, after Saharia et al. 2022): a U-Net with T5 text, on pixels.

Its own sampling thresholds x0 at every step; what that clips cannot be undone, so neither direction does it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...core.model import Model
from ...errors import ModelError
from ..scheduler_config import sampler_of
from . import sides, sizes
from .pixel import noise_channels
from .prompts import Embedding, PromptConditioner
from .stable_diffusion import TextUNet

__all__ = ["adapt", "cleaning"]

UNCLEANED = (
    "the pipeline's cleaning of prompts is left out, as the pipeline itself does without beautifulsoup4 and ftfy: "
    "install both (unsample[text]) for the prompts it was trained on"
)


def adapt(pipeline: Any, size: tuple[int, int] | None) -> Model:
    """The model of an `IFPipeline` or `IFImg2ImgPipeline`, whose unconditional is the empty prompt; drops a learned variance.

    Raises:
        ModelError: A super-resolution stage, whose network is also given a smaller image.
    """
    unet, config = pipeline.unet, pipeline.unet.config
    if config.in_channels != 3:  # the second stage maps 6 channels to 6, two images to an image and its variance
        raise ModelError(
            f"the network takes {config.in_channels} channels: expected the 3 of stage I; "
            "super-resolution stages are not inverted, so give the first stage"
        )
    height, width = sizes(size, sides(config.sample_size), 2 ** (len(config.block_out_channels) - 1))
    channels = noise_channels(config.in_channels, config.out_channels)
    clean, notes = cleaning()
    sampler = sampler_of(pipeline.scheduler)
    return Model(
        network=TextUNet(unet, channels),
        shape=(channels, height, width),
        conditioner=PromptConditioner(_encoder(pipeline, clean)),
        **{**sampler, "notes": sampler["notes"] + notes},
    )


def cleaning() -> tuple[bool, tuple[str, ...]]:
    """Whether prompts can be cleaned as T5 pipelines do by default (of links, file names and the like), and a note if not."""
    from diffusers import utils

    clean = bool(utils.is_bs4_available() and utils.is_ftfy_available())
    return clean, () if clean else (UNCLEANED,)


def _encoder(pipeline: Any, clean: bool) -> Callable[[str | None], Embedding]:
    def encode(prompt: str | None) -> Tensor:
        tokens: Tensor = pipeline.encode_prompt(prompt or "", False, clean_caption=clean)[0]
        return tokens

    return encode
