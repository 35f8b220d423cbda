"""PixArt-alpha (Chen et al. 2023) and -Sigma (Chen et al. 2024): a transformer with T5 text, on the latents of a KL codec.

The network takes a prompt as tokens' embeddings with a mask of those that count; some take the picture's size, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core.model import Model
from ..scheduler_config import read_scheduler
from .autoencoder import AutoencoderCodec
from .live import evaluated
from .prompts import Embedding, PromptConditioner, cleaning
from .shapes import Size, noise_channels, state_shape


@dataclass(frozen=True)
class MaskedTransformer:
    """A diffusers `PixArtTransformer2DModel` as a network: casts to its own dtype and back, drops a learned variance."""

    transformer: Any
    channels: int

    def __call__(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Raw prediction of `x`'s shape and dtype; `condition` has `tokens`, their `mask`, and anything else by its name."""
        dtype = self.transformer.dtype
        added = {name: rows.to(dtype) for name, rows in condition.items()}
        tokens, mask = added.pop("tokens"), added.pop("mask")
        options = {"added_cond_kwargs": added, "encoder_attention_mask": mask, "return_dict": False}
        output: Tensor = evaluated(self.transformer, x.to(dtype), tokens, t, **options)[0]
        return output[:, : self.channels].to(x.dtype)


def adapt(pipeline: Any, size: Size | None) -> Model:
    """The model of a `PixArtAlphaPipeline` or `PixArtSigmaPipeline`; its unconditional is the empty prompt.

    The network sees the size of the model, never that of a resolution bin, which the pipeline resizes from.
    """
    transformer, codec = pipeline.transformer, AutoencoderCodec.of(pipeline.vae)
    config = transformer.config
    channels = noise_channels(config.in_channels, transformer.out_channels)
    shape = state_shape(size, channels, config.sample_size, multiple=config.patch_size, scale=codec.scale)
    clean, notes = cleaning()
    scheduler = read_scheduler(pipeline.scheduler)
    return Model(
        network=MaskedTransformer(transformer, channels),
        shape=shape,
        codec=codec,
        conditioner=PromptConditioner(partial(_encode, pipeline, (shape[1] * codec.scale, shape[2] * codec.scale), clean)),
        **{**scheduler, "notes": scheduler["notes"] + notes},
    )


def _encode(pipeline: Any, size: Size, clean: bool, prompt: str | None) -> Embedding:
    """Tokens and mask; for networks trained so, also the picture's size and its height over its width."""
    tokens, mask, _, _ = pipeline.encode_prompt(prompt or "", False, clean_caption=clean)
    encoded = {"tokens": tokens, "mask": mask}
    if pipeline.transformer.use_additional_conditions:
        encoded["resolution"] = torch.tensor([[*size]]).to(tokens)
        encoded["aspect_ratio"] = torch.tensor([[size[0] / size[1]]]).to(tokens)
    return encoded
