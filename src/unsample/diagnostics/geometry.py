"""The triangle that image, noise and latent span, and states beside the line from noise to latent.

Every angle and distance belongs to one item and is averaged afterwards. The angle of a mean cosine is another number, and the
arc cosine of a standard deviation none at all. Points are compared in float64 by plain L2 over all values of an item.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.linalg import vector_norm

from ..errors import ArgumentError
from ._checks import IN_CACHE, Batch, PerImage, blocks, check_at_least, check_batch, check_finite, check_same_shape, wide
from .null import Null

Rows = Float[Tensor, "batch values"]
Products = Float[Tensor, "batch 3"]

NORMAL_95 = 1.96
"""Half the width of a 95 % interval of a normal variable, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Triangle:
    """The triangle of each item's image, noise and latent; every field is [B] float64.

    Attributes:
        at_image: Angle at the image, between noise and latent, in degrees, 0 to 180.
        at_noise: Angle at the noise.
        at_latent: Angle at the latent.
        noise_latent: L2 distance between noise and latent.
        image_latent: L2 distance between image and latent.
        image_noise: L2 distance between image and noise.

    >>> triangles = triangle(torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]]))
    >>> triangles.angles.round(decimals=6).tolist()
    [[90.0, 45.0, 45.0]]
    """

    at_image: PerImage
    at_noise: PerImage
    at_latent: PerImage
    noise_latent: PerImage
    image_latent: PerImage
    image_noise: PerImage

    @property
    def angles(self) -> Products:
        """[B, 3]: the angles at image, noise and latent; a row sums to 180."""
        return torch.stack([self.at_image, self.at_noise, self.at_latent], dim=1)


def triangle(image: Batch, noise: Batch, latent: Batch) -> Triangle:
    """Angles and sides of the triangle of image, noise and latent, item by item (the paper's appendix H).

    An angle is 2 atan2(|u - v|, |u + v|) of the two unit vectors that leave its vertex: the arc cosine of their product
    loses half the digits near 0 and 180 degrees, this loses none.

    Args:
        image: [B, C, H, W], x_0.
        noise: The noise it was sampled from, the same shape.
        latent: Its inversion, the same shape.

    Returns:
        A `Triangle`. Where two points are equal, the angles at both are NaN and that at the third point is 0.

    Raises:
        ArgumentError: Shapes differ, dimensions are wrong, or values are not finite.

    Source: Staniszewski et al. 2024 (arXiv 2410.23530), appendix H; the formula: Kahan 2006, "How futile are mindless
    assessments of roundoff in floating-point computation?", sec. 12.

    >>> round(triangle(torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).at_latent.item(), 3)
    180.0
    """
    return Triangle(*_by_item(_angles_and_sides, 6, {"image": image, "noise": noise, "latent": latent}).unbind(1))


def _angles_and_sides(image: Rows, noise: Rows, latent: Rows) -> Float[Tensor, "batch 6"]:
    sides = (latent - noise, latent - image, noise - image)
    lengths = [vector_norm(side, dim=1) for side in sides]
    noise_latent, image_latent, image_noise = (side.div_(length[:, None]) for side, length in zip(sides, lengths, strict=True))
    at_image = _angle(image_noise, image_latent)
    at_noise = _angle(-image_noise, noise_latent)
    at_latent = _angle(image_latent, noise_latent)
    return torch.stack([at_image, at_noise, at_latent, *lengths], dim=1)


def _angle(u: Rows, v: Rows) -> PerImage:
    """Degrees between unit vectors."""
    return torch.rad2deg(2 * torch.atan2(vector_norm(u - v, dim=1), vector_norm(u + v, dim=1)))


def most_probable_triangle(triangles: Triangle, bins: int = 180) -> tuple[float, float, float]:
    """Angles (image, noise, latent) that sum to 180 and maximise the product of their three histograms (appendix H).

    Each angle has its own histogram over items. Bins are centred on multiples of their width, so that three of them sum to
    180 exactly; bins named by their lower edges would be half a bin off at each vertex. Of equal products the one with the
    smallest angle at the image, then at the noise, is returned.

    Args:
        triangles: The triangles of the items; those with a NaN are left out.
        bins: Bins in 180 degrees; 180 makes them one degree wide, as in the paper.

    Returns:
        Three angles in degrees; NaN if no triple has items in all three bins (too few items for bins so narrow).

    Raises:
        ArgumentError: `bins` below 1.

    >>> corner = triangle(torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]]))
    >>> most_probable_triangle(corner)
    (90.0, 45.0, 45.0)
    """
    check_at_least(bins, 1, "bins")
    return likeliest(angle_bins(triangles.angles[~triangles.angles.isnan().any(dim=1)].cpu(), bins))


