"""Frechet distance between two sets of features: that of the normal distributions of their means and covariances.

The number behind FID. It means nothing without the features and the numbers of images, so `Frechet` carries both, and it is
not 0 for two sets of the same kind: `frechet_null` gives what it is then. Features are taken as they are, never normalised
item by item.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from ._checks import blocks, check_at_least, check_finite, wide
from .intervals import jackknife_error
from .null import Null, permutations

Vector = Float[Tensor, " dims"]
Matrix = Float[Tensor, "dims dims"]
Left = Float[Tensor, "left_items *item"]
Right = Float[Tensor, "right_items *item"]
Rows = Float[Tensor, "items dims"]
Others = Float[Tensor, "others dims"]

SLACK = 1e-5
"""Asymmetry or negative variance, in parts of the largest, that float32 rounding can give a covariance."""


@dataclass(frozen=True)
class Frechet:
    """A Frechet distance with what it is of.

    Attributes:
        value: In squared units of the features.
        features: Which features: "Inception 2048", "DINOv2-small", "pixels".
        images: Numbers of items of the two sets.
        dimensions: Number of values of an item.
        error: Standard error, if computed (`frechet_jackknife`).

    >>> print(Frechet(12.34, "Inception 2048", (5000, 5000), 2048))
    12.34 (Frechet distance of Inception 2048, 2048 dimensions, 5000 and 5000 images)
    """

    value: float
    features: str
    images: tuple[int, int]
    dimensions: int
    error: float | None = None

    @property
    def singular(self) -> bool:
        """Whether a set has no more images than dimensions, so that its covariance is singular and the value mostly bias."""
        return min(self.images) <= self.dimensions

    def __str__(self) -> str:
        spread = "" if self.error is None else f" +- {self.error:.2g}"
        warning = "; fewer images than it takes, read beside its null" if self.singular else ""
        return (
            f"{self.value:.4g}{spread} (Frechet distance of {self.features}, {self.dimensions} dimensions, "
            f"{self.images[0]} and {self.images[1]} images{warning})"
        )


def frechet_distance(mean_a: Vector, cov_a: Matrix, mean_b: Vector, cov_b: Matrix) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), in float64.

    tr (S1 S2)^(1/2) is the sum of the singular values of R1' R2 with S = R R': nothing complex comes up, and singular
    covariances cost no digits, as they do in the square root of a product.

    Args:
        mean_a: [D].
        cov_a: [D, D], symmetric and positive semidefinite.
        mean_b: [D].
        cov_b: [D, D].

    Raises:
        ArgumentError: Shapes do not fit, values are not finite, or a covariance is not one.

    Source: Dowson and Landau 1982; Heusel et al. 2017 (arXiv 1706.08500).

    >>> one = torch.eye(2)
    >>> round(frechet_distance(torch.zeros(2), one, torch.ones(2), 4 * one), 6)
    4.0
    """
    for mean, cov in ((mean_a, cov_a), (mean_b, cov_b)):
        check_finite(mean, "mean")
        check_finite(cov, "cov")
        if mean.shape != mean_a.shape or cov.shape != (*mean_a.shape, *mean_a.shape):
            raise ArgumentError(
                f"expected means [D] and covariances [D, D], given {tuple(mean.shape)} and {tuple(cov.shape)}; "
                "use the same features for both"
            )
    shift = wide(mean_a) - wide(mean_b)
    return _combine(shift, _root(wide(cov_a)), _root(wide(cov_b)))


def frechet(a: Left, b: Right, *, features: str) -> Frechet:
    """Frechet distance between the features of two sets of images, with covariances divided by the count less one.

    It is biased upwards: on N and M items of white noise of D dimensions it is about D (D + 5) / 4 (1/N + 1/M) if both are
    well above D, and as large as the features' own variance if they are not. Compare values of equal N and M only, beside
    `frechet_null`.

    Args:
        a: [N, ...], N >= 2; what follows the first dimension is flattened, so images are taken.
        b: [M, ...], M >= 2, items of the same shape; no item need belong to one of `a`.
        features: What they are, in words for people.

    Raises:
        ArgumentError: Fewer than two items, items of different shapes, no name, or values that are not finite.

    >>> distance = frechet(torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]]), features="pixels")
    >>> round(distance.value, 6), distance.images, distance.dimensions
    (16.0, (2, 2), 1)
    """
    x, y = _reduced(a, b, features)
    return Frechet(_value(x, y), features, (len(a), len(b)), a[0].numel())


