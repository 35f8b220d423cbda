"""How near a latent is to N(0, 1): moments, and the divergence that its mean and variance alone imply.

None of these sees correlation between pixels or a spread that differs between areas: a latent can pass here and fail in
`correlation` and `regions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from ._checks import Array, blocks, check_finite, flat_items, wide
from .intervals import Pooled

Values = Float[Tensor, "..."]
Items = Float[Tensor, "batch *item"]
Item = Float[Tensor, "*item"]
Numbers = TypeVar("Numbers", Tensor, Array)


@dataclass(frozen=True)
class Moments:
    """Pooled moments: `mean`, `std` (divided by the count) and excess `kurtosis` (0 for a normal, NaN for a constant).

    >>> Moments(mean=0.0, std=1.0, kurtosis=0.0)
    Moments(mean=0.0, std=1.0, kurtosis=0.0)
    """

    mean: float
    std: float
    kurtosis: float


def moments(x: Values) -> Moments:
    """Mean, standard deviation and excess kurtosis of all values of `x`, of any shape, in float64.

    Raises:
        ArgumentError: `x` is empty, not floating-point or not finite.

    >>> moments(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    Moments(mean=0.0, std=1.0, kurtosis=-2.0)
    """
    pooled = pooled_moments(x)
    return Moments(*(pooled[name].value for name in ("mean", "std", "kurtosis")))


def kl_to_normal(x: Values) -> float:
    """KL(N(m, v) || N(0, 1)) = (v + m^2 - 1 - ln v) / 2 in nats, m and v pooled over all values of `x`.

    Infinite for a constant. On n values of true noise it is about 1/n, not 0.

    Raises:
        ArgumentError: `x` is empty, not floating-point or not finite.

    >>> kl_to_normal(torch.tensor([-1.0, 1.0]))
    0.0
    >>> round(kl_to_normal(torch.tensor([-2.0, 2.0])), 4)  # (4 - 1 - ln 4) / 2
    0.8069
    """
    return pooled_moments(x)["kl"].value


def kl_per_coordinate(x: Items) -> Item:
    """KL(N(m, v) || N(0, 1)) in nats of each coordinate, m and v taken across images.

    On true noise each value is about 1/N: compare with `null`, and only at equal N.

    Args:
        x: [N, ...], N >= 2, and large to mean much.

    Returns:
        [...], float64.

    Raises:
        ArgumentError: Fewer than two images or dimensions, or values that are not finite.

    >>> kl_per_coordinate(torch.tensor([[-1.0, 1.0], [1.0, 3.0]])).tolist()
    [0.0, 2.0]
    """
    check_finite(x, "x")
    if x.ndim < 2 or len(x) < 2:
        raise ArgumentError(f"x: expected at least 2 images [N, ...], given shape {tuple(x.shape)}; stack more images")
    flat = x.reshape(len(x), -1)
    pieces = [wide(flat[:, part]) for part in blocks(flat.shape[1], len(x))]
    stats = torch.cat([torch.stack([p.mean(0), p.var(0, correction=0)]) for p in pieces], dim=1)
    return divergence(stats[0], stats[1], torch.log).reshape(x.shape[1:])


def pooled_moments(x: Values, pivot: float | None = None) -> dict[str, Pooled]:
    """The pooled "mean", "std", excess "kurtosis" and "kl" (`kl_to_normal`), each with an interval over images.

    Args:
        x: [B, ...], one image per row, of any shape.
        pivot: Powers are summed about it; by default about the mean of `x`, and sums of other batches cannot be added.

    Raises:
        ArgumentError: `x` is empty, not floating-point or not finite.

    >>> print(pooled_moments(torch.tensor([[0.0, 2.0], [1.0, 3.0]]))["mean"].interval())
    1.5 [1, 2]
    """
    check_finite(x, "x")
    flat = flat_items(x)
    parts = list(blocks(*flat.shape))
    # Powers are taken about the mean: about 0, a mean far from it would cancel the fourth power away.
    about = sum(float(wide(flat[part]).sum()) for part in parts) / flat.numel() if pivot is None else pivot
    sums = np.concatenate([power_sums(wide(flat[part]) - about) for part in parts])
    return {
        "mean": Pooled(sums, lambda t: about + _raw(t, 1)),
        "std": Pooled(sums, lambda t: np.sqrt(_variance(t))),
        "kurtosis": Pooled(sums, _kurtosis),
        "kl": Pooled(sums, lambda t: divergence(about + _raw(t, 1), _variance(t), np.log)),
    }


def power_sums(d: Float[Tensor, "batch values"]) -> Array:
    """[B, 5]: per image the sums of d^k, k = 0..4."""
    square = d * d
    powers = (torch.ones_like(d), d, square, square * d, square * square)
    table: Array = torch.stack([p.sum(1) for p in powers], dim=1).cpu().numpy()
    return table


def _raw(t: Array, k: int) -> Array:
    return np.asarray(t[..., k] / t[..., 0])


def _variance(t: Array) -> Array:
    return np.asarray(np.maximum(_raw(t, 2) - _raw(t, 1) ** 2, 0))


def _kurtosis(t: Array) -> Array:
    m = _raw(t, 1)
    fourth = _raw(t, 4) - 4 * m * _raw(t, 3) + 6 * m**2 * _raw(t, 2) - 3 * m**4
    return np.asarray(fourth / _variance(t) ** 2 - 3)


def divergence(mean: Numbers, variance: Numbers, log: Callable[[Numbers], Numbers]) -> Numbers:
    """KL(N(mean, variance) || N(0, 1)) in nats."""
    return (variance + mean**2 - 1 - log(variance)) / 2
