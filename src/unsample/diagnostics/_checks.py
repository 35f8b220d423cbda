"""Checks at the public border of the diagnostics, and the blocks that bound their memory.

A statistic of a NaN is a NaN that hides its cause, so tensors that are not finite are refused here, with the likely reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._tensors import check_dense
from .._tensors import wide as wide_there
from ..errors import ArgumentError

Batch = Float[Tensor, "batch channels height width"]
"""Images, latents or noise."""

Latent = Float[Tensor, "batch latent_channels latent_height latent_width"]
"""Latents beside images of another size."""

Mask = Bool[Tensor, "batch height width"]
"""The pixels of an area."""

Map = Float[Tensor, "batch height width"]
"""A value per pixel."""

PerImage = Float[Tensor, " batch"]
"""A value per image."""

Array = npt.NDArray[np.float64]

BLOCK = 2**18
"""Values handled at once where a statistic needs float64 copies: 2 MiB a copy."""

IN_CACHE = 2**14
"""Values of a float64 copy, 128 KiB: larger ones leave the processor's cache and go back to the system after every block."""

IMAGE_LIMIT = 20.0
"""Magnitude above which a tensor is refused as images in [-1, 1], by `unsample.invert` too.

Samples that were not clamped stay below it however much a model overshoots; bytes in 0..255 exceed it.
"""


def check_finite(x: Tensor, name: str) -> None:
    """Raise unless `x` is a non-empty floating-point tensor of finite numbers."""
    check_dense(x, name)
    if x.numel() == 0:
        raise ArgumentError(f"{name}: expected at least one value, given shape {tuple(x.shape)}; check the batch")
    # A NaN or infinity reaches the extremes, which need no copy of the batch (torch.isfinite makes two).
    if not bool(torch.isfinite(torch.stack(torch.aminmax(x.detach()))).all()):
        bad = int((~torch.isfinite(x)).sum())
        raise ArgumentError(
            f"{name}: expected finite values, given {bad} NaN or infinite of {x.numel()}; "
            "the inversion probably diverged: drop those items or look at its residuals"
        )


def check_batch(x: Tensor, name: str = "x") -> None:
    """Raise unless `x` is a finite floating-point batch [B, C, H, W]."""
    check_dense(x, name)
    if x.ndim != 4:
        raise ArgumentError(
            f"{name}: expected 4 dimensions [B, C, H, W], given shape {tuple(x.shape)}; add a batch with x[None]"
        )
    check_finite(x, name)


def check_images(x: Tensor, name: str = "images") -> None:
    """Raise unless `x` can be a batch of images in [-1, 1] (a model's overshoot is taken, 0..255 data is not)."""
    check_batch(x, name)
    top = float(torch.stack(torch.aminmax(x.detach())).abs().max())
    if top > IMAGE_LIMIT:
        raise ArgumentError(f"{name}: expected images in [-1, 1], given values up to {top:g}; rescale, e.g. x / 127.5 - 1")


def check_same_shape(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise unless both tensors have one shape."""
    if a.shape != b.shape:
        raise ArgumentError(
            f"expected {names[0]} and {names[1]} of one shape, given {tuple(a.shape)} and {tuple(b.shape)}; "
            "pair them item by item at one resolution"
        )


def check_image_pair(images: Tensor, reconstruction: Tensor) -> None:
    """Raise unless both are batches of images of one shape."""
    check_images(images, "images")
    check_images(reconstruction, "reconstruction")
    check_same_shape(images, reconstruction, ("images", "reconstruction"))


def check_mask(mask: Tensor | None, x: Tensor) -> Tensor:
    """`mask`, or all pixels if None; raises unless it is Bool[B, H, W] for `x` [B, C, H, W]."""
    expected = (x.shape[0], *x.shape[2:])
    if mask is None:
        return torch.ones(expected, dtype=torch.bool, device=x.device)
    if mask.dtype != torch.bool or tuple(mask.shape) != expected:
        raise ArgumentError(
            f"mask: expected bool of shape {expected}, given {mask.dtype} of shape {tuple(mask.shape)}; "
            "make it with plain_mask and fit it with resize_mask"
        )
    return mask


def check_fraction(value: float, name: str, usual: float) -> None:
    """Raise unless `value` lies in (0, 1)."""
    if not 0 < value < 1:
        raise ArgumentError(f"{name}: expected a fraction in (0, 1), given {value}; {usual} is usual")


def check_at_least(value: int, least: int, name: str) -> None:
    """Raise unless the whole number `value` is `least` or more."""
    if value < least:
        raise ArgumentError(f"{name}: expected at least {least}, given {value}; raise it")


def wide(x: Tensor) -> Tensor:
    """`x` detached, in float64; on the CPU if its device has no float64 (Apple's MPS)."""
    x = x.detach()
    return wide_there(x.cpu() if x.device.type == "mps" else x)


def flat_items(x: Tensor) -> Tensor:
    """`x` detached, [B, D]: what follows the first dimension flattened; a scalar is one item of one value."""
    return x.detach().reshape(x.shape[0] if x.ndim else 1, -1)


def blocks(items: int, values_per_item: int, budget: int = BLOCK) -> Iterator[slice]:
    """Slices that cover `items` in order, each of at most `budget` values (and at least one item)."""
    size = max(1, budget // max(1, values_per_item))
    for start in range(0, items, size):
        yield slice(start, min(start + size, items))
