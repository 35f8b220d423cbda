"""What a method keeps of each image to return to it exactly, and which latents it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ArgumentError
from .grid import Grid
from .reading import is_index

TAKE = "trajectory.take(rows) leaves out items with all that is kept of them"
"""What to do instead of cutting the latents alone."""


@dataclass(frozen=True, eq=False)
class Stored:
    """The maps kept besides a latent; each has one row per item. Most methods keep none.

    Attributes:
        memory: What a reversible method turns around with.
        corrections: Level -> what is added to the sampler's state when it arrives there (`unsample.methods.corrected`).
        eps: Level -> the eps that the inversion used from or to there, used again instead of calling the network.
        steps: Moves of the grid that it belongs to; 0 if that is not known.

    >>> Stored(memory=(torch.zeros(2, 1, 4, 4),)).bits
    512
    """

    memory: tuple[Tensor, ...] = field(default=(), repr=False)
    corrections: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    eps: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    steps: int = 0

    def check(self, grid: Grid, latent: Tensor) -> None:
        """Refuse a grid or latents that it does not belong to.

        Raises:
            ArgumentError: A grid of another number of moves, if anything is stored, or other items than those of `latent`.
        """
        self.check_items(latent)
        if self.steps not in (0, grid.steps) and self.tensors():
            raise ArgumentError(
                f"what the inversion stored belongs to its grid of {self.steps} moves, given one of {grid.steps}: "
                f"sample the trajectory itself, or with steps={self.steps}"
            )

    def check_items(self, latent: Tensor) -> None:
        """Refuse latents of another number or shape.

        Raises:
            ArgumentError: Such latents.
        """
        for name, tensor in self.tensors().items():
            check_like(f"stored {name}", tensor, latent.shape if not name.startswith("memory") else latent.shape[:1])

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
    def of(cls, tensors: Mapping[str, Tensor], steps: int = 0) -> Stored:
        """The inverse of `tensors()`; other names are ignored."""
        kept: dict[str, dict[int, Tensor]] = {"memory": {}, "corrections": {}, "eps": {}}
        for name, tensor in tensors.items():
            kind, _, index = name.partition(".")
            if kind in kept and is_index(index):
                kept[kind][int(index)] = tensor
        memory = kept.pop("memory")
        return cls(tuple(memory[i] for i in sorted(memory)), **kept, steps=steps)

    def take(self, rows: slice | Tensor, device: torch.device | None = None) -> Stored:
        """The same of some items, moved to `device`."""
        return Stored.of({name: tensor[rows].to(device) for name, tensor in self.tensors().items()}, self.steps)

    @classmethod
    def cat(cls, parts: Sequence[Stored], counts: Sequence[int] = ()) -> Stored:
        """Items joined; the correction of an item is zero at levels where only others have one.

        Args:
            parts: What is joined.
            counts: How many items each part is of; only needed if one stores nothing.

        Raises:
            ArgumentError: Items with eps of different levels, that is with different starts.
        """
        if len({tuple(part.eps) for part in parts}) > 1:
            raise ArgumentError("items with different starts cannot keep their eps together; use one start, or keep_eps=False")
        counts = counts or [len(next(iter(part.tensors().values()), ())) for part in parts]
        any_of = {level: tensor for part in parts for level, tensor in part.corrections.items()}

        def corrections(level: int) -> list[Tensor]:
            zeros = (any_of[level].new_zeros(count, *any_of[level].shape[1:]) for count in counts)
            return [part.corrections.get(level, zero) for part, zero in zip(parts, zeros, strict=True)]

        return cls(
            tuple(torch.cat(pieces) for pieces in zip(*(part.memory for part in parts), strict=True)),
            {level: torch.cat(corrections(level)) for level in sorted(any_of)},
            {level: torch.cat([part.eps[level] for part in parts]) for level in parts[0].eps},
            parts[0].steps,
        )


def check_like(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    """Refuse a tensor whose shape does not begin with `shape`, like that of its latents.

    Raises:
        ArgumentError: Such a tensor.
    """
    if tuple(tensor.shape[: len(shape)]) != tuple(shape):
        raise ArgumentError(
            f"{name} belongs to other latents: expected shape {tuple(shape)} as theirs, given {tuple(tensor.shape)}; {TAKE}"
        )
