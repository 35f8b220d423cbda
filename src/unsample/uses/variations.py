"""Variations of images: the same condition, other draws of the noise that a forward start adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._arguments import Idle
from .._tensors import Images, brief
from ..core.batching import OnStep, batches, broadcast_conditions, counter
from ..core.grid import Grid
from ..core.rng import ItemNoise
from ..core.starts import ForwardNoise
from ..core.stepper import Stepper
from ..errors import ArgumentError
from ..methods.registry import DEFAULT_METHOD
from .door import MethodLike, StartLike, use
from .invert import check_images, encoded
from .sources import Conditions, Picture, Size, Source, grid_of, one_condition, opened
from .turning import check_editable, cut, turning_level, walked_down, walked_up

VARIED_START = ForwardNoise(fraction=0.1)
"""Enough noise for visible differences, little enough to recognise the picture (on the bundled model)."""


@brief
@dataclass(frozen=True, eq=False)
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
        """The variations `made` of `images`, (batch, seeds, channels, height, width), with their distances."""
        apart = made.clamp(-1, 1) - images[:, None].to(made).clamp(-1, 1)
        return cls(made, apart.square().mean((2, 3, 4)).sqrt(), nfe)

    @property
    def nearest_first(self) -> Tensor:
        """The images, those nearest to the source first."""
        order = self.distances.argsort(dim=1, stable=True)
        return torch.stack([row[places] for row, places in zip(self.images, order, strict=True)])


@use(
    {},
    [
        Idle(
            ("method",),
            lambda given: given.strength is None and isinstance(given.method, Stepper) and not given.method.reversible,
            "without a strength: nothing is walked up",
        )
    ],
)
def variations(
    model: Source,
    images: Images | Picture | Sequence[Picture],
    *,
    prompt: Conditions = None,
    size: Size | None = None,
    seeds: int | Sequence[int] = 8,
    start: StartLike = VARIED_START,
    condition: Conditions = None,
    strength: float | None = None,
    method: MethodLike = DEFAULT_METHOD,
    steps: int = 50,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Variations:
    """The same images from other draws of the forward start's noise: the higher the start, the more they differ.

    An image is encoded once; each draw is walked separately. Going up from the start's level and back under one condition
    would change nothing but for the method's error: by default it is left out, and each result is sampled down from the
    start's level k, with k evaluations in place of about 2 N - k (SDEdit by DDIM; Meng et al. 2022), and one more from a level
    between two of the grid's.

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call.
        images: A tensor of pixels in [-1, 1], or pictures, as `unsample.invert` takes them.
        prompt: Another name of `condition`.
        size: Height and width to make a model of, as in `unsample.invert`; default is what goes with the images.
        seeds: How many, counted from 0, or which.
        start: The forward start, at level k; or as on the command line, "10%" or 5.
        condition: For the way up and down; one for all items or one per item.
        strength: The share of the moves after which to turn around, at least the start's, which is the default; 1 is the
            noisy end.
        method: How a move up is made; or its name, as on the command line.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        items: One id per image; defaults to 0, 1, 2, ...
        batch_size: Images per network call; all at once by default.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each batch of images with (results made, results in all), for progress bars.

    Raises:
        ArgumentError: A start without noise, fewer than one seed, or what `edit` refuses.
        ImageError: A picture that is missing, unreadable or too small.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
    """
    model, images = opened(model, images, size)
    condition = one_condition(condition, prompt)
    given, grid = tuple(range(seeds) if isinstance(seeds, int) else seeds), grid_of(model, steps, grid)
    if not given:
        raise ArgumentError("expected at least one seed for variations, given none")
    first = start.level(grid)
    if first is grid[0]:
        raise ArgumentError(
            "variations differ in the noise of a forward start, given none: start at ForwardNoise(steps=2), say"
        )
    level = 0 if strength is None else turning_level(strength, grid, start)
    if strength is None:
        grid, start = cut(grid, start, first)
        level = grid.steps
    check_editable(method)
    check_images(model, images)
    conditions = broadcast_conditions(condition, len(images))
    ids = list(range(len(images))) if items is None else list(items)
    report = counter(on_step, total=len(images) * len(given))
    parts = []
    for rows in batches(len(images), batch_size):
        clean = encoded(model, images[rows])
        own, made, nfe = conditions and conditions[rows], list[Tensor](), 0
        for seed in given:
            noise = ItemNoise(seed, ids[rows])
            there = walked_up(model, images[rows], clean, method, start, grid, level, noise, condition=own)
            one, nfe_down = walked_down(model, there, grid, method.sampler, own)
            made.append(one)
            nfe = max(nfe, there.nfe + nfe_down)
        report(len(images[rows]) * len(given))
        parts.append(torch.stack(made, dim=1))
    return Variations.of(torch.cat(parts), images, nfe)
