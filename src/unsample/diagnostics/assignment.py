"""Matching noise and images by L2 distance: nearest neighbours, and how often they are each other's pair.

Distances to the candidates differ by less than float32 resolves in |a|^2 + |b|^2 - 2 a.b, so a float32 matrix product only
sorts out who cannot be nearest; the few left are compared in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .._tensors import full_precision
from ..errors import ArgumentError
from ._checks import IN_CACHE, Batch, blocks, check_at_least, check_batch, check_finite, check_same_shape, wide
from .intervals import Interval, proportion

Items = Float[Tensor, "batch *item"]
OtherItems = Float[Tensor, "others *item"]
Index = Int64[Tensor, " batch"]
Rows = Float[Tensor, "rows values"]
Others = Float[Tensor, "others values"]

FLOAT32_ROUNDING = 2.0**-24

EQUAL = 1e-12
"""Relative difference of two squared distances below which they are a tie: the rounding of their sums."""


def nearest(a: Items, b: OtherItems) -> Index:
    """For each item of `a` the index of the item of `b` with the smallest L2 distance; the lowest of equals.

    Not an approximation. |b|^2 / 2 - a.b (|a|^2 is the same for all) is computed in float32 about the mean of `b`; all
    items of `b` within the rounding error of the smallest are then compared by their differences in float64. The error is
    taken as 8 sqrt(D) + 4 float32 roundings, D values per item, a bound that holds but with negligible probability (Higham
    and Mary 2019, "A new approach to probabilistic rounding error analysis"), with torch's default of full float32 matrix
    products. Memory is bounded whatever the number of items.

    Args:
        a: [N, ...].
        b: [M, ...], items of the same shape as those of `a`.

    Returns:
        [N], on the device of `a`.

    Raises:
        ArgumentError: Items of different shapes, no items, or values that are not finite.

    >>> nearest(torch.tensor([[0.0], [9.0]]), torch.tensor([[10.0], [1.0], [-1.0]])).tolist()
    [1, 0]
    """
    check_finite(a, "a")
    check_finite(b, "b")
    if a.ndim < 2 or a.shape[1:] != b.shape[1:]:
        raise ArgumentError(f"expected items [N, ...] of one shape, given {tuple(a.shape)} and {tuple(b.shape)}; flatten both")
    rows, others = a.detach().reshape(len(a), -1), b.detach().reshape(len(b), -1)
    distance = torch.full((len(a),), math.inf, dtype=torch.float64, device="cpu")
    index = torch.zeros(len(a), dtype=torch.long, device="cpu")
    for part in blocks(len(b), others.shape[1]):
        for some in blocks(len(a), max(others.shape[1], part.stop - part.start)):
            least, where = (t.cpu() for t in _nearest_of(rows[some], others[part]))
            closer = least < distance[some] * (1 - EQUAL)
            index[some] = torch.where(closer, where + part.start, index[some])
            distance[some] = torch.where(closer, least, distance[some])
    return index.to(a.device)


def _nearest_of(a: Rows, b: Others) -> tuple[Float[Tensor, " rows"], Int64[Tensor, " rows"]]:
    """Squared distance and index of the nearest of `b`, all at once."""
    row, other = _may_be_nearest(wide(a), wide(b)).nonzero(as_tuple=True)
    pieces = blocks(len(row), a.shape[1], IN_CACHE)
    squares = torch.cat([(wide(a[row[p]]) - wide(b[other[p]])).square().sum(1) for p in pieces])
    least = squares.new_full((len(a),), math.inf).scatter_reduce(0, row, squares, "amin")
    tied = torch.where(squares <= least[row] * (1 + EQUAL), other, len(b))
    return least, other.new_full((len(a),), len(b)).scatter_reduce(0, row, tied, "amin")


@full_precision()
def _may_be_nearest(a: Rows, b: Others) -> Bool[Tensor, "rows others"]:
    """False where float32 is sure that `b` is not the nearest of `a`."""
    centre = b.mean(0)
    a, b = (a - centre).float(), (b - centre).float()
    half = b.square().sum(1) / 2
    score = half - a @ b.T
    error = FLOAT32_ROUNDING * (8 * math.sqrt(a.shape[1]) + 4) * (a.norm(dim=1) * b.norm(dim=1).max() + half.max())
    # Negated, so that a score that overflowed to NaN may still be the nearest.
    ruled_out: Bool[Tensor, "rows others"] = score > (score.min(1).values + 2 * error)[:, None]
    return ~ruled_out


@dataclass(frozen=True)
class Assignment:
    """How often noise and images find their own pair by distance.

    Attributes:
        to_images: Fraction of noises whose nearest image is their own, with its 95 % interval over items.
        to_noise: Fraction of images whose nearest noise is their own, likewise.
        chance: The null of both: what unrelated noise and images reach on average, one over the size of a division.
        divisions: Number of items in each division.
        to_images_each: The fraction in each division.
        to_noise_each: Likewise.

    >>> accuracy = assignment_accuracy(torch.eye(4)[:, None, None], 0.1 * torch.eye(4)[:, None, None])
    >>> print(accuracy.to_images)
    1 [0.5101, 1]
    """

    to_images: Interval
    to_noise: Interval
    chance: float
    divisions: tuple[int, ...]
    to_images_each: tuple[float, ...]
    to_noise_each: tuple[float, ...]


def assignment_accuracy(noise: Batch, images: Batch, division: int = 1024) -> Assignment:
    """Fraction of noises nearest to their own image, and of images nearest to their own noise (the paper's appendix N).

    Items are compared within divisions of consecutive items, since the task is the harder the more there are to choose from.
    Every item is kept: there are as many divisions as fit best, at least one, of equal size but for one item. Whoever
    compares two numbers should see to equal `chance`.

    Intervals are Wilson's. They take items as independent, which those of a division are not quite: a small image near the
    origin is nearest to many noises. Where noise and images are unrelated this makes the interval wider than it need be.

    Args:
        noise: [B, C, H, W].
        images: What became of them, the same shape: row i belongs to row i. (Or latents in place of either.)
        division: Items in a division, about.

    Raises:
        ArgumentError: Shapes differ, dimensions are wrong, values are not finite, or `division` below 1.

    Source: Staniszewski et al. 2024 (arXiv 2410.23530), appendix N.

    >>> pairs = torch.eye(4)[:, None, None]
    >>> assignment_accuracy(pairs, pairs[[1, 0, 2, 3]], division=2).to_noise_each
    (0.0, 1.0)
    """
    check_batch(noise, "noise")
    check_batch(images, "images")
    check_same_shape(noise, images, ("noise", "images"))
    check_at_least(division, 1, "division")
    count = min(max(round(len(noise) / division), 1), len(noise))
    pairs = list(zip(noise.tensor_split(count), images.tensor_split(count), strict=True))
    to_images = [_own(nearest(some, theirs)) for some, theirs in pairs]
    to_noise = [_own(nearest(theirs, some)) for some, theirs in pairs]
    return Assignment(
        to_images=proportion(sum(map(sum, to_images)), len(noise), "wilson"),
        to_noise=proportion(sum(map(sum, to_noise)), len(noise), "wilson"),
        chance=count / len(noise),
        divisions=tuple(map(len, to_images)),
        to_images_each=tuple(sum(hits) / len(hits) for hits in to_images),
        to_noise_each=tuple(sum(hits) / len(hits) for hits in to_noise),
    )


def _own(index: Index) -> list[bool]:
    hits: list[bool] = (index == torch.arange(len(index), device=index.device)).tolist()
    return hits
