"""Noise drawn per item, not per batch.

Every draw is a function of (seed, item id, stream) alone, so a result depends on neither the batch size, the order of
the items nor the number of processes. Draws are made in float64 on the CPU and cast, so precision and device change the
rounding of the noise and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ArgumentError, counted


@dataclass(frozen=True)
class ItemNoise:
    """Standard normal noise for a batch of items, one independent generator per item.

    Attributes:
        seed: Any integer; the same for all items of an experiment.
        items: One id per item, unique within the experiment: a file name, a content hash, an index.

    >>> a = ItemNoise(0, ["cat", "dog"]).draw((2, 3))
    >>> b = ItemNoise(0, ["dog"]).draw((1, 3))
    >>> torch.equal(a[1], b[0])
    True
    """

    seed: int
    items: Sequence[str | int]

    def draw(
        self,
        shape: Sequence[int],
        *,
        stream: str = "start",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Noise of `shape` (batch first, one row per item); `stream` separates independent uses of the same seed."""
        if len(self.items) < shape[0]:
            raise ArgumentError(
                f"expected one item per row of noise: {counted(shape[0], 'row')}, {counted(len(self.items), 'item')}"
            )
        rows = [
            torch.randn(tuple(shape[1:]), generator=self._generator(item, stream), dtype=torch.float64, device="cpu")
            for item in self.items[: shape[0]]
        ]
        return torch.stack(rows).to(device=device, dtype=dtype)

    def _generator(self, item: str | int, stream: str) -> torch.Generator:
        key = f"{self.seed}\0{item}\0{stream}".encode()
        return torch.Generator("cpu").manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "little", signed=True))
