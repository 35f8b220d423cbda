"""Linear CKA between two sets of features of any number of items, from D x D sums."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from ...errors import ArgumentError
from .._checks import blocks, check_finite, wide
from ._sums import accumulate, add_sums, centred, check_images_seen, varies

__all__ = ["LinearCKA"]

Left = Float[Tensor, "items *left"]
Right = Float[Tensor, "right_items *right"]


class LinearCKA(Metric):  # type: ignore[misc]
    """`linear_cka` of all batches. Memory is 8 (D1^2 + D2^2 + D1 D2) bytes: 96 MiB for 2048 values on both sides.

    A value whose standard deviation is below a millionth of its root mean square about `pivot` is a constant.

    Args:
        pivot: A number near the mean of the features, the same on all processes.
        **options: Those of every torchmetrics `Metric`.

    Raises:
        ArgumentError: From `update`, sides of differing numbers of items, items of other sizes than before, or values that are
            not finite; from `compute`, fewer than two items in all.

    >>> import torch
    >>> a, found = torch.eye(4)[:, :3], LinearCKA()
    >>> for batch in a.split(3):
    ...     found.update(batch, batch[:, :1])
    >>> round(float(found.compute()), 4)
    0.6383
    """

    full_state_update = False
    count: Tensor
    total_a: Tensor
    total_b: Tensor
    aa: Tensor
    bb: Tensor
    ab: Tensor

    def __init__(self, *, pivot: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.pivot = pivot
        add_sums(self, "count", "total_a", "total_b", "aa", "bb", "ab")

    def update(self, a: Left, b: Right) -> None:
        """Add features [N, ...] of the same items on both sides, flattened behind the first dimension."""
        check_finite(a, "a")
        check_finite(b, "b")
        if a.ndim < 1 or b.ndim < 1 or len(a) != len(b):
            raise ArgumentError(
                f"expected features of the same items, given {tuple(a.shape)} and {tuple(b.shape)}; pair them row by row"
            )
        left, right = a.reshape(len(a), -1), b.reshape(len(b), -1)
        for part in blocks(len(a), left.shape[1] + right.shape[1]):
            x, y = (wide(side[part]).to(self.device) - self.pivot for side in (left, right))
            products = {"aa": x.mT @ x, "bb": y.mT @ y, "ab": x.mT @ y}
            accumulate(self, count=len(x), total_a=x.sum(0), total_b=y.sum(0), **products)

    def compute(self) -> Float[Tensor, ""]:
        """In [0, 1]; NaN if one side is the same for all items."""
        check_images_seen(self.count, 2)
        in_a = varies(self.aa.diagonal(), self.total_a, self.count)
        in_b = varies(self.bb.diagonal(), self.total_b, self.count)
        aa = centred(self.aa, self.total_a, self.total_a, self.count)[in_a][:, in_a].norm()
        bb = centred(self.bb, self.total_b, self.total_b, self.count)[in_b][:, in_b].norm()
        ab = centred(self.ab, self.total_a, self.total_b, self.count)[in_a][:, in_b].norm()
        # 0 / 0 where a side is constant: its norm is that of no values, exactly 0.
        value: Tensor = ab**2 / (aa * bb)
        return value
