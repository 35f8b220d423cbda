"""Latent diffusion (Rombach et al. 2022): a pixel U-Net, class-conditional or not, on the latents of a codec.

The codec is vector-quantised or a KL one. A quantised one encodes images to what it has before it quantises; sampled latents
are quantised when they are decoded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...core.model import Model
from . import pixel
from .autoencoder import AutoencoderCodec
from .shapes import Size, halvings, state_shape


def adapt(pipeline: Any, size: Size | None) -> Model:
    """The model of an `LDMPipeline`; its codec's factor is the one the pipeline divides by.

    The paper's VQ models work on latents as they are. Where the codec's config states no factor, diffusers takes 0.18215, and
    spoils the images of such a model (huggingface/diffusers#6725); a note then says what to write into the config.
    """
    codec = AutoencoderCodec.of(pipeline.vqvae)
    model = replace(pixel.adapt(pipeline, None), codec=codec)
    config = pipeline.unet.config
    return replace(
        model,
        shape=state_shape(size, model.shape[0], config.sample_size, multiple=halvings(config), scale=codec.scale),
        notes=(*model.notes, *_notes(pipeline.vqvae.config)),
    )


def _notes(config: Any) -> tuple[str, ...]:
    if "scaling_factor" not in config.get("_use_default_values", ()):
        return ()
    return (
        f"the codec's config states no scaling_factor: {config.scaling_factor} is taken, as diffusers does; "
        "if images come out badly, write 1.0 into vqvae/config.json",
    )
