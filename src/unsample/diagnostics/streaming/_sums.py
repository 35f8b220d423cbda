"""A torchmetrics `Metric` made of sums over images: float64, sized by the first batch, added up across processes.

Sums of squares and products are taken about a fixed `pivot`, the same for all, or they could not be added. The digits that a
mean far from it costs are log10 of (mean - pivot)^2 / variance, of sixteen: none for latents and images in [-1, 1].
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from ...errors import ArgumentError
from .._checks import Batch, wide

Products = Float[Tensor, "*window left right"]
Left = Float[Tensor, "*window left"]
Right = Float[Tensor, "*window right"]
Values = Float[Tensor, "*values"]

ROUNDING = 1e-12
"""Share of a sum of squares that a variance must exceed: rounding errors of a constant are below it.

A value whose standard deviation is below a millionth of its root mean square about the pivot is a constant, therefore.
"""


class Sums(Metric):  # type: ignore[misc]
    """The sums called `names`, each a state of a torchmetrics `Metric` of which a subclass computes a value."""

    full_state_update = False
    names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **options: Any) -> None:
        # A cached value would outlive `merge_state`.
        super().__init__(**{"dist_sync_fn": _gather, **options, "compute_with_cache": False})
        for name in self.names:
            self.add_state(name, torch.zeros((), dtype=torch.float64, device="cpu"), dist_reduce_fx="sum")

    def merge_state(self, incoming_state: Any) -> None:
        """As torchmetrics has it; a metric that has sums of another alone counts as updated."""
        super().merge_state(incoming_state)
        self._update_count += 1

    def add(self, **sums: Tensor | float) -> None:
        """Add the sums of a batch: to all states or, if one does not fit, to none."""
        added = {name: torch.as_tensor(value, dtype=torch.float64, device=self.device) for name, value in sums.items()}
        for name, value in added.items():
            self.check_fits(name, value.shape)
        for name, value in added.items():
            setattr(self, name, getattr(self, name) + value)

    def check_fits(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise unless sums of this shape can be added to the state `name`, which has no size before the first batch."""
        state = getattr(self, name)
        if state.ndim and state.shape != shape:
            raise ArgumentError(
                f"expected batches of one shape, given one with sums of {tuple(shape)} after others with "
                f"{tuple(state.shape)}; use a new metric for other items"
            )

    def check_image_shape(self, x: Batch) -> None:
        """Raise unless images have the shape of those before, of which the state `shapes` is the sum."""
        shape = torch.tensor(x.shape[1:], device="cpu").to(self.shapes)
        if self.count > 0 and not torch.equal(self.shapes, self.count * shape):
            seen = tuple(int(side) for side in self.shapes / self.count)
            raise ArgumentError(
                f"x: expected images {seen} as before, given {tuple(x.shape[1:])}; use a new metric for others"
            )

    def check_started(self, name: str) -> None:
        """Raise unless the state `name` has had a batch."""
        if getattr(self, name).ndim == 0:
            raise ArgumentError("expected at least one batch, given none; update with it first")


class AboutPivot(Sums):
    """Sums of powers or products about `pivot`."""

    def __init__(self, *, pivot: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.pivot = pivot

    def shifted(self, x: Values) -> Values:
        """`x` about the pivot, in float64 where the sums are."""
        return wide(x).to(self.device) - self.pivot


class Averages(Sums):
    """Means over images with their standard errors, of values of which there are `count`, `totals` and `squares`."""

    names: ClassVar[tuple[str, ...]] = ("count", "totals", "squares")

    def average(self) -> tuple[Tensor, Tensor]:
        """The mean over images and its standard error, NaN for one image."""
        check_images_seen(self.count, 1)
        mean = self.totals / self.count
        variance = (self.squares / self.count - mean**2).clamp_min(0) * self.count / (self.count - 1)
        return mean, (variance / self.count).sqrt()


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


def _gather(x: Tensor, group: Any = None) -> list[Tensor]:
    """`x` of every process. One that got no batch, and whose sums have no size, takes part with zeros."""
    shapes: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(shapes, tuple(x.shape), group)
    sizes = {shape for shape in shapes if shape}
    if len(sizes) > 1:
        raise ArgumentError(f"expected items of one shape on all processes, given sums of {shapes}; use a metric for each")
    gathered: list[Tensor] = gather_all_tensors(x.expand(*sizes) if sizes else x, group)
    return gathered
