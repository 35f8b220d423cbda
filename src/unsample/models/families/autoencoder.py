"""Autoencoders of diffusers as codecs: images to latents by the mode of the posterior, scaled as the network saw them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ..._typing import Images, Latents

__all__ = ["AutoencoderCodec"]


@dataclass(frozen=True)
class AutoencoderCodec:
    """A KL or vector-quantised autoencoder: latent = (mode - shift) * factor.

    A quantised one encodes to what it has before it quantises, and quantises when it decodes.

    Attributes:
        vae: `AutoencoderKL`, `VQModel` or another with the same calls.
        factor, shift: The scale and the shift of the network's states.
    """

    vae: Any = field(repr=False)
    factor: float
    shift: float = 0.0

    @classmethod
    def of(cls, vae: Any) -> AutoencoderCodec:
        """With the factor and the shift of the autoencoder's own config."""
        return cls(vae, float(vae.config.scaling_factor), float(vae.config.get("shift_factor") or 0.0))

    @property
    def scale(self) -> int:
        """Image pixels per latent cell."""
        blocks: int = len(self.vae.config.get("block_out_channels") or self.vae.config.get("encoder_block_out_channels"))
        return int(2 ** (blocks - 1))

    def encode(self, images: Images) -> Latents:
        """Latents of images in [-1, 1], in their dtype."""
        with _wide(self.vae):
            found = self.vae.encode(images.to(self.vae.dtype))
            mode = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        latents: Latents = mode.to(images.dtype)
        return (latents - self.shift) * self.factor

    def decode(self, latents: Latents) -> Images:
        """Images of latents, nominally in [-1, 1], in their dtype."""
        with _wide(self.vae):
            images = self.vae.decode((latents / self.factor + self.shift).to(self.vae.dtype), return_dict=False)[0]
        result: Images = images.to(latents.dtype)
        return result


@contextmanager
def _wide(vae: Any) -> Iterator[None]:
    """Half precision overflows in some autoencoders: for the time being, float32."""
    narrow = vae.dtype == torch.float16
    if narrow:
        vae.float()  # diffusers warns of every to(dtype)
    try:
        yield
    finally:
        if narrow:
            vae.half()
