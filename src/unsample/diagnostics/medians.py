"""Medians over photos, beside the statistics that pool the pixels of all of them.

A few photos with large plain areas dominate a pooled standard deviation, and one that is reconstructed to rounding error
makes a mean PSNR infinite; a median is what to expect of a photo.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._tensors import Images
from ._checks import Latent, Mask, PerImage
from .fidelity import psnr
from .null import nulls
from .regions import area_sums, plain_area
from .row import Row

MIN_PLAIN = 32
"""Fewest values in the plain area of a latent whose standard deviation is taken by itself."""

PLAIN_MEDIAN = "median std plain"
PSNR_MEDIAN = "median PSNR"


def plain_stds(latent: Latent, images: Images) -> PerImage:
    """The standard deviation of each latent in the plain area of its image, about its own mean there.

    Args:
        latent: [B, C, h, w].
        images: [B, 3, H, W] in [-1, 1]; the area is resized to the latent.

    Returns:
        [B] float64; NaN where the area has fewer than 32 values. About 1 - 3 / (4 n) for n values of true noise.

    Raises:
        ArgumentError: As `plain_mask` and `area_sums`.

    >>> from unsample.diagnostics import true_noise
    >>> plain_stds(true_noise((2, 3, 32, 32)), torch.zeros(2, 3, 32, 32)).round(decimals=1).tolist()
    [1.0, 1.0]
    """
    return _stds(latent, plain_area(images, latent))


def medians(latent: Latent, images: Images, reconstruction: Images, *, seed: int = 0, null_draws: int = 8) -> tuple[Row, Row]:
    """The medians over photos of the standard deviation in plain areas and of the PSNR, with bootstrap intervals.

    Args:
        latent: [B, C, h, w].
        images: [B, 3, H, W] in [-1, 1].
        reconstruction: As `images`.
        seed: Of the bootstrap and of the noise of the null.
        null_draws: Batches of true noise for the null, in the same areas.

    Returns:
        The rows `median std plain`, of the photos with at least 32 plain values (the note counts them), and `median PSNR`.

    Raises:
        ArgumentError: As `plain_stds` and `psnr`.

    >>> from unsample.diagnostics import true_noise
    >>> grey = torch.zeros(4, 3, 16, 16)
    >>> std, psnr = medians(true_noise((4, 3, 16, 16)), grey, grey + 0.2)
    >>> std.is_noise, std.note, round(psnr.value)
    (True, '4 of 4 photos', 20)
    """
    plain = plain_area(images, latent)
    stds = _stds(latent, plain)
    known = stds[~stds.isnan()]
    null = None
    if len(known):
        draws = nulls(lambda x: {"": _median(_stds(x, plain))}, latent.shape, null_draws, seed, device=latent.device)
        null = draws[""]
    return (
        Row.over_images(PLAIN_MEDIAN, known, "median", seed=seed, null=null, note=f"{len(known)} of {len(stds)} photos"),
        Row.over_images(PSNR_MEDIAN, psnr(images, reconstruction), "median", seed=seed, note="dB"),
    )


def _stds(latent: Latent, plain: Mask) -> PerImage:
    pooled = area_sums(latent, plain).pooled("std")
    enough = pooled.sums[:, 0] >= MIN_PLAIN
    stds = torch.full((len(latent),), math.nan, dtype=torch.float64, device="cpu")
    stds[torch.from_numpy(enough)] = torch.from_numpy(pooled.statistic(pooled.sums[enough]))
    return stds


def _median(values: Tensor) -> float:
    """Of the values that are numbers; the mean of the middle two of an even number."""
    return float(values[~values.isnan()].quantile(0.5))
