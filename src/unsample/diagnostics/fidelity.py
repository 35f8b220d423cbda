"""How close a reconstruction is to its image: one value per image, for images in [-1, 1].

The range is no option here: a peak of 255 on unit floats makes every PSNR 48 dB too high, and a wrong range moves SSIM just
as silently. Values outside [-1, 1] are compared as they are; clamp first to compare what a viewer would see.
"""

from __future__ import annotations

import torch

from .._tensors import Images, full_precision
from ..errors import ArgumentError
from ._checks import Mask, PerImage, blocks, check_image_pair, check_mask, wide

DATA_RANGE = 2.0
"""Width of the pixel range [-1, 1]."""

SSIM_VALUES = 2**18
"""Values of images whose windows are in memory at once: torchmetrics takes hundreds of bytes for each."""

SSIM_SIDE = 11
"""Side of SSIM's Gaussian window (sigma 1.5): smaller images have no value."""


def mae(images: Images, reconstruction: Images, mask: Mask | None = None) -> PerImage:
    """Mean absolute error per image, in units of [-1, 1] images (0 to 2); halve it for units of [0, 1] images.

    Args:
        images: [B, C, H, W] in [-1, 1].
        reconstruction: The same shape.
        mask: Bool[B, H, W], the pixels that count (`plain_mask`); all if None.

    Returns:
        [B] float64; NaN for an image whose mask is empty. To pool an area over images, weigh by pixels instead:
        `area_sums((images - reconstruction).abs(), mask).mean`.

    Raises:
        ArgumentError: Shapes differ, the mask does not fit, or values are not finite or not images.

    >>> mae(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    tensor([0.5000], dtype=torch.float64)
    """
    return _mean_error(images, reconstruction, 1, mask)


def mse(images: Images, reconstruction: Images, mask: Mask | None = None) -> PerImage:
    """Mean squared error per image, in squared units of [-1, 1] images (0 to 4). Arguments as `mae`.

    >>> mse(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    tensor([0.2500], dtype=torch.float64)
    """
    return _mean_error(images, reconstruction, 2, mask)


def psnr(images: Images, reconstruction: Images) -> PerImage:
    """Peak signal-to-noise ratio per image, 10 log10(4 / mse) in dB: infinite for identical images.

    Args:
        images: [B, C, H, W] in [-1, 1].
        reconstruction: The same shape.

    Returns:
        [B] float64.

    Raises:
        ArgumentError: Shapes differ, or values are not finite or not images.

    >>> psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.2)).round(decimals=3).tolist()
    [20.0]
    """
    return 10 * torch.log10(DATA_RANGE**2 / mse(images, reconstruction))


@full_precision()
def ssim(images: Images, reconstruction: Images) -> PerImage:
    """Structural similarity per image, at most 1: Gaussian window of 11 with sigma 1.5, on values rescaled to [0, 1].

    Rescaled, because SSIM compares local means as ratios, so that shifting the values changes it: on [-1, 1] with a data
    range of 2 it is often lower by 0.1, and not what others report.

    Args:
        images: [B, C, H, W] in [-1, 1], sides of at least 11 pixels.
        reconstruction: The same shape.

    Returns:
        [B] float64.

    Raises:
        ArgumentError: Shapes differ, images are too small, or values are not finite or not images.

    Source: Wang et al. 2004, as computed by torchmetrics.

    >>> ssim(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)).tolist()
    [1.0, 1.0]
    """
    check_image_pair(images, reconstruction)
    if min(images.shape[2:]) < SSIM_SIDE:
        raise ArgumentError(f"ssim: expected sides of at least {SSIM_SIDE} pixels, given {tuple(images.shape)}; upscale first")
    from torchmetrics.functional.image import structural_similarity_index_measure as index  # 2 s to import

    pieces = []
    for part in blocks(len(images), images[0].numel(), SSIM_VALUES):
        # float32: its error in a variance, 1e-7, is far below the constant 0.0009 that SSIM adds to it.
        a, b = ((x[part].detach().float() + 1) / DATA_RANGE for x in (images, reconstruction))
        pieces.append(index(b, a, data_range=1.0, reduction="none").reshape(-1))
    return wide(torch.cat(pieces))


def _mean_error(images: Images, reconstruction: Images, power: int, mask: Mask | None) -> PerImage:
    check_image_pair(images, reconstruction)
    mask = check_mask(mask, images)
    pieces = []
    for part in blocks(len(images), images[0].numel()):
        error = (wide(images[part]) - wide(reconstruction[part])).abs() ** power
        inside = mask[part][:, None].to(error)
        pieces.append((error * inside).sum((1, 2, 3)) / (inside.sum((1, 2, 3)) * images.shape[1]))
    return torch.cat(pieces)