def angle_bins(angles: Products, bins: int) -> Int64[Tensor, "3 angles"]:
    """The histograms of `most_probable_triangle`: how many items have each angle in each of `bins` + 1 bins."""
    index = (angles / (180 / bins) + 0.5).floor().long()
    return torch.stack([column.bincount(minlength=bins + 1) for column in index.T])


def likeliest(histograms: Float[Tensor, "3 angles"] | Int64[Tensor, "3 angles"]) -> tuple[float, float, float]:
    """The angles of `most_probable_triangle` from the counts of its bins, those at image, noise and latent."""
    image, noise, latent = histograms.double().cpu()
    bins = len(image) - 1
    pick = torch.arange(bins + 1, device="cpu")
    third = bins - pick[:, None] - pick
    product = image[:, None] * noise * torch.where(third >= 0, latent[third.clamp_min(0)], 0)
    first, second = divmod(int(product.argmax()), bins + 1)
    if product[first, second] == 0:
        return math.nan, math.nan, math.nan
    width = 180 / bins
    return first * width, second * width, (bins - first - second) * width


def independent_angles(rms: float, dimension: int) -> tuple[Null, Null, Null]:
    """Angles (image, noise, latent) where the three are independent: the null of one item's `triangle`.

    For an image of root mean square s, noise and latent both N(0, I) of d values, and m = 1 + s^2, the angle at the image is
    arccos(s^2 / m) with variance (2 m^2 - 1) / (m^2 (2 m - 1) d), those at the two others arccos(1 / sqrt(2 m)) with variance
    (s^2 + s^6 / m^2 + 2 (3/4 - 1/(2 m))^2 + 3/8) / ((2 m - 1) d), in radians, to first order in 1/d. With s = 0 (mid grey)
    they are 90, 45 and 45 degrees, with s = 1 all 60. The distance from noise to latent is sqrt(2 d), from the image to each
    sqrt(m d).

    For the mean over images of differing s, use `null` with the images and noise at hand and true noise for a latent.

    Args:
        rms: s, at least 0.
        dimension: d, values per item.

    Returns:
        Three `Null` in degrees, whose interval is where 95 % of items fall.

    Raises:
        ArgumentError: `rms` is negative or not finite, or `dimension` below 1.

    >>> [round(angle.mean, 1) for angle in independent_angles(0.5, 3072)]
    [78.5, 50.8, 50.8]
    """
    if not 0 <= rms < math.inf:
        raise ArgumentError(f"rms: expected a root mean square, 0 or more, given {rms}; images in [-1, 1] have about 0.5")
    check_at_least(dimension, 1, "dimension")
    m = 1 + rms**2
    at_image = (2 * m**2 - 1) / (m**2 * (2 * m - 1))
    elsewhere = (rms**2 + rms**6 / m**2 + 2 * (3 / 4 - 1 / (2 * m)) ** 2 + 3 / 8) / (2 * m - 1)
    image = _null_degrees(rms**2 / m, at_image / dimension)
    other = _null_degrees(1 / math.sqrt(2 * m), elsewhere / dimension)
    return image, other, other


def _null_degrees(cosine: float, variance: float) -> Null:
    """The null of an angle from its cosine and its variance in squared radians."""
    mean, std = math.degrees(math.acos(cosine)), math.degrees(math.sqrt(variance))
    return Null(mean, std, mean - NORMAL_95 * std, mean + NORMAL_95 * std)


def line_products(x: Batch, noise: Batch, latent: Batch) -> Products:
    """The three dot products that place `x` beside the line from noise to latent: [B, 3] float64.

    |x - n|^2, (x - n).(l - n) and |l - n|^2. They are sums over values, so those of parts of an item may be added.

    Args:
        x: [B, C, H, W], any states, images included.
        noise: n, the same shape.
        latent: l, the same shape.

    Raises:
        ArgumentError: Shapes differ, dimensions are wrong, or values are not finite.

    >>> noise, latent = torch.zeros(1, 1, 1, 2), torch.tensor([[[[2.0, 0.0]]]])
    >>> line_products(torch.tensor([[[[1.0, 1.0]]]]), noise, latent).tolist()
    [[2.0, 2.0, 4.0]]
    """
    return _by_item(_products, 3, {"x": x, "noise": noise, "latent": latent})


