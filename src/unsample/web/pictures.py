"""What is looked at on the page, as arrays of bytes: pictures, latents, maps of variance; and what the numbers say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..diagnostics import Diagnosis, excess_variance, plain_mask, true_noise
from ..pictures.overview import EXCESS_RANGE, WINDOW, latent_picture, plain_picture
from ..pictures.read import to_bytes
from .session import Session

Pixels = npt.NDArray[Any]

SIDE = 320
"""Pixels that a picture is enlarged to at least, cell by cell, so that single cells are seen."""

BLUE, RED = np.array([33, 102, 172]), np.array([178, 24, 43])
"""Too little noise, and too much."""


def enlarged(pixels: Pixels) -> Pixels:
    """Each pixel as a square, to about `SIDE` across; a large picture is left as it is."""
    times = max(1, SIDE // pixels.shape[1])
    return np.asarray(pixels.repeat(times, 0).repeat(times, 1))


def picture(image: Tensor) -> Pixels:
    """A picture of shape (1, channels, height, width) in [-1, 1]."""
    return enlarged(to_bytes(image[0].cpu()))


def pair(before: Tensor, after: Tensor) -> tuple[Pixels, Pixels]:
    """Two pictures to be looked at through one another."""
    return picture(before), picture(after)


def plain(image: Tensor) -> Pixels:
    """The picture in grey, its plain areas in blue."""
    return enlarged(plain_picture(image[0], plain_mask(image.cpu())[0]))


def true(session: Session) -> Pixels:
    """True noise of the shape of a latent."""
    return state(true_noise((1, *session.model.shape), seed=session.seed))


def state(latent: Tensor) -> Pixels:
    """A state on the way, or a latent: +-3 standard deviations of true noise fill the range."""
    return enlarged(latent_picture(latent[0].cpu()))


def variance_map(latent: Tensor, image: Tensor, opacity: float) -> Pixels:
    """Where there is too little noise (blue) or too much (red), over the picture; 0 shows the picture alone, 1 the map."""
    excess = excess_variance(latent.float().cpu(), window=WINDOW)[0].numpy().clip(-EXCESS_RANGE, EXCESS_RANGE)[..., None]
    colour = np.where(excess < 0, BLUE, RED)
    strength = np.abs(excess) / EXCESS_RANGE
    shown = 255 * (1 - strength) + colour * strength
    below = to_bytes(image[0].cpu()).astype(float)
    times = below.shape[0] // shown.shape[0], below.shape[1] // shown.shape[1]
    shown = shown.repeat(times[0], 0).repeat(times[1], 1)
    return enlarged((below * (1 - opacity) + shown * opacity).round().astype(np.uint8))


def words(diagnosis: Diagnosis) -> str:
    """What the numbers say, for someone who does not know them."""
    rows: Mapping[str, Any] = {row.name: row for row in diagnosis.rows}
    std, lag, psnr = rows["std plain"].value, rows["lag-1 plain"].value, rows["PSNR"].value
    if math.isnan(std):
        return f"This picture has no plain area to look at. {_back(psnr)}"
    missing = 1 - std
    if missing > 0.03:
        said = f"In plain areas **{missing:.0%} of the noise is missing**"
    elif missing < -0.03:
        said = f"In plain areas there is **{-missing:.0%} too much noise**"
    else:
        said = "In plain areas there is **as much noise as there should be**"
    alike = "neighbours are as independent as in true noise"
    if abs(lag) >= 0.05:
        alike = f"neighbours {'resemble each other' if lag > 0 else 'differ too much'} (correlation {lag:+.2f})"
    return f"{said} ({std:.2f}; true noise 1.00), and {alike}. {_back(psnr)}"


def _back(psnr: float) -> str:
    how = "as good as the same" if psnr > 35 else "close to yours" if psnr > 25 else "visibly different"
    return f"Sampled back, the picture is {how} (PSNR {psnr:.1f} dB)."
