"""Sums over images as the states of a torchmetrics `Metric`: float64, sized by the first batch, added up across processes.

Sums of squares and products are taken about a fixed `pivot`, the same for all, or they could not be added. The digits that a
mean far from it costs are log10 of (mean - pivot)^2 / variance, of sixteen: none for latents and images in [-1, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from ...errors import ArgumentError

__all__: list[str] = []

Products = Float[Tensor, "*window left right"]
Left = Float[Tensor, "*window left"]
Right = Float[Tensor, "*window right"]
Values = Float[Tensor, "*values"]

ROUNDING = 1e-12
"""Share of a sum of squares that a variance must exceed; what is below is the rounding error of a constant."""


def add_sums(metric: Metric, *names: str) -> None:
    """Give `metric` sums of these names, to be added up over batches and processes."""
    metric.dist_sync_fn = metric.dist_sync_fn or _gather
    metric.compute_with_cache = False  # a cached value would outlive `merge_state`
    for name in names:
        metric.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")


def accumulate(metric: Metric, **sums: Tensor | float) -> None:
    """Add the sums of a batch to those of `metric`: to all or, if one does not fit, to none."""
    added = {name: torch.as_tensor(value, dtype=torch.float64).to(metric.device) for name, value in sums.items()}
    for name, value in added.items():
        check_fits(getattr(metric, name), value.shape)
    for name, value in added.items():
        setattr(metric, name, getattr(metric, name) + value)


def check_fits(state: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless sums of this shape can be added to `state`, which has no size before the first batch."""
    if state.ndim and state.shape != shape:
        raise ArgumentError(
            f"expected batches of one shape, given one with sums of {tuple(shape)} after others with {tuple(state.shape)}; "
            "use a new metric for other items"
        )


def check_images_seen(count: Tensor, least: int) -> None:
    """Raise unless `least` images or more were seen."""
    if float(count) < least:
        raise ArgumentError(f"expected at least {least} images in all, given {float(count):g}; update with more batches")


def centred(products: Products, left: Left, right: Right, count: Tensor) -> Products:
    """Sums of products about the mean, from those about the pivot and the sums of both factors."""
    return products - left[..., :, None] * right[..., None, :] / count


def varies(squares: Values, total: Values, count: Tensor) -> Bool[Tensor, "*values"]:
    """Which variables are not constant, given their sums of squares and their sums."""
    return squares - total**2 / count > ROUNDING * squares


def mean_and_error(count: Tensor, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over images and its standard error, NaN for one image."""
    mean = total / count
    variance = (squares / count - mean**2).clamp_min(0) * count / (count - 1)
    return mean, (variance / count).sqrt()


def _gather(x: Tensor, group: Any = None) -> list[Tensor]:
    """`x` of every process. One that got no batch, and whose sums have no size, takes part with zeros."""
    shapes: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(shapes, tuple(x.shape), group)
    sizes = {shape for shape in shapes if shape}
    if len(sizes) > 1:
        raise ArgumentError(f"expected items of one shape on all processes, given sums of {shapes}; use a metric for each")
    gathered: list[Tensor] = gather_all_tensors(x.expand(*sizes) if sizes else x, group)
    return gathered
