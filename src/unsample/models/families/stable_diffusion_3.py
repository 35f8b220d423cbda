"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): a flow model, a transformer of text and image on the latents of a KL codec.

The network takes a prompt as the tokens of two CLIP encoders beside each other, followed by those of T5, or by zeros in a
pipeline without it; and as one vector that both CLIP encoders pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ...core.model import Model
from ...errors import ArgumentError
from ..scheduler_config import read_scheduler
from .autoencoder import AutoencoderCodec
from .live import evaluated
from .prompts import Embedding, PromptConditioner
from .shapes import Size, noise_channels, state_shape


@dataclass(frozen=True)
class JointTransformer:
    """A diffusers `SD3Transformer2DModel` as a network."""

    transformer: Any

    def __call__(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Velocity, of `x`'s shape and dtype, at times in 0..1000."""
        dtype = self.transformer.dtype
        output: Tensor = evaluated(
            self.transformer,
            hidden_states=x.to(dtype),
            timestep=t,
            encoder_hidden_states=condition["tokens"].to(dtype),
            pooled_projections=condition["pooled"].to(dtype),
            return_dict=False,
        )[0]
        return output.to(x.dtype)


def adapt(pipeline: Any, size: Size | None) -> Model:
    """The model of a `StableDiffusion3Pipeline`."""
    transformer, codec = pipeline.transformer, AutoencoderCodec.of(pipeline.vae)
    config, patch = transformer.config, transformer.config.patch_size
    channels = noise_channels(config.in_channels, transformer.out_channels)
    shape = state_shape(size, channels, config.sample_size, multiple=patch, scale=codec.scale)
    height, width = (side * codec.scale for side in shape[1:])
    largest = config.pos_embed_max_size * patch * codec.scale
    if max(height, width) > largest:
        raise ArgumentError(f"size {height}x{width}: this model takes heights and widths up to {largest}")
    return Model(
        network=JointTransformer(transformer),
        shape=shape,
        codec=codec,
        conditioner=PromptConditioner(partial(_encode, pipeline)),
        **read_scheduler(pipeline.scheduler, flow=True, tokens=(shape[1] // patch) * (shape[2] // patch)),
    )


def _encode(pipeline: Any, prompt: str | None) -> Embedding:
    device = pipeline._execution_device
    tokens, _, pooled, _ = pipeline.encode_prompt(prompt or "", None, None, device, do_classifier_free_guidance=False)
    return {"tokens": tokens, "pooled": pooled}
