"""Correlation of a latent's pixels across images: the paper's top-k, its error, and its floor on true noise.

The mean of the k largest of some 18,000 correlations is large even on true noise, about 3.5 / sqrt(N) for N images, so a
value is read against its floor and never against a value at another N.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._tensors import full_precision
from ..errors import ArgumentError
from ._checks import Batch, blocks, check_at_least, check_batch, check_finite
from .intervals import jackknife_error
from .null import Null, true_noise

Tiles = Float[Tensor, "rows columns image channels window_height window_width"]
Chunk = Float[Tensor, "window image variable"]
Matrices = Float[Tensor, "window variable variable"]
PerWindow = Float[Tensor, " window"]

MIN_IMAGES = 32
"""Fewest images for a correlation across them: at 32 the floor is already about 0.6."""

TOP, PATCH = 20, 8
"""Correlations averaged and side of a window in the paper's Table 1."""

WORKING_BYTES = 2**25
"""Memory that the windows and their correlation matrices may take at once; more is no faster."""

FLOOR_WINDOWS = 64
"""Most windows simulated for a floor: they place it to about 0.2 %."""


@dataclass(frozen=True)
class TopK:
    """A top-k correlation `value` with its standard `error`.

    >>> TopK(value=0.31, error=0.004)
    TopK(value=0.31, error=0.004)
    """

    value: float
    error: float


def top_k_r(x: Float[Tensor, "batch variables"], k: int = TOP) -> float:
    """Mean of the k largest |Pearson r| over all pairs of columns of `x`.

    Computed in the precision of `x`, at least float32: its error of about 1e-6 is far below the scatter of any r, and float64
    would take twice the time and memory. A constant column has no r: it counts as 0.

    Args:
        x: [N, V], N images (at least 32) of V variables.
        k: At most V (V - 1) / 2.

    Raises:
        ArgumentError: Wrong dimensions, too few images or pairs, or values that are not finite.

    >>> x = torch.arange(40.0)
    >>> round(top_k_r(torch.stack([x, -x, x % 2], dim=1), k=1), 4)
    1.0
    """
    if x.ndim != 2:
        raise ArgumentError(f"x: expected 2 dimensions [N, V], given shape {tuple(x.shape)}; flatten each image")
    check_finite(x, "x")
    check_top_k(len(x), x.shape[1], k)
    z = _centred(x[None])
    return float(mean_top_k(_products(z), k))


def top_k_correlation(x: Batch, k: int = TOP, patch: int = PATCH) -> float:
    """Mean over windows of the k largest |Pearson r| across images between the values of a window (the paper's Table 1).

    A window is patch x patch pixels with all channels, so V = C * patch^2 variables. Windows tile the image; if a side is
    not a multiple of `patch`, the last window is moved back to end at the edge (it overlaps its neighbour, and every pixel
    counts). A side shorter than `patch` is one window. Memory is bounded whatever the number of windows.

    Args:
        x: [N, C, H, W], N at least 32.
        k: How many correlations of each window are averaged.
        patch: Side of a window.

    Returns:
        A value in [0, 1], to be read beside `correlation_floor(N, (C, H, W))`.

    Raises:
        ArgumentError: Wrong dimensions, too few images or pairs, or values that are not finite.

    Source: Staniszewski et al. 2024 (arXiv 2410.23530), Table 1.

    >>> shared = true_noise((64, 1, 1, 1))
    >>> round(top_k_correlation(shared + 0.1 * true_noise((64, 1, 8, 8), draw=1)), 1)
    1.0
    """
    return float(patch_correlation(x, k, patch).mean())


def patch_correlation(x: Batch, k: int = TOP, patch: int = PATCH) -> Float[Tensor, "rows columns"]:
    """`top_k_correlation` window by window: [rows of windows, columns of windows], float64 on the CPU.

    >>> patch_correlation(true_noise((64, 1, 12, 20))).shape
    torch.Size([2, 3])
    """
    tiles = _windows(x, k, patch)
    return _patch_values(tiles, k).reshape(tiles.shape[:2])


