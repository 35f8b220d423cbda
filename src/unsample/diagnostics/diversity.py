"""How different several results are from each other, and how much there is to see in an area of an image.

Distances are root mean squares per value, so they read in units of a pixel and do not depend on the size of the image. They
cannot be bootstrapped over images: an image drawn twice is at distance 0 from itself. Pseudo-values take their place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .._tensors import Images
from ..errors import ArgumentError
from ._checks import Array, Batch, Mask, blocks, check_finite, check_images, check_mask, wide
from .intervals import Pooled, ratio
from .regions import _steps

Items = Float[Tensor, "items *item"]
Groups = Float[Tensor, "groups members *item"]
PerGroup = Float[Tensor, " groups"]


def pairwise_distance(x: Items) -> Pooled:
    """Mean over all pairs of different items of |x_i - x_j| / sqrt(D), in units of one value, with an interval over items.

    On white noise of D values it is 2 Gamma((D + 1) / 2) / (Gamma(D / 2) sqrt(D)), a little below sqrt(2). The sums are the
    jackknife's pseudo-values, mean + 2 (N - 1) / (N - 2) (mean distance of item i - mean): their mean is the mean distance,
    and their bootstrap has its spread, which that of mean distances per item would halve.

    Args:
        x: [N, ...], N >= 3; what follows the first dimension is flattened, D values.

    Returns:
        `.value` and `.interval()`; within 1e-7 of the root mean square of `x`.

    Raises:
        ArgumentError: Fewer than three items, or values that are not finite.

    Source: Efron and Stein 1981 for the pseudo-values of a mean over pairs.

    >>> round(pairwise_distance(torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]])).value, 6)
    2.0
    """
    check_finite(x, "x")
    if x.ndim < 2 or len(x) < 3:
        raise ArgumentError(f"x: expected at least 3 items [N, ...], given shape {tuple(x.shape)}; add items")
    n = len(x)
    means = _distance_sums(x.reshape(n, -1)).cpu().numpy() / (n - 1)
    pseudo = means.mean() + 2 * (n - 1) / (n - 2) * (means - means.mean())
    return Pooled(np.stack([pseudo, np.ones(n)], axis=-1), ratio)


def group_diversity(x: Groups) -> PerGroup:
    """Mean distance |x_i - x_j| / sqrt(D) between the members of each group, as of several results for one source.

    Args:
        x: [G, M, ...], M >= 2 members of D values.

    Returns:
        [G] float64, in units of one value; `bootstrap` gives their mean an interval over groups.

    Raises:
        ArgumentError: Fewer than two members, or values that are not finite.

    >>> x = torch.tensor([0.0, 1.0, 3.0])[None, :, None].expand(2, 3, 4)
    >>> group_diversity(x).round(decimals=6).tolist()
    [2.0, 2.0]
    """
    check_finite(x, "x")
    if x.ndim < 3 or x.shape[1] < 2:
        raise ArgumentError(f"x: expected groups of at least 2 members [G, M, ...], given shape {tuple(x.shape)}; reshape it")
    flat = x.reshape(*x.shape[:2], -1)
    members, values = flat.shape[1:]
    pieces = []
    for part in blocks(len(flat), members * (values + members)):
        z = wide(flat[part])
        z = z - z.mean(1, keepdim=True)
        product = z @ z.mT
        square = product.diagonal(dim1=1, dim2=2)
        distance = _distance(square[:, :, None], square[:, None, :], product)
        distance.diagonal(dim1=1, dim2=2).zero_()
        pieces.append(distance.sum((1, 2)) / (members * (members - 1) * math.sqrt(values)))
    return torch.cat(pieces)


@dataclass(frozen=True, eq=False)
class Complexity:
    """How much happens in an area of images, on values in [0, 1]; both are 0 where all is constant.

    Attributes:
        slope: Mean of (|dH| + |dW|) / 2, the slope that `plain_mask` compares with its threshold, of all channels. For
            independent normal pixels of standard deviation s it is 2 s / sqrt(pi).
        deviation: Root of the mean variance within windows. For independent pixels of standard deviation s it is s.

    >>> ramp = torch.linspace(-1, 1, 5).expand(1, 3, 5, 5)
    >>> ramps = complexity(ramp)
    >>> ramps.slope.value, ramps.slopes.tolist(), round(ramps.deviation.value, 4)
    (0.125, [0.125], 0.2165)
    """

    slope: Pooled
    deviation: Pooled

    @property
    def slopes(self) -> Array:
        """[B], the slope image by image; NaN where no pixel counts."""
        return _per_image(self.slope)

    @property
    def deviations(self) -> Array:
        """[B], the deviation image by image; NaN where no window counts."""
        return _per_image(self.deviation)


def complexity(images: Images, mask: Mask | None = None, window: int = 3) -> Complexity:
    """How much happens inside the masked area: mean slope and local standard deviation, pooled and per image.

    Only differences inside the area count: a pixel's slope if it and the pixels that its dH and dW go to are in it, a window
    if all of it is. As in `plain_mask`, the last row and column take the difference to the pixel before.

    Args:
        images: [B, C, H, W] in [-1, 1], H and W at least 2 and `window`.
        mask: Bool[B, H, W]; all pixels if None.
        window: Side of the windows of the local standard deviation, at least 2.

    Raises:
        ArgumentError: Not images, a side or window too small, or a mask that does not fit.

    >>> left = torch.zeros(1, 4, 4, dtype=torch.bool).index_fill(2, torch.arange(3), True)
    >>> complexity(torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(1, 3, 4, 4), left).slope.value
    0.0
    """
    check_images(images)
    if not 2 <= window <= min(images.shape[2:]):
        raise ArgumentError(
            f"window: expected 2 to {min(images.shape[2:])}, the images' shorter side, given {window}; 3 is usual"
        )
    mask = check_mask(mask, images)
    slopes, deviations = [], []
    for part in blocks(len(images), images[0].numel()):
        unit = wide(images[part]) / 2
        unit = unit - unit[..., :1, :1]  # so that the variance of a constant is exactly 0
        inside = mask[part].to(unit.device)
        slopes.append(_slope_sums(unit, inside))
        deviations.append(_variance_sums(unit, inside, window))
    return Complexity(
        Pooled(torch.cat(slopes).cpu().numpy(), ratio),
        Pooled(torch.cat(deviations).cpu().numpy(), lambda total: np.sqrt(ratio(total))),
    )


def _slope_sums(unit: Batch, inside: Mask) -> Float[Tensor, "batch 2"]:
    """Per image: sum of the slopes that lie inside the area, and their number."""
    slope = (_steps(unit, 2) + _steps(unit, 3)) / 2
    whole = inside & _next(inside, 1) & _next(inside, 2)
    return _sums(slope, whole)


def _variance_sums(unit: Batch, inside: Mask, window: int) -> Float[Tensor, "batch 2"]:
    """Per image: sum of the variances (divided by the count less one) of the windows inside the area, and their number."""
    mean, square = avg_pool2d(unit, window, 1), avg_pool2d(unit.square(), window, 1)
    variance = (square - mean.square()).clamp_min(0) * (window**2 / (window**2 - 1))
    whole = avg_pool2d(inside[:, None].double(), window, 1, divisor_override=1)[:, 0] == window**2
    return _sums(variance, whole)


def _sums(x: Batch, inside: Mask) -> Float[Tensor, "batch 2"]:
    total = (x * inside[:, None]).sum((1, 2, 3))
    return torch.stack([total, inside.sum((1, 2)) * float(x.shape[1])], dim=-1)


def _next(inside: Mask, dim: int) -> Mask:
    """Whether the pixel that `_steps` compares with is inside: the next one along `dim`, for the last one that before."""
    n = inside.shape[dim]
    return torch.cat([inside.narrow(dim, 1, n - 1), inside.narrow(dim, n - 2, 1)], dim=dim)


def _distance_sums(x: Float[Tensor, "items values"]) -> Float[Tensor, " items"]:
    """Of each item the sum of its distances to all, by matrix products in blocks of items and of values."""
    n, values = x.shape
    centre = torch.cat([wide(x[:, part]).mean(0) for part in blocks(values, n)])
    square = torch.cat([(wide(x[part]) - centre).square().sum(1) for part in blocks(n, values)])
    pieces = []
    for rows in blocks(n, n):
        product = torch.zeros(rows.stop - rows.start, n, dtype=torch.float64, device=centre.device)
        for part in blocks(values, n):
            z = wide(x[:, part]) - centre[part]
            product += z[rows] @ z.mT
        distance = _distance(square[rows, None], square[None], product)
        distance.diagonal(offset=rows.start).zero_()
        pieces.append(distance.sum(1))
    return torch.cat(pieces) / math.sqrt(values)


def _distance(a: Tensor, b: Tensor, product: Tensor) -> Tensor:
    """|x - y| from |x|^2, |y|^2 and their inner product."""
    return (a + b - 2 * product).clamp_min(0).sqrt()


def _per_image(area: Pooled) -> Array:
    with np.errstate(invalid="ignore"):
        return area.statistic(area.sums)
