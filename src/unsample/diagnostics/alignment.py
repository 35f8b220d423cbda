"""How alike two sets of features of the same items are: CKA, SVCCA and a cosine per item.

Row i of both belongs to one item: the same noise through two checkpoints, a source and its edit. Neither CKA nor SVCCA is 0 on
features that have nothing to do with each other, and both near 1 when there are fewer items than dimensions. So their null
is measured, by pairing the rows at random (`alignment_null`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from ._checks import PerImage, blocks, check_at_least, check_finite, check_fraction, check_same_shape, wide
from .null import Null, permutations

Left = Float[Tensor, "items *left"]
Right = Float[Tensor, "items *right"]
Items = Float[Tensor, "items *item"]
Rows = Float[Tensor, "items left_values"]
Others = Float[Tensor, "items right_values"]


def linear_cka(a: Left, b: Right) -> float:
    """Centred kernel alignment with linear kernels, |A'B|^2 / (|A'A| |B'B|) in Frobenius norms of the centred features.

    In [0, 1]; unchanged by rotations and by one scale for all features. On independent white noise of D1 and D2 values it is
    about sqrt(D1 D2 / ((N + D1) (N + D2))), which is 1/2 for D1 = D2 = N: read it beside `alignment_null`.

    Computed from N x N products if a side has at least N values per item, else from D x D products.

    Args:
        a: [N, ...], N >= 2; what follows the first dimension is flattened, so images are taken.
        b: [N, ...] of the same items, of any number of values.

    Returns:
        NaN if one side is the same for all items.

    Raises:
        ArgumentError: Fewer than two items, different numbers of items, or values that are not finite.

    Source: Kornblith et al. 2019 (arXiv 1905.00414), sec. 3.

    >>> a = torch.eye(4)[:, :3]
    >>> round(linear_cka(a, 2 * a.flip(1)), 6), round(linear_cka(a, a[:, :1]), 4)
    (1.0, 0.6383)
    """
    left, right = flat_pair(a, b)
    if len(left) <= max(left.shape[1], right.shape[1]):
        ka, kb = _gram(left), _gram(right)
        both, aa, bb = (float((x * y).sum()) for x, y in ((ka, kb), (ka, ka), (kb, kb)))
    else:
        both, aa, bb = (float(_cross(x, y).square().sum()) for x, y in ((left, right), (left, left), (right, right)))
    return both / math.sqrt(aa * bb) if aa * bb > 0 else math.nan


def svcca(a: Left, b: Right, kept: float = 0.99) -> float:
    """Mean canonical correlation between the leading directions of two sets of features, in [0, 1].

    Each side is reduced to the fewest principal directions with `kept` of its variance, and the mean is over the smaller of
    both numbers. On independent features it is not 0 but grows with the directions per item: read it beside `alignment_null`.

    With k and l directions and N items, at least k + l - (N - 1) of the correlations are 1 whatever the features, and that is
    refused. White noise needs nearly all its directions: latents have a value only with over twice as many items as values.

    Args:
        a: [N, ...], flattened as by `linear_cka`.
        b: [N, ...] of the same items.
        kept: Share of the variance (of the squared singular values), in (0, 1).

    Returns:
        NaN if one side is the same for all items.

    Raises:
        ArgumentError: `kept` out of range, as many directions as items or more, or arguments `linear_cka` would refuse.

    Source: Raghu et al. 2017 (arXiv 1706.05806), with the share taken of variances as they say, not of singular values.

    >>> from unsample.diagnostics import true_noise
    >>> a = true_noise((32, 4))
    >>> round(svcca(a, a @ true_noise((4, 4), draw=1)), 6)
    1.0
    """
    check_fraction(kept, "kept", 0.99)
    left, right = flat_pair(a, b)
    u, v = _directions(left, kept), _directions(right, kept)
    if u.shape[1] == 0 or v.shape[1] == 0:
        return math.nan
    if u.shape[1] + v.shape[1] > len(left) - 1:
        raise ArgumentError(
            f"svcca: expected more than {u.shape[1]} + {v.shape[1]} items for that many directions, given {len(left)}; "
            "correlations would be 1 whatever the features: add items or keep less"
        )
    return float(torch.linalg.svdvals(u.mT @ v).clamp_max(1).mean())


def feature_cosine(a: Items, b: Items) -> PerImage:
    """Cosine between the features of each item, flattened and not centred: on white noise of D values 0 with spread 1/sqrt(D).

    Args:
        a: [N, ...].
        b: The same shape.

    Returns:
        [N] float64 in [-1, 1]; NaN where one side is all zeros.

    Raises:
        ArgumentError: Shapes differ, or values are not finite.

    >>> a, b = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [3.0, 3.0]])
    >>> feature_cosine(a, b).round(decimals=6).tolist()
    [0.0, 1.0]
    """
    check_finite(a, "a")
    check_finite(b, "b")
    check_same_shape(a, b, ("a", "b"))
    left, right = a.reshape(len(a), -1), b.reshape(len(b), -1)
    pieces = []
    for part in blocks(*left.shape):
        x, y = wide(left[part]), wide(right[part])
        pieces.append((x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1)))
    return torch.cat(pieces).clamp(-1, 1)


def alignment_null(statistic: Callable[[Tensor, Tensor], float], a: Left, b: Right, draws: int = 8, seed: int = 0) -> Null:
    """The distribution of `linear_cka` or `svcca` on features that have nothing to do with each other: rows of `b` permuted.

    Args:
        statistic: From two tensors with as many rows to a number.
        a: [N, ...].
        b: [N, ...]; keeps its distribution, loses its pairing.
        draws: Permutations, two or more.
        seed: The same seed gives the same permutations.

    Raises:
        ArgumentError: Fewer than two draws, or what `statistic` refuses.

    >>> from unsample.diagnostics import true_noise
    >>> a, b = true_noise((64, 3)), true_noise((64, 3), draw=1)
    >>> null = alignment_null(linear_cka, a, b)
    >>> null.low < linear_cka(a, b) < null.high < linear_cka(a, a + b)
    True
    """
    check_at_least(draws, 2, "draws")
    flat_pair(a, b)
    return Null.from_values([statistic(a, b[order]) for order in permutations(len(b), draws, seed, b.device)])


def flat_pair(a: Left, b: Right, least: int = 2) -> tuple[Rows, Others]:
    """Both sides as [N, D], checked; N is at least `least`."""
    check_finite(a, "a")
    check_finite(b, "b")
    if a.ndim < 1 or b.ndim < 1 or len(a) != len(b) or len(a) < least:
        raise ArgumentError(
            f"expected features of the same items, at least {least}, given shapes {tuple(a.shape)} and {tuple(b.shape)}; "
            "pair them row by row"
        )
    return a.reshape(len(a), -1), b.reshape(len(b), -1)


def _centred(x: Rows) -> Rows:
    """Less the mean over items, in float64; exactly 0 where constant, because the first item is subtracted first."""
    z = wide(x)
    z = z - z[:1]
    return z - z.mean(0)


def _gram(x: Rows) -> Float[Tensor, "items items"]:
    """Inner products of the centred items."""
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=wide(x[:1]).device)
    for part in blocks(x.shape[1], len(x)):
        z = _centred(x[:, part])
        total += z @ z.mT
    return total


def _cross(a: Rows, b: Others) -> Float[Tensor, "left_values right_values"]:
    """Inner products of the centred features, in blocks of items."""
    ma, mb = _mean(a), _mean(b)
    total = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64, device=ma.device)
    for part in blocks(len(a), a.shape[1] + b.shape[1]):
        total += (wide(a[part]) - ma).mT @ (wide(b[part]) - mb)
    return total


def _mean(x: Rows) -> Float[Tensor, " left_values"]:
    """Mean over items; exactly the value where constant."""
    first = wide(x[0])
    parts = [(wide(x[part]) - first).sum(0) for part in blocks(*x.shape)]
    return first + torch.stack(parts).sum(0) / len(x)


def _directions(x: Rows, kept: float) -> Float[Tensor, "items directions"]:
    """Orthonormal scores of the items on the fewest principal directions that have `kept` of the variance."""
    if x.shape[1] < len(x):
        scores, values, _ = torch.linalg.svd(_centred(x), full_matrices=False)
        variance = values.square()
    else:  # squares lose the directions of least variance, and those are not kept
        values, vectors = torch.linalg.eigh(_gram(x))
        variance, scores = values.flip(0).clamp_min(0), vectors.flip(1)
    total = float(variance.sum())
    count = int((variance.cumsum(0) < kept * total).sum()) + 1 if total > 0 else 0
    leading: Tensor = scores[:, :count]
    return leading
