"""Autoencoders of diffusers as codecs: images to latents by the mode of the posterior, scaled as the network saw them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..._tensors import Images, Latents
from .live import Widened, evaluating


@dataclass(frozen=True)
class AutoencoderCodec:
    """A KL or vector-quantised autoencoder: latent = (mode - shift) * factor.

    A quantised one encodes to what it has before it quantises, and quantises when it decodes. Half precision overflows in
    some: one with weights narrower than float32 works by a copy in float32, which is kept beside it.

    Attributes:
        vae: `AutoencoderKL`, `VQModel` or another with the same calls.
        factor, shift: The scale and the shift of the network's states.
    """

    vae: Any = field(repr=False)
    factor: float
    shift: float = 0.0
    _widened: Widened = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_widened", Widened(self.vae))

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
        vae = self._widened.on(images.device)
        with evaluating(vae):
            encoded = vae.encode(images.to(vae.dtype))
            mode = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        latents: Latents = mode.to(images.dtype)
        return (latents - self.shift) * self.factor

    def decode(self, latents: Latents) -> Images:
        """Images of latents, nominally in [-1, 1], in their dtype."""
        vae = self._widened.on(latents.device)
        with evaluating(vae):
            images = vae.decode((latents / self.factor + self.shift).to(vae.dtype), return_dict=False)[0]
        result: Images = images.to(latents.dtype)
        return result
