"""Between images and the space a network works in.

Pixel models work on the image itself. A latent model's codec encodes deterministically (the mode, never a posterior sample).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .._typing import Images, Latents

__all__ = ["Codec", "PixelCodec"]


@runtime_checkable
class Codec(Protocol):
    """Images in [-1, 1] to latents and back; `scale` image pixels to a latent cell along each side."""

    @property
    def scale(self) -> int:
        """Image pixels per latent cell."""

    def encode(self, images: Images) -> Latents:
        """Latents of images."""

    def decode(self, latents: Latents) -> Images:
        """Images of latents."""


@dataclass(frozen=True)
class PixelCodec:
    """The identity."""

    scale: int = 1

    def encode(self, images: Images) -> Images:
        """`images`."""
        return images

    def decode(self, latents: Images) -> Images:
        """`latents`."""
        return latents