def frechet_jackknife(a: Left, b: Right, *, features: str, groups: int = 10) -> Frechet:
    """`frechet` with a standard error: the delete-a-group jackknife over images.

    Not a bootstrap: an image drawn twice makes a covariance of fewer images, and the bias grows. Item i of both sets is in
    group i mod `groups` and left out of both at once, so sets that belong together in pairs (images and their reconstructions)
    are taken as such. The error is the scatter between draws of images: the bias is no part of it. Where the distributions are
    equal it errs on the large side, and whether they differ is read beside `frechet_null`.

    Args:
        a: As `frechet`.
        b: As `frechet`.
        features: As `frechet`.
        groups: From 2 to half the smaller set. The error has `groups - 1` degrees of freedom.

    Raises:
        ArgumentError: As `frechet`, or `groups` out of range.

    >>> from unsample.diagnostics import true_noise
    >>> distance = frechet_jackknife(true_noise((200, 4)), 2 * true_noise((200, 4), draw=1), features="noise")
    >>> abs(distance.value - 4) < 3 * distance.error
    True
    """
    x, y = _reduced(a, b, features)
    most = min(len(x), len(y)) // 2
    if not 2 <= groups <= most:
        raise ArgumentError(f"groups: expected 2 to {most} for {len(x)} and {len(y)} images, given {groups}; 10 is usual")
    order_x, order_y = torch.arange(len(x), device=x.device) % groups, torch.arange(len(y), device=y.device) % groups
    left = [_value(x[order_x != group], y[order_y != group]) for group in range(groups)]
    return Frechet(_value(x, y), features, (len(a), len(b)), a[0].numel(), jackknife_error(left))


def frechet_null(a: Left, count: int, draws: int = 8, seed: int = 0) -> Null:
    """What the Frechet distance is between two sets of the same kind: two disjoint random subsets of `a`, `count` items each.

    The null of `frechet` on `count` and `count` items. All draws share the items of `a`, whose own scatter is no part of it:
    of fresh sets of 50 in 200 dimensions 71 % lie within it, not 95 % as with more items than dimensions.

    Args:
        a: [N, ...], as `frechet`.
        count: From 2 to N / 2.
        draws: Two or more.
        seed: The same seed gives the same subsets.

    Raises:
        ArgumentError: `count` or `draws` out of range, or values that are not finite.

    >>> from unsample.diagnostics import true_noise
    >>> null = frechet_null(true_noise((400, 4)), 200)  # about 4 * 9 / 4 * 2 / 200
    >>> null.low < 0.09 < null.high
    True
    """
    check_at_least(draws, 2, "draws")
    check_finite(a, "a")
    if not 2 <= count <= len(a) // 2:
        raise ArgumentError(
            f"count: expected 2 to {len(a) // 2}, half of {len(a)} items, given {count}; lower it or add items"
        )
    x, _ = _reduced(a, a[:2], "null")
    orders = permutations(len(x), draws, seed, x.device)
    return Null.from_values([_value(x[order[:count]], x[order[count : 2 * count]]) for order in orders])


def _reduced(a: Left, b: Right, features: str) -> tuple[Rows, Others]:
    """Both sets as float64 rows, turned into the space that they span if it is smaller: no distance changes."""
    check_finite(a, "a")
    check_finite(b, "b")
    if a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise ArgumentError(
            f"expected two items or more in both sets, all of one shape, given {tuple(a.shape)} and {tuple(b.shape)}; "
            "use the same features for both"
        )
    if not features.strip():
        raise ArgumentError("features: expected their name, given an empty one; a Frechet distance means nothing without")
    x, y = a.reshape(len(a), -1), b.reshape(len(b), -1)
    if len(x) + len(y) < x.shape[1]:
        joint = _span(x, y)
        return joint[: len(x)], joint[len(x) :]
    pivot = wide(x[0])
    return wide(x) - pivot, wide(y) - pivot


def _span(x: Rows, y: Others) -> Float[Tensor, "rows rows"]:
    """Coordinates of all rows in the space they span, of at most as many dimensions as rows, from their inner products."""
    n = len(x) + len(y)
    total = torch.zeros(n, n, dtype=torch.float64, device=wide(x[:1]).device)
    for part in blocks(x.shape[1], n):
        z = torch.cat([wide(x[:, part]), wide(y[:, part])])
        z = z - z.mean(0)
        total += z @ z.mT
    return _root(total)


def _value(x: Rows, y: Others) -> float:
    """The Frechet distance of two sets of rows."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    roots = [(rows - mean).mT / math.sqrt(len(rows) - 1) for rows, mean in ((x, mean_x), (y, mean_y))]
    # The triangle of a tall set's QR gives the same distance.
    short = [torch.linalg.qr(root.mT, mode="r").R.mT if root.shape[1] > root.shape[0] else root for root in roots]
    return _combine(mean_x - mean_y, short[0], short[1])


def _combine(shift: Vector, root_a: Float[Tensor, "dims left"], root_b: Float[Tensor, "dims right"]) -> float:
    """The distance from the difference of the means and R with S = R R' of both sides."""
    traces = root_a.square().sum() + root_b.square().sum()
    return max(float(shift.square().sum() + traces - 2 * torch.linalg.svdvals(root_a.mT @ root_b).sum()), 0.0)


def _root(cov: Matrix) -> Matrix:
    """R with R R' = `cov`; directions whose variance is rounding are left out."""
    values, vectors = torch.linalg.eigh(cov)
    top = float(values.abs().max())
    if float((cov - cov.mT).abs().max()) > SLACK * top or float(values.min()) < -SLACK * top:
        raise ArgumentError("cov: expected a symmetric positive semidefinite matrix, given another; compute it with torch.cov")
    rounding = len(cov) * torch.finfo(torch.float64).eps * top
    root: Tensor = vectors * values.where(values > rounding, 0).sqrt()
    return root