def _products(x: Rows, noise: Rows, latent: Rows) -> Products:
    u, v = x - noise, latent - noise
    return torch.stack([(u * u).sum(1), (u * v).sum(1), (v * v).sum(1)], dim=1)


def products_to_distances(products: Products, points: int = 25) -> Float[Tensor, "batch {points}"]:
    """L2 from states to the points n + a (l - n), a evenly spaced from 0 to 1, given their `line_products` (A, B, C).

    |x - n - a (l - n)|^2 = A - 2 a B + a^2 C. The squares cancel where a state lies on the line: a distance has an absolute
    error of about 1e-8 of the longest of them.

    Args:
        products: [B, 3].
        points: At least 2, noise and latent included.

    Raises:
        ArgumentError: Not [B, 3], values that are not finite, or fewer than two points.

    >>> products_to_distances(torch.tensor([[2.0, 2.0, 4.0]]), points=3).round(decimals=4).tolist()
    [[1.4142, 1.0, 1.4142]]
    """
    check_at_least(points, 2, "points")
    _check_products(products)
    a = torch.linspace(0, 1, points, dtype=torch.float64, device="cpu")
    from_noise, along, whole = (column[:, None] for column in wide(products).unbind(1))
    a = a.to(whole.device)
    return (from_noise - 2 * a * along + a**2 * whole).clamp_min(0).sqrt()


def line_distances(states: Batch, noise: Batch, latent: Batch, points: int = 25) -> Float[Tensor, "batch {points}"]:
    """L2 from each state to `points` evenly spaced points of the line from its noise to its latent: [B, points] float64.

    Args:
        states: [B, C, H, W], the states of one step of a path.
        noise: The first point, the same shape.
        latent: The last point, the same shape.
        points: At least 2; 25 in the paper.

    Raises:
        ArgumentError: As `line_products`, or fewer than two points.

    Source: Staniszewski et al. 2024 (arXiv 2410.23530), Fig. 3.

    >>> noise, latent = torch.zeros(1, 1, 1, 2), torch.tensor([[[[2.0, 0.0]]]])
    >>> line_distances(torch.tensor([[[[1.0, 1.0]]]]), noise, latent, points=3).round(decimals=4).tolist()
    [[1.4142, 1.0, 1.4142]]
    """
    check_at_least(points, 2, "points")
    return products_to_distances(line_products(states, noise, latent), points)


def line_position(states: Batch, noise: Batch, latent: Batch) -> PerImage:
    """How far along the line from noise (0) to latent (1) the point nearest to each state lies; it may lie outside.

    Arguments and errors as `line_products`.

    Returns:
        [B] float64, NaN where noise and latent are equal. The null: a state of root mean square s that is independent of
        its noise and latent, both N(0, I) of d values, lies at 1/2 with variance (1 + 2 s^2) / (4 d), to first order in 1/d.

    >>> noise, latent = torch.zeros(1, 1, 1, 2), torch.tensor([[[[4.0, 0.0]]]])
    >>> line_position(torch.tensor([[[[1.0, 7.0]]]]), noise, latent).tolist()
    [0.25]
    """
    _, along, whole = line_products(states, noise, latent).unbind(1)
    return along / whole


def _check_products(products: Tensor) -> None:
    if products.ndim != 2 or products.shape[1] != 3:
        raise ArgumentError(f"products: expected [B, 3], given shape {tuple(products.shape)}; make them with line_products")
    check_finite(products, "products")


def _by_item(function: Callable[..., Tensor], columns: int, points: dict[str, Batch]) -> Float[Tensor, "batch {columns}"]:
    """`function` of the points, checked, as rows in float64, a few items at a time."""
    (first, x), *others = points.items()
    check_batch(x, first)
    for name, other in others:
        check_batch(other, name)
        check_same_shape(x, other, (first, name))
    # Filled in place: small results kept one by one between the blocks would keep the allocator from reusing their memory.
    rows = wide(x[:0]).new_empty(len(x), columns)
    for part in blocks(len(x), x[0].numel(), IN_CACHE):
        rows[part] = function(*(wide(point[part]).flatten(1) for point in points.values()))
    return rows
