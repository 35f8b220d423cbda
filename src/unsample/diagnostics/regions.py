"""Plain and other areas of images, and the spread and correlation of a latent inside them.

Where an image is plain, an inversion returns too little noise (Staniszewski et al. 2024, sec. 3.2), which statistics of whole
latents hide. An area's statistics are functions of sums over its pixels, kept per image so that images can be resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._tensors import Images, full_precision
from ..errors import ArgumentError, UnknownNameError
from ._checks import Array, Batch, Latent, Mask, blocks, check_batch, check_images, check_mask, wide
from .intervals import Pooled


def plain_mask(images: Images, tau: float = 0.025) -> Mask:
    """Where images are plain: (|dH| + |dW|) / 2 < tau in every channel, on values rescaled to [0, 1].

    dH and dW are the differences to the next pixel below and to the right; the last row and column, which have none, take
    the difference to the pixel before. With a zero there instead (as in the paper's code) an edge gets half a gradient, and
    the last corner is plain in every image.

    Args:
        images: [B, C, H, W] in [-1, 1], H and W at least 2.
        tau: Threshold in units of [0, 1] images.

    Returns:
        Bool[B, H, W].

    Raises:
        ArgumentError: Wrong number of dimensions, a side below 2, values that are not finite or not in [-1, 1].

    Source: Staniszewski et al. 2024 (arXiv 2410.23530), sec. 3.2.

    >>> step = torch.tensor([-1.0, -1.0, 1.0, 1.0]).expand(1, 3, 4, 4)
    >>> plain_mask(step)[0, 0].tolist()
    [True, False, True, True]
    """
    check_images(images)
    if min(images.shape[2:]) < 2:
        raise ArgumentError(f"images: expected sides of at least 2 pixels, given {tuple(images.shape)}; use larger images")
    return torch.cat([_plain(images[block].detach(), tau) for block in blocks(len(images), images[0].numel())])


def _plain(images: Images, tau: float) -> Mask:
    unit = (images + 1) / 2
    slope = (_steps(unit, 2) + _steps(unit, 3)) / 2
    return (slope < tau).all(dim=1)


def _steps(x: Batch, dim: int) -> Batch:
    """Absolute difference to the next value along `dim`; for the last one, to the value before."""
    steps = x.diff(dim=dim).abs()
    return torch.cat([steps, steps.narrow(dim, steps.shape[dim] - 1, 1)], dim=dim)


@full_precision()
def resize_mask(mask: Mask, size: tuple[int, int]) -> Bool[Tensor, "batch new_height new_width"]:
    """A mask at another resolution: True where at least half of the pixel's area is.

    For models whose latents are smaller than their images. Areas are exact for every ratio of sizes.

    Args:
        mask: Bool[B, H, W].
        size: Height and width of the result.

    Returns:
        Bool[B, *size].

    Raises:
        ArgumentError: `mask` is not Bool[B, H, W], or a side is below 1.

    >>> resize_mask(torch.tensor([[[True, False, False, False], [True, False, False, True]]]), (1, 2)).tolist()
    [[[True, False]]]
    """
    if mask.ndim != 3 or mask.dtype != torch.bool or min(*mask.shape, *size) < 1:
        raise ArgumentError(
            f"expected a mask Bool[B, H, W] and sides of at least 1, given {mask.dtype} of shape {tuple(mask.shape)} "
            f"and {tuple(size)}; make the mask with plain_mask"
        )
    rows, columns = (_overlap(old, new).to(mask.device) for old, new in zip(mask.shape[1:], size, strict=True))
    share = rows @ mask.float() @ columns.T
    return share >= 0.5 - 1e-5  # a half must stay a half after rounding


def _overlap(old: int, new: int) -> Float[Tensor, "{new} {old}"]:
    """[new, old]: the fraction of each new cell that lies in each old one."""
    a, b = (torch.arange(size, dtype=torch.float64, device="cpu") for size in (new, old))
    a = a[:, None]
    width = old / new
    covered = torch.minimum((a + 1) * width, b + 1) - torch.maximum(a * width, b)
    return (covered.clamp_min(0) / width).float()


def plain_area(images: Images, latent: Latent) -> Bool[Tensor, "batch latent_height latent_width"]:
    """`plain_mask` of `images` at the resolution and on the device of their latents; Bool[B, h, w].

    >>> plain_area(torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 2, 2)).shape
    torch.Size([2, 2, 2])
    """
    return resize_mask(plain_mask(images).to(latent.device), (latent.shape[2], latent.shape[3]))


@dataclass(frozen=True, eq=False)
class AreaSums:
    """Sums over the values of an area, one per image: all that its mean, std and lag-1 correlation need.

    Values of all channels are pooled. A pair is two values of one channel that touch along a row or a column, both inside
    the area. `mean`, `std` and `lag1` are those of the area of all images together, NaN if it is empty.

    Attributes:
        count: [B] float64, number of values.
        total: Sum of the values.
        squares: Sum of their squares.
        pairs: Number of pairs.
        pair_total: Sum over pairs (a, b) of a + b.
        products: Sum over pairs of a * b.

    >>> rows = torch.tensor([[1.0, 1.0, -1.0, -1.0]]).expand(1, 1, 4, 4)
    >>> sums = area_sums(rows)
    >>> sums.mean, sums.std, round(sums.lag1, 3)
    (0.0, 1.0, 0.667)
    """

    count: Array
    total: Array
    squares: Array
    pairs: Array
    pair_total: Array
    products: Array

    @property
    def mean(self) -> float:
        """Mean of the area's values."""
        return self.pooled("mean").value

    @property
    def std(self) -> float:
        """Standard deviation of the area's values about their common mean (divided by their number)."""
        return self.pooled("std").value

    @property
    def lag1(self) -> float:
        """Correlation of touching pixels: mean of (a - mean)(b - mean) over pairs, divided by the area's variance.

        Pairs weigh the inside of an area more than its edge, the variance does not: in a small area of few, alike values it
        can lie a little outside of -1 to 1.
        """
        return self.pooled("lag1").value

    def pooled(self, statistic: str) -> Pooled:
        """The "mean", "std" or "lag1" of the area, with `.value` and, from two images, `.interval()`."""
        known = {"mean": _mean, "std": _std, "lag1": _lag1}
        if statistic not in known:
            raise UnknownNameError("statistic", statistic, known)
        return Pooled(self.table, known[statistic])

    @property
    def table(self) -> Array:
        """[B, 6], the attributes as columns in the order above."""
        return np.stack((self.count, self.total, self.squares, self.pairs, self.pair_total, self.products), axis=-1)