def top_k_jackknife(x: Batch, k: int = TOP, patch: int = PATCH, groups: int = 10) -> TopK:
    """`top_k_correlation` with a standard error: the delete-a-group jackknife over images.

    Not a bootstrap: that draws images twice, and a repeated image is correlated with itself, so the largest r of a resample
    are those of fewer images and lie above the estimate. Image i is in group i mod `groups`, which balances images in order of
    class. The error errs on the large side: 1 to 1.4 times the spread between draws of new images where true correlations
    are strong, 2 to 2.5 times at the floor, since the largest of many r scatter less than one r. The spread of
    `correlation_floor` is the sharper test of whether a value is above the floor.

    A replicate's sums are those of all images less those of its group, so all replicates together cost one product.

    Args:
        x: [N, C, H, W], N at least 32.
        k: How many correlations of each window are averaged.
        patch: Side of a window.
        groups: From 2 to N / 2. The error has `groups - 1` degrees of freedom.

    Raises:
        ArgumentError: As `top_k_correlation`, or `groups` out of range.

    >>> result = top_k_jackknife(true_noise((64, 1, 8, 8)))
    >>> 0 < result.error < 0.1 * result.value
    True
    """
    tiles = _windows(x, k, patch)
    if not 2 <= groups <= len(x) // 2:
        raise ArgumentError(f"groups: expected 2 to {len(x) // 2} for {len(x)} images, given {groups}; 10 is usual")
    parts = [_replicates(_centred(chunk), k, groups) for chunk in chunks(tiles, matrices=groups + 4)]
    value, *replicates = torch.cat(parts, dim=1).double().mean(dim=1).tolist()
    return TopK(value, jackknife_error(replicates))


def correlation_floor(
    n: int,
    shape: Sequence[int],
    k: int = TOP,
    patch: int = PATCH,
    draws: int = 4,
    seed: int = 0,
    *,
    device: torch.device | str = "cpu",
) -> Null:
    """`top_k_correlation` of true noise: about 3.51 / sqrt(n) for 3 channels in 8 x 8 windows, 3.64 / sqrt(n) for 4.

    On true noise all windows are alike and those that do not overlap independent, so windows are simulated (those of `draws`
    batches, at most 64), not whole batches; the spread of a batch is that of a window over the root of the number of windows.

    Args:
        n: Number of images, at least 32.
        shape: (C, H, W) of one.
        k: As for the value.
        patch: As for the value.
        draws: Batches of noise to simulate.
        seed: The same seed gives the same floor.
        device: Where to compute.

    Raises:
        ArgumentError: Too few images, pairs or draws, or a shape that is not (C, H, W).

    >>> floor = correlation_floor(64, (1, 8, 8))
    >>> floor.low < top_k_correlation(true_noise((64, 1, 8, 8), seed=1)) < floor.high
    True
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ArgumentError(f"shape: expected (C, H, W) of one image, given {tuple(shape)}; leave the batch out")
    check_at_least(draws, 2, "draws")
    check_at_least(patch, 1, "patch")
    channels, height, width = shape
    sides = min(patch, height), min(patch, width)
    check_top_k(n, channels * math.prod(sides), k)
    per_batch = height * width / math.prod(sides)
    count = min(max(math.ceil(draws * per_batch), 4), FLOOR_WINDOWS)
    # Noise in strips of eight windows, since it must fit in memory too.
    strips = [(n, channels, sides[0], sides[1] * min(8, count - i)) for i in range(0, count, 8)]
    noises = (true_noise(strip, seed=seed, draw=i, device=device) for i, strip in enumerate(strips))
    values = torch.cat([_patch_values(tiled(noise, sides), k) for noise in noises])
    std = float(values.std()) / math.sqrt(per_batch)
    return Null.normal(float(values.mean()), std, draws=count / per_batch, freedom=count - 1)


def _windows(x: Batch, k: int, patch: int) -> Tiles:
    """The windows of a caller's batch, checked."""
    check_batch(x)
    check_at_least(patch, 1, "patch")
    sides = min(patch, x.shape[2]), min(patch, x.shape[3])
    check_top_k(len(x), x.shape[1] * math.prod(sides), k)
    return tiled(x.detach(), sides)


