"""Variations of images: the same condition, other draws of the noise that a forward start adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._typing import Images, Latents
from ..core.batching import OnStep, batches, broadcast_conditions, counter
from ..core.corrections import Corrected
from ..core.grid import Grid
from ..core.model import Codec, Model
from ..core.starts import ForwardNoise, Start
from ..core.stepper import Stepper
from ..errors import ArgumentError
from ..methods.registry import DEFAULT_METHOD
from .edit import edit
from .masks import Conditions

__all__ = ["VARIED_START", "Variations", "variations"]

VARIED_START = ForwardNoise(fraction=0.1)
"""Enough noise to see, little enough to know the picture again (on the bundled model)."""


@dataclass(frozen=True)
class Variations:
    """Several results for each image.

    Attributes:
        images: Nominally in [-1, 1], not clamped; shape (batch, seeds, channels, height, width).
        distances: Root mean square difference to the image per pixel value, clamped to [-1, 1]; shape (batch, seeds).
        nfe: Network evaluations of one variation of one item.
    """

    images: Tensor
    distances: Tensor
    nfe: int

    @classmethod
    def of(cls, made: Tensor, images: Tensor, nfe: int) -> Variations:
        """`made`, (batch, seeds, channels, height, width), with the distances to `images`, one for each row."""
        apart = made.clamp(-1, 1) - images[:, None].to(made).clamp(-1, 1)
        return cls(made, apart.square().mean((2, 3, 4)).sqrt(), nfe)

    @property
    def nearest_first(self) -> Tensor:
        """The images, those nearest to the source first."""
        order = self.distances.argsort(dim=1, stable=True)
        return torch.stack([row[places] for row, places in zip(self.images, order, strict=True)])


def variations(
    model: Model,
    images: Images,
    *,
    seeds: int | Sequence[int] = 8,
    start: Start = VARIED_START,
    condition: Conditions = None,
    strength: float | None = None,
    method: Stepper | Corrected = DEFAULT_METHOD,
    steps: int = 50,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Variations:
    """The same images from other draws of the forward start's noise: the more start, the more they differ.

    Each draw has a way of its own, and only the encoding is shared. From the start's level up to the noisy end and back under
    one condition is a way that changes nothing but by the method's error: by default it is left out, and each result is
    sampled down from the start's level, k evaluations in place of about 2 N - k (SDEdit by DDIM; Meng et al. 2022).

    Args:
        model: What `unsample.load` returns, or your own `Model`.
        images: Pixels in [-1, 1] of the model's size.
        seeds: How many, counted from 0, or which.
        start: The forward start, at level k.
        condition: Up and down; one for all items or one per item.
        strength: The share of the moves after which to turn around, at least the start's, which is the default; 1 is the
            noisy end.
        method: How the way up is made.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        items: One id per image; defaults to 0, 1, 2, ...
        batch_size: Images per network call; all at once by default.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each batch of images with (results made, results in all), for progress bars.

    Raises:
        ArgumentError: A start without noise, fewer than one seed, or what `edit` refuses.
    """
    given, grid = tuple(range(seeds) if isinstance(seeds, int) else seeds), grid or model.grid(steps)
    if not given:
        raise ArgumentError("expected at least one seed for variations, given none")
    if start.index(grid) == 0:
        raise ArgumentError(
            "variations differ in the noise of a forward start, given none: start at ForwardNoise(steps=2), say"
        )
    share = start.index(grid) / grid.steps if strength is None else strength
    once, ids = replace(model, codec=_Once(model.codec)), list(range(len(images)) if items is None else items)
    conditions = broadcast_conditions(condition, len(images))
    report = counter(on_step, total=len(images) * len(given))
    parts: list[Tensor] = []
    for rows in batches(len(images), batch_size):
        own: Conditions = conditions and conditions[rows]
        same: dict[str, Any] = {"to": own, "source": own, "guidance": 1.0, "strength": share, "method": method}
        made = [edit(once, images[rows], start=start, grid=grid, items=ids[rows], seed=seed, **same) for seed in given]
        report(len(images[rows]) * len(given))
        parts.append(torch.stack([one.images for one in made], dim=1))
    return Variations.of(torch.cat(parts), images, max(one.nfe for one in made))


@dataclass
class _Once:
    """A codec that encodes the same images, asked for again and again, once."""

    codec: Codec
    last: tuple[Tensor, Tensor] | None = None

    @property
    def scale(self) -> int:
        """That of the codec."""
        return self.codec.scale

    def encode(self, images: Images) -> Latents:
        """Encoded, or as it was the last time."""
        if self.last is None or not torch.equal(self.last[0], images):
            self.last = images, self.codec.encode(images)
        return self.last[1]

    def decode(self, latents: Latents) -> Images:
        """As the codec does."""
        return self.codec.decode(latents)