def area_sums(x: Batch, mask: Mask | None = None) -> AreaSums:
    """The sums of `x` over the pixels where `mask` is True, in float64.

    Args:
        x: [B, C, H, W].
        mask: Bool[B, H, W]; all pixels if None.

    Raises:
        ArgumentError: `x` is not a finite [B, C, H, W], or the mask does not fit it.

    >>> area_sums(torch.ones(2, 3, 4, 4), torch.eye(4).bool().expand(2, 4, 4)).count.tolist()
    [12.0, 12.0]
    """
    check_batch(x)
    mask = check_mask(mask, x)
    parts = [_sums(wide(x[block]), mask[block]) for block in blocks(len(x), x[0].numel())]
    return AreaSums(*torch.cat(parts).cpu().numpy().T)


def _sums(x: Batch, mask: Mask) -> Float[Tensor, "batch 6"]:
    """[B, 6], the columns of `AreaSums`, for float64 `x`."""
    inside = mask[:, None].to(x)
    kept = x * inside
    count = inside.expand_as(x)
    across, down = _pair_sums(kept, count, 3), _pair_sums(kept, count, 2)
    single = torch.stack([t.sum(dim=(1, 2, 3)) for t in (count, kept, kept * kept)], dim=-1)
    return torch.cat([single, across + down], dim=-1)


def _pair_sums(kept: Batch, count: Batch, dim: int) -> Float[Tensor, "batch 3"]:
    """[B, 3]: number of pairs along `dim` inside the area, sum of a + b, sum of a * b."""
    n = kept.shape[dim] - 1
    a, b = kept.narrow(dim, 0, n), kept.narrow(dim, 1, n)
    inside_a, inside_b = count.narrow(dim, 0, n), count.narrow(dim, 1, n)
    sums = (inside_a * inside_b, a * inside_b + b * inside_a, a * b)
    return torch.stack([t.sum(dim=(1, 2, 3)) for t in sums], dim=-1)


def _mean(t: Array) -> Array:
    return np.asarray(t[..., 1] / t[..., 0])


def _variance(t: Array) -> Array:
    return np.asarray(np.maximum(t[..., 2] / t[..., 0] - _mean(t) ** 2, 0))


def _std(t: Array) -> Array:
    return np.asarray(np.sqrt(_variance(t)))


def _lag1(t: Array) -> Array:
    mean = _mean(t)
    covariance = t[..., 5] - mean * t[..., 4] + t[..., 3] * mean**2
    return np.asarray(covariance / (t[..., 3] * _variance(t)))
