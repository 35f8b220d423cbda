"""What lies between pictures: `interpolate` of latents, or of pictures, which are inverted first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.batching import OnStep
from ..core.corrections import Corrected
from ..core.ddim import DDIM
from ..core.grid import Grid
from ..core.model import Condition
from ..core.starts import Start
from ..core.stepper import Stepper
from ..core.trajectory import Trajectory
from ..errors import ArgumentError
from ..methods.registry import DEFAULT_METHOD, DEFAULT_START
from . import interpolate as interpolation
from .door_moves import Way
from .interpolate import Interpolation, frames_between
from .sources import Picture, Size, Source, for_latents, told, with_images

__all__ = ["interpolate"]


def interpolate(
    model: Source,
    keys: Tensor | Trajectory | Picture | Sequence[Picture],
    *,
    prompt: Condition | Sequence[Condition] = None,
    size: Size | None = None,
    frames: int | tuple[int, int] = 9,
    path: str = "slerp",
    steps: int = 50,
    method: Stepper = DDIM(),
    condition: Condition | Sequence[Condition] = None,
    guidance: float = 1.0,
    inversion: Stepper | Corrected = DEFAULT_METHOD,
    start: Start = DEFAULT_START,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Interpolation:
    """Images along the path from the first of some latents, or pictures, through all others to the last.

    Pictures are inverted first, each under its own condition, with the guidance that the frames are sampled with: the frames
    at the keys are then their reconstructions. The result's `nfe` is that of the way down alone.

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call.
        keys: At least 2 pictures, as `unsample.invert` takes them. Or latents at the noisy end: a tensor, shape
            (keys, *model.shape), or a trajectory. A tensor is never pixels.
        prompt: Another name of `condition`.
        size: Height and width to make a model of, as in `unsample.invert`; default is what goes with the keys.
        frames: Images in all, every key being one of them (`key_frames`). Or the rows and columns of a grid, whose four
            corners are then the keys: upper left, upper right, lower left, lower right.
        path: `slerp`, `lerp` or `norm`, as the functions of these names.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        method: What walks down. It has no memory to go by, so reversible methods are at home elsewhere.
        condition: One for all, or one per key. Conditions that differ are interpolated as embeddings, along straight lines,
            in a model that has some (`Model.embed`).
        guidance: w in eps_u + w (eps_c - eps_u); 1 is conditional only.
        inversion: The method that pictures are inverted by; none that stores something beside the latent.
        start: Where these inversions start.
        seed: For the start's noise, together with `items`.
        items: One id per picture; defaults to 0, 1, 2, ...
        batch_size: Images per network call; all at once by default.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each move, for progress bars.

    Raises:
        ArgumentError: Too few keys or frames, a grid of other than four keys, or conditions that have nothing in between.
        DivergenceError: A key that is not finite.
        UnknownNameError: No such path.
        ImageError: A picture that is missing, unreadable or too small.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
    """
    wanted: dict[str, Any] = {"frames": frames, "path": path, "condition": told(condition, prompt)}
    how: dict[str, Any] = {"guidance": guidance, "batch_size": batch_size}
    if isinstance(keys, (Tensor, Trajectory)):
        latents, down = keys if isinstance(keys, Tensor) else keys.latent, on_step
        ready = for_latents(model, latents, size)
        levels = grid or ready.grid(steps)
        if isinstance(keys, Trajectory):
            _check_end(keys, levels)
    else:
        ready, pixels = with_images(model, keys, size)
        levels = grid or ready.grid(steps)
        _check_method(inversion)
        found = frames_between(ready, torch.zeros(len(pixels), 1), **wanted)  # refused before any work
        way = Way(inversion, start, levels, len(found.latents) * levels.steps, on_step)
        there, down = way.up(ready, pixels, condition=wanted["condition"], seed=seed, items=items, **how)
        latents = there.latent
    return interpolation.interpolate(ready, latents, method=method, grid=levels, on_step=down, **wanted, **how)


def _check_end(keys: Trajectory, grid: Grid) -> None:
    """Refuse a trajectory whose latents are not at the noisy end, or not all that is needed."""
    if keys.index != grid.steps:
        raise ArgumentError(
            f"expected a trajectory up to the noisy end, level {grid.steps}, given one up to {keys.index}: give steps"
        )
    if keys.stored.tensors():
        raise ArgumentError(
            "the trajectory's way back is in what its method stored of each picture, and between pictures there is nothing "
            "stored: invert by another method, or give trajectory.latent to do without"
        )


def _check_method(inversion: Stepper | Corrected) -> None:
    if isinstance(inversion, Corrected) or inversion.reversible:
        raise ArgumentError(
            f"{inversion} finds its way back by what it stores of each picture, and between pictures there is nothing stored: "
            "choose another inversion, such as LookAhead()"
        )