def tiled(x: Batch, sides: tuple[int, int]) -> Tiles:
    """Windows of `sides`, a view where they fit, else of a copy in which the last one's pixels come twice."""
    for dim, side in zip((2, 3), sides, strict=True):
        whole = x.shape[dim]
        starts = torch.arange(0, whole, side, device=x.device).clamp_max(whole - side)
        if whole % side:
            x = x.index_select(dim, (starts[:, None] + torch.arange(side, device=x.device)).flatten())
    rows, columns = x.shape[2] // sides[0], x.shape[3] // sides[1]
    return x.reshape(*x.shape[:2], rows, sides[0], columns, sides[1]).permute(2, 4, 0, 1, 3, 5)


def chunks(tiles: Tiles, matrices: int) -> Iterator[Chunk]:
    """Windows in order, as many of a row at once as memory allows with `matrices` V x V matrices for each."""
    n, variables = tiles.shape[2], math.prod(tiles.shape[3:])
    values = 2 * n * variables + matrices * variables**2
    for row in tiles:
        for part in blocks(len(row), values, WORKING_BYTES // max(4, tiles.element_size())):
            yield row[part].reshape(-1, n, variables)


def window_values(shape: Sequence[int]) -> int:
    """How many values a window of images of shape (C, H, W) has."""
    return shape[0] * min(PATCH, shape[1]) * min(PATCH, shape[2])


def has_pairs(shape: Sequence[int]) -> bool:
    """Whether a window of such images has as many pairs of values as are averaged."""
    values = window_values(shape)
    return values * (values - 1) // 2 >= TOP


def check_top_k(n: int, variables: int, k: int) -> None:
    """Raise an `ArgumentError` unless the `k` highest correlations of `n` images and so many variables exist."""
    if n < MIN_IMAGES:
        raise ArgumentError(
            f"expected at least {MIN_IMAGES} images for correlations across images, given {n}; "
            "add images, or use lag-1 (area_sums), which needs one"
        )
    pairs = variables * (variables - 1) // 2
    if not 1 <= k <= pairs:
        raise ArgumentError(f"k: expected 1 to {pairs}, the pairs of {variables} variables, given {k}; use larger windows")


def _patch_values(tiles: Tiles, k: int) -> PerWindow:
    """One value per window, float64 on the CPU."""
    centred = (_centred(chunk) for chunk in chunks(tiles, matrices=3))
    return torch.cat([mean_top_k(_products(z), k).cpu() for z in centred]).double()


@full_precision()
def _products(z: Chunk) -> Matrices:
    return torch.bmm(z.mT, z)


def _centred(x: Chunk) -> Chunk:
    """Less the mean over images, in float32 or wider; exactly 0 where constant."""
    # Less the first image first: a mean far above the spread then costs no digits, and a constant leaves no rounding error,
    # which would be scaled up to a perfect r.
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    z = x - x[:, :1]
    z -= z.mean(1, keepdim=True)
    return z


def mean_top_k(covariance: Matrices, k: int, least: Float[Tensor, "window variable"] | float = 0) -> PerWindow:
    """Mean of the k largest |r| above the diagonal; a variable of variance `least` or less has r = 0."""
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    scale = torch.where(variance > least, variance, torch.inf).rsqrt()
    r = (covariance * scale[..., :, None]).mul_(scale[..., None, :]).abs_()
    # Zeros from the diagonal down never beat an |r|, and change nothing where they tie.
    return r.triu_(1).flatten(-2).topk(k).values.mean(-1)


def _replicates(z: Chunk, k: int, groups: int) -> Float[Tensor, "replicate window"]:
    """[1 + groups, P]: the mean of the top k of all images, then of those without each group."""
    order = torch.cat([torch.arange(group, z.shape[1], groups, device=z.device) for group in range(groups)])
    parts = z[:, order].tensor_split(groups, dim=1)
    products = torch.stack([_products(part) for part in parts])
    whole = products.sum(0)
    # A variable that is constant without a group keeps float32 rounding of its variance, about 1e-7 a sum.
    least = 1e-5 * whole.diagonal(dim1=-2, dim2=-1)
    rows = [mean_top_k(whole, k)]
    for part, product in zip(parts, products, strict=True):
        # z sums to 0 over all images, so without a group it sums to minus the group's sum.
        total = part.sum(1)
        outer = total[:, :, None] * total[:, None, :]
        rows.append(mean_top_k(whole - product - outer / (z.shape[1] - part.shape[1]), k, least))
    return torch.stack(rows)
