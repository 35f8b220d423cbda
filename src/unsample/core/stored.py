"""What a method keeps of each image besides its latent, to find the way back to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ArgumentError

__all__ = ["Stored"]


@dataclass(frozen=True)
class Stored:
    """The maps kept besides a latent; each has one row per item. Most methods keep none.

    Attributes:
        memory: What a reversible method turns around with.
        corrections: Level -> what is added to the sampler's state when it arrives there (`unsample.methods.corrected`).
        eps: Level -> the eps that the inversion used from or to there, replayed instead of asking the network.

    >>> Stored(memory=(torch.zeros(2, 1, 4, 4),)).bits
    512
    """

    memory: tuple[Tensor, ...] = field(default=(), repr=False)
    corrections: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    eps: Mapping[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def bits(self) -> int:
        """Bits per image, uncompressed."""
        return sum(8 * tensor.element_size() * tensor[0].numel() for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a file: `memory.0`, `corrections.3` ..."""
        return {
            **{f"memory.{i}": tensor for i, tensor in enumerate(self.memory)},
            **{f"corrections.{i}": tensor for i, tensor in self.corrections.items()},
            **{f"eps.{i}": tensor for i, tensor in self.eps.items()},
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Stored:
        """What `tensors()` named; other names are passed over."""
        kept: dict[str, dict[int, Tensor]] = {"memory": {}, "corrections": {}, "eps": {}}
        for name, tensor in tensors.items():
            kind, _, index = name.partition(".")
            if kind in kept and index.isdecimal():
                kept[kind][int(index)] = tensor
        return cls(tuple(kept["memory"][i] for i in sorted(kept["memory"])), kept["corrections"], kept["eps"])

    def take(self, rows: slice | Tensor, device: torch.device | None = None) -> Stored:
        """The same of some items, moved to `device`."""
        return Stored.of({name: tensor[rows].to(device) for name, tensor in self.tensors().items()})

    @classmethod
    def cat(cls, parts: Sequence[Stored]) -> Stored:
        """Items joined. A level that some have no correction at is one where theirs is zero.

        Raises:
            ArgumentError: Items with eps of different levels, that is with different starts.
        """
        if len({tuple(part.eps) for part in parts}) > 1:
            raise ArgumentError("items with different starts cannot keep their eps together; use one start, or keep_eps=False")
        levels = sorted({level for part in parts for level in part.corrections})

        def correction(part: Stored, level: int) -> Tensor:
            return part.corrections[level] if level in part.corrections else torch.zeros_like(part.corrections[0])

        return cls(
            tuple(torch.cat(pieces) for pieces in zip(*(part.memory for part in parts), strict=True)),
            {level: torch.cat([correction(part, level) for part in parts]) for level in levels},
            {level: torch.cat([part.eps[level] for part in parts]) for level in parts[0].eps},
        )
