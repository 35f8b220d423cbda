"""DeepFloyd IF, its first stage (Shonenkov et al. 2023, after Saharia et al. 2022): a U-Net with T5 text, on pixels.

Its own sampling thresholds x0 at every step; what that clips cannot be undone, so neither direction does it here.
"""

from __future__ import annotations

from typing import Any

from ...core.model import Model
from ...errors import ModelError
from ..scheduler_config import read_scheduler
from .prompts import PromptConditioner, cleaning
from .shapes import Size, halvings, noise_channels, state_shape
from .stable_diffusion import TextUNet


def adapt(pipeline: Any, size: Size | None) -> Model:
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
    channels = noise_channels(config.in_channels, config.out_channels)
    clean, notes = cleaning()
    scheduler = read_scheduler(pipeline.scheduler)
    return Model(
        network=TextUNet(unet, channels),
        shape=state_shape(size, channels, config.sample_size, multiple=halvings(config)),
        conditioner=PromptConditioner(lambda prompt: pipeline.encode_prompt(prompt or "", False, clean_caption=clean)[0]),
        **{**scheduler, "notes": scheduler["notes"] + notes},
    )
