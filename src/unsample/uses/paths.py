"""Paths between latents, as functions of tensors: an arc of a sphere, a straight line, or the line rescaled in norm.

A latent is one vector: its angle is that of all its values together, not row by row. Everything is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from .._arguments import takes, text, whole
from ..diagnostics._checks import wide
from ..errors import ArgumentError, UnknownNameError

Items = Float[Tensor, "items *item"]
Keys = Float[Tensor, "keys *item"]
Along = Float[Tensor, "frames *item"]
Item = Float[Tensor, "*item"]
Position = float | Float[Tensor, " items"]

OPPOSITE = 1e-12
"""Unit vectors whose sum is shorter than this are opposite: float64 cannot tell which way their arc goes."""


def slerp(a: Items, b: Items, t: Position) -> Items:
    """Spherical interpolation, item by item: (sin((1 - t) w) a + sin(t w) b) / sin(w), with w the angle between a and b.

    Each item is one vector of all its values. Ends of equal norm keep it all along; t = 0 and 1 give the ends bit by bit.
    Parallel ends, or one that is 0, are interpolated linearly. Opposite ends are joined by every half circle; this takes the
    one through the quarter turn of `a`, in which each pair of neighbouring values (u, v) becomes (-v, u), and the norm goes
    linearly. If nothing of `a` can turn, as in items of one value, opposite ends too are interpolated linearly.

    Args:
        a: Shape (items, ...).
        b: As `a`.
        t: In [0, 1]; one for all items, or one per item.

    Returns:
        As `a`, in the wider dtype of the two; computed in float64.

    Raises:
        ArgumentError: Ends of different shapes, or t outside [0, 1].

    Source: Shoemake 1985, "Animating rotation with quaternion curves"; for latents White 2016 (arXiv 1609.04468).

    >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    tensor([[0.7071, 0.7071]])
    """
    x, y, s = _flat(a, b, t)
    (u, v), (from_, to) = (_unit(x), _unit(y)), (x.norm(dim=1, keepdim=True), y.norm(dim=1, keepdim=True))
    gap, sum_ = (u - v).norm(dim=1, keepdim=True), (u + v).norm(dim=1, keepdim=True)
    angle = 2 * torch.atan2(gap, sum_)  # unlike the arc cosine, exact for small angles, too
    sine = angle.sin().where(angle > 0, 1)
    arc = ((1 - s) * angle).sin() / sine * x + (s * angle).sin() / sine * y
    turned = _quarter_turn(u)
    half = ((1 - s) * from_ + s * to) * ((torch.pi * s).cos() * u + (torch.pi * s).sin() * turned)
    opposite, turns = sum_ < OPPOSITE, turned.norm(dim=1, keepdim=True) > 0
    straight = (gap == 0) | (from_ == 0) | (to == 0) | (opposite & ~turns)
    return _shaped(torch.where(straight, (1 - s) * x + s * y, torch.where(opposite, half, arc)), a, b, s)


def lerp(a: Items, b: Items, t: Position) -> Items:
    """The straight line (1 - t) a + t b, item by item; arguments as `slerp`.

    >>> lerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    tensor([[0.5000, 0.5000]])
    """
    x, y, s = _flat(a, b, t)
    return _shaped((1 - s) * x + s * y, a, b, s)


def norm(a: Items, b: Items, t: Position) -> Items:
    """The direction of the straight line with the norm (1 - t) |a| + t |b|, item by item; arguments as `slerp`.

    It runs along the arc of `slerp` between ends of equal norm, but not evenly: slowest at the ends. Where the line passes
    through 0, half way between opposites, there is no direction, and the result is 0.

    >>> norm(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), 0.5)
    tensor([[1.4142, 1.4142]])
    """
    x, y, s = _flat(a, b, t)
    wanted = (1 - s) * x.norm(dim=1, keepdim=True) + s * y.norm(dim=1, keepdim=True)
    return _shaped(_unit((1 - s) * x + s * y) * wanted, a, b, s)


PATHS: Mapping[str, Callable[[Tensor, Tensor, Position], Tensor]] = {"slerp": slerp, "lerp": lerp, "norm": norm}
"""Name -> the path between two latents."""


def key_frames(keys: int, frames: int) -> list[int]:
    """Which of `frames` frames are the keys: the first, the last, and those nearest to an even division between them.

    Raises:
        ArgumentError: Fewer than two keys, or fewer frames than keys.

    >>> key_frames(2, 9), key_frames(3, 9), key_frames(4, 9)
    ([0, 8], [0, 4, 8], [0, 3, 5, 8])
    """
    if keys < 2:
        raise ArgumentError(f"expected at least 2 pictures or latents to interpolate between, given {keys}; add one")
    if frames < keys:
        raise ArgumentError(f"frames: expected at least {keys}, one for each picture or latent, given {frames}")
    return [(2 * key * (frames - 1) + keys - 1) // (2 * (keys - 1)) for key in range(keys)]


def along(keys: Keys, frames: int, path: str = "slerp") -> Along:
    """The latents of `frames` frames on the path through all keys, each of which is met bit by bit.

    Args:
        keys: Shape (keys, ...), at least 2.
        frames: At least as many as keys; those between two keys are evenly spaced in t (`key_frames`).
        path: A name of `PATHS`.

    Raises:
        ArgumentError: Too few keys or frames.
        UnknownNameError: No such path.

    >>> along(torch.tensor([[0.0], [1.0], [3.0]]), 5, "lerp").flatten().tolist()
    [0.0, 0.5, 1.0, 2.0, 3.0]
    """
    if path not in PATHS:
        raise UnknownNameError("path", path, PATHS)
    at, pieces = key_frames(len(keys), frames), [keys[:1]]
    for (first, a), (last, b) in pairwise(zip(at, keys, strict=True)):
        count = last - first
        t = torch.arange(1, count + 1, dtype=torch.float64, device="cpu") / count
        pieces.append(PATHS[path](a.expand(count, *a.shape), b.expand(count, *b.shape), t))
    return torch.cat(pieces)


@takes({"rows": whole(2), "columns": whole(2), "path": text})
def corners(
    a: Item, b: Item, c: Item, d: Item, rows: int, columns: int, path: str = "slerp"
) -> Float[Tensor, "rows columns *item"]:
    """A grid of latents with a, b in its upper and c, d in its lower corners, bit by bit.

    Down the left side from a to c and down the right side from b to d, then across each row. On a sphere the order matters:
    across first would give another grid inside.

    Args:
        a: One latent.
        b: As `a`, and so are c and d.
        c: Lower left.
        d: Lower right.
        rows: At least 2.
        columns: At least 2.
        path: A name of `PATHS`.

    Raises:
        ArgumentError: Fewer than two rows or columns, or corners of different shapes.
        UnknownNameError: No such path.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [5.0]])
    >>> corners(*x, rows=2, columns=3, path="lerp")[..., 0]
    tensor([[0.0000, 0.5000, 1.0000],
            [2.0000, 3.5000, 5.0000]])
    """
    if not a.shape == b.shape == c.shape == d.shape:
        raise ArgumentError(f"expected corners of one shape, given {', '.join(str(tuple(x.shape)) for x in (a, b, c, d))}")
    left, right = along(torch.stack([a, c]), rows, path), along(torch.stack([b, d]), rows, path)
    return torch.stack([along(torch.stack(ends), columns, path) for ends in zip(left, right, strict=True)])


def _flat(a: Tensor, b: Tensor, t: Position) -> tuple[Tensor, Tensor, Tensor]:
    """Both ends as float64 rows, and the position of each."""
    if a.shape != b.shape:
        raise ArgumentError(f"expected two ends of one shape, given {tuple(a.shape)} and {tuple(b.shape)}")
    s = wide(t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device="cpu")).reshape(-1, 1)
    if not bool(((s >= 0) & (s <= 1)).all()):
        raise ArgumentError(f"expected t in [0, 1], from one end to the other, given {t}")
    x, y = (wide(end).reshape(len(end), math.prod(end.shape[1:])) for end in (a, b))
    return x, y, s.to(x.device)


def _shaped(points: Tensor, a: Tensor, b: Tensor, s: Tensor) -> Tensor:
    """As the ends were, and the ends themselves where the position says so."""
    dtype, at = torch.promote_types(a.dtype, b.dtype), s.reshape(-1, *[1] * (a.ndim - 1)).to(a.device)
    between = points.reshape(a.shape).to(a.device, dtype)
    return torch.where(at == 0, a.to(dtype), torch.where(at == 1, b.to(dtype), between))


def _quarter_turn(u: Tensor) -> Tensor:
    """A unit vector at a right angle to each row: (u, v) -> (-v, u) for neighbours, an odd last value left out; 0 if none."""
    turned, even = torch.zeros_like(u), u.shape[1] // 2 * 2
    turned[:, 0:even:2], turned[:, 1:even:2] = -u[:, 1:even:2], u[:, 0:even:2]
    return _unit(turned)


def _unit(x: Tensor) -> Tensor:
    """Rows of norm 1; a row of zeros stays one."""
    size: Tensor = x.norm(dim=1, keepdim=True)
    return x / size.where(size > 0, 1)
