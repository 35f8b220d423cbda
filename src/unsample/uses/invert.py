"""From images to noise: `invert`, and there and back: `reconstruct`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._typing import Images
from ..core.ascend import ascend, ends
from ..core.batching import OnStep, batches, broadcast_conditions, counter
from ..core.corrections import Corrected
from ..core.grid import Grid
from ..core.model import Condition, Model
from ..core.rng import ItemNoise
from ..core.starts import Start
from ..core.stepper import Stepper
from ..core.trajectory import Keep, Stored, Trajectory
from ..errors import ArgumentError
from ..methods.registry import DEFAULT_METHOD, DEFAULT_START
from ..methods.starts import AutoStart
from .sample import sample

__all__ = ["Reconstruction", "invert", "reconstruct"]

BEYOND_PIXELS = 20.0
"""No image in [-1, 1] comes near this, even unclamped; bytes in 0..255 exceed it."""


@torch.no_grad()
def invert(
    model: Model,
    images: Images,
    *,
    steps: int = 50,
    method: Stepper | Corrected = DEFAULT_METHOD,
    start: Start = DEFAULT_START,
    condition: Condition | Sequence[Condition] = None,
    guidance: float = 1.0,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    until: int | None = None,
    batch_size: int | None = None,
    keep: Keep = Keep(),
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Trajectory:
    """The latents of `images`: the start's state, walked up the grid (docs/theory.md, eq. 4 and 6).

    Args:
        model: What `unsample.load` returns, or your own `Model`.
        images: Pixels in [-1, 1] of the model's size; float32, or float64 for a float64 walk.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        method: How a move is made.
        start: Where the walk starts: `FromImage()`, or `ForwardNoise(...)`.
        condition: One for all items or one per item; class index or name; None is unconditional.
        guidance: w in eps_u + w (eps_c - eps_u).
        seed: For the start's noise, together with `items`.
        items: One id per image; defaults to 0, 1, 2, ... The noise of an item depends on (seed, id) alone.
        until: Stop at this level of the grid instead of the noisy end.
        batch_size: Items per network call; all at once by default.
        keep: What to keep besides the latents.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each move with (item moves done, item moves in all); for progress bars.

    Returns:
        A `Trajectory`; its `nfe` is the measured number of network evaluations per item.

    Raises:
        ArgumentError: Images of the wrong shape or range of values, or settings that do not fit together.
    """
    grid = grid or model.grid(steps)
    check_images(model, images)
    ids = list(range(len(images))) if items is None else list(items)
    if len(ids) != len(images):
        raise ArgumentError(f"expected one id per image: {len(images)} images, {len(ids)} items")
    conditions = broadcast_conditions(condition, len(images))
    first, last = ends(method, start, grid, until)
    report = counter(on_step, total=len(images) * method.moves(grid, first, last))

    def invert_rows(x0: Tensor, rows: list[int], start: Start) -> Trajectory:
        denoiser = model.denoiser(conditions and [conditions[row] for row in rows], guidance)
        noise, pixels = ItemNoise(seed, [ids[row] for row in rows]), images[rows]
        return ascend(denoiser, x0, grid, method, start, noise, images=pixels, until=until, keep=keep, on_move=report)

    parts: list[Trajectory] = []
    order: list[int] = []
    for rows in batches(len(images), batch_size):
        x0 = model.codec.encode(images[rows].to(model.device))
        if tuple(x0.shape[1:]) != model.shape:
            raise ArgumentError(
                f"expected images that model {model.name!r} can take as states of shape {model.shape}, "
                f"given {tuple(images.shape)}: check their channels"
            )
        pending, spent = torch.arange(rows.start, rows.stop), 0
        candidates = start.candidates(grid) if isinstance(start, AutoStart) and method.inversion else [start]
        for candidate in candidates:
            tried = invert_rows(x0[pending - rows.start], pending.tolist(), candidate)
            spent += tried.nfe
            fine = torch.ones(len(tried), dtype=torch.bool)
            if isinstance(start, AutoStart) and candidate is not candidates[-1]:
                fine = start.accepts(images[pending], tried.latent)
            if bool(fine.any()):
                parts.append(replace(tried if bool(fine.all()) else tried.take(fine.nonzero()[:, 0]), nfe=spent))
                order += pending[fine].tolist()
            pending = pending[~fine]
            if not len(pending):
                break
    joined = Trajectory.cat(parts)
    return joined if order == sorted(order) else joined.take(torch.tensor(order).argsort())


@dataclass(frozen=True)
class Reconstruction:
    """There and back.

    Attributes:
        images: Sampled from the latents, nominally in [-1, 1], not clamped.
        trajectory: The way there.
        nfe: Network evaluations per item, there and back.
    """

    images: Tensor
    trajectory: Trajectory
    nfe: int


def reconstruct(
    model: Model,
    images: Images,
    *,
    steps: int = 50,
    method: Stepper | Corrected = DEFAULT_METHOD,
    sampler: Stepper | None = None,
    start: Start = DEFAULT_START,
    condition: Condition | Sequence[Condition] = None,
    guidance: float = 1.0,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Reconstruction:
    """Invert with `method`, sample back with `sampler`; the other arguments are those of `invert`.

    What the method stores is used on the way back, unless another `sampler` than its own is given; most methods store nothing
    and sample back by DDIM.
    """
    back_by = sampler or method.sampler
    grid = grid or model.grid(steps)
    there, back = len(images) * method.moves(grid, start.index(grid), grid.steps), len(images) * grid.steps

    def shifted(offset: int) -> OnStep | None:
        return on_step and (lambda done, _total: on_step(offset + done, there + back))

    trajectory = invert(
        model,
        images,
        method=method,
        start=start,
        condition=condition,
        guidance=guidance,
        seed=seed,
        items=items,
        batch_size=batch_size,
        grid=grid,
        on_step=shifted(0),
    )
    sampled = sample(
        model,
        trajectory.latent,
        method=back_by,
        stored=trajectory.stored if back_by == method.sampler else Stored(),
        condition=condition,
        guidance=guidance,
        seed=seed,
        items=items,
        batch_size=batch_size,
        grid=grid,
        on_step=shifted(there),
    )
    return Reconstruction(sampled.images, trajectory, trajectory.nfe + sampled.nfe)


def check_images(model: Model, images: Tensor) -> None:
    """Refuse what cannot be inverted, at the border; NaN fails the comparison too."""
    height, width = model.image_size
    if images.ndim != 4 or images.shape[2:] != (height, width) or not len(images):
        raise ArgumentError(
            f"expected images of shape (batch, channels, {height}, {width}) for model {model.name!r}, "
            f"given {tuple(images.shape)}; resize them first (unsample.pictures.read.load_images does)"
        )
    if not images.is_floating_point():
        raise ArgumentError(f"expected float images in [-1, 1], given {images.dtype}; use images / 127.5 - 1")
    largest = float(images.abs().max())
    if not largest <= BEYOND_PIXELS:
        raise ArgumentError(
            f"expected finite images, nominally in [-1, 1], given one with a value of {largest:.3g}; "
            "rescale bytes with images / 127.5 - 1"
        )
