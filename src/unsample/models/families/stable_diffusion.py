"""Stable Diffusion 1 and 2 (Rombach et al. 2022) and XL (Podell et al. 2024): a U-Net with text, on the latents of a KL codec.

The network takes a prompt as tokens' embeddings; XL's also a pooled one, and the picture's size and crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core.model import Model
from ...errors import ModelError
from ..scheduler_config import read_scheduler
from .autoencoder import AutoencoderCodec
from .live import evaluated
from .prompts import Embedding, PromptConditioner
from .shapes import Size, noise_channels, state_shape


@dataclass(frozen=True)
class TextUNet:
    """A diffusers `UNet2DConditionModel` as a network: tokens' embeddings, and what else it takes of a prompt, by name."""

    unet: Any
    channels: int

    def __call__(self, x: Tensor, t: Tensor, condition: Embedding) -> Tensor:
        """Raw prediction of `x`'s shape and dtype."""
        named = {"tokens": condition} if isinstance(condition, Tensor) else condition
        added = {name: rows.to(self.unet.dtype) for name, rows in named.items() if name != "tokens"}
        tokens = named["tokens"].to(self.unet.dtype)
        options = {"added_cond_kwargs": added or None, "return_dict": False}
        output: Tensor = evaluated(self.unet, x.to(self.unet.dtype), t, tokens, **options)[0]
        return output[:, : self.channels].to(x.dtype)


def adapt(pipeline: Any, size: Size | None) -> Model:
    """The model of a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`.

    Raises:
        ModelError: XL's refiner, a consistency model, an autoencoder with a scale for each channel, or a network whose input
            is more than the state.
    """
    _check(pipeline)
    unet, codec = pipeline.unet, AutoencoderCodec.of(pipeline.vae)
    channels = noise_channels(unet.config.in_channels, unet.config.out_channels)
    shape = state_shape(size, channels, unet.config.sample_size, scale=codec.scale)
    is_xl = "text_encoder_2" in pipeline.components
    image_size = shape[1] * codec.scale, shape[2] * codec.scale
    encode = partial(_encode_xl, pipeline, image_size) if is_xl else partial(_encode, pipeline)
    return Model(
        network=TextUNet(unet, channels),
        shape=shape,
        codec=codec,
        conditioner=PromptConditioner(encode, pipeline.tokenizer),
        **read_scheduler(pipeline.scheduler),
    )


def _check(pipeline: Any) -> None:
    """Refuse what would be sampled wrongly without a word."""
    refused = {
        "is XL's refiner, which takes a score of beauty": pipeline.config.get("requires_aesthetics_score"),
        "is a consistency model, which takes its guidance": pipeline.unet.config.get("time_cond_proj_dim") is not None,
        "has an autoencoder with a scale for each channel": pipeline.vae.config.get("latents_mean") is not None,
    }
    for what, is_there in refused.items():
        if is_there:
            raise ModelError(f"{type(pipeline).__name__} {what}: expected a base model of Stable Diffusion 1, 2 or XL")


def _encode(pipeline: Any, prompt: str | None) -> Embedding:
    tokens: Tensor = pipeline.encode_prompt(prompt or "", pipeline._execution_device, 1, False)[0]
    return tokens


def _encode_xl(pipeline: Any, size: Size, prompt: str | None) -> Embedding:
    """Zeros for no prompt, or "" if the pipeline was trained so; size and crop of a whole picture of its own size."""
    device = pipeline._execution_device
    tokens, _, pooled, _ = pipeline.encode_prompt(prompt or "", device=device, do_classifier_free_guidance=False)
    if prompt is None and pipeline.config.force_zeros_for_empty_prompt:
        tokens, pooled = torch.zeros_like(tokens), torch.zeros_like(pooled)
    sizes = torch.tensor([[*size, 0, 0, *size]], device=device, dtype=tokens.dtype)
    return {"tokens": tokens, "text_embeds": pooled, "time_ids": sizes}
