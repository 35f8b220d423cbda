"""From images to noise: `invert`, and there and back: `reconstruct`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._arguments import warn
from .._tensors import Images, brief, undisturbed, wide
from ..core.ascend import ascend, ends
from ..core.batching import OnStep, batches, broadcast_conditions, counter
from ..core.corrections import Corrected
from ..core.grid import Grid
from ..core.model import Model
from ..core.rng import ItemNoise
from ..core.starts import Start
from ..core.stepper import Stepper
from ..core.trajectory import Keep, Trajectory
from ..diagnostics._checks import IMAGE_LIMIT
from ..errors import ArgumentError, DivergenceWarning
from ..methods.registry import DEFAULT_METHOD, DEFAULT_START, spelled
from ..methods.starts import AUTO_SCORE, AutoStart
from .door import KeepLike, MethodLike, SamplerLike, StartLike, use
from .sample import sample
from .sources import Conditions, Picture, Size, Source, grid_of, one_condition, opened

BEYOND_NOISE = 100.0
"""No state of an image on its way to noise, of standard deviation 1, comes near this."""


@use()
def invert(
    model: Source,
    images: Images | Picture | Sequence[Picture],
    *,
    prompt: Conditions = None,
    size: Size | None = None,
    steps: int = 50,
    method: MethodLike = DEFAULT_METHOD,
    start: StartLike = DEFAULT_START,
    condition: Conditions = None,
    guidance: float = 1.0,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    until: int | None = None,
    batch_size: int | None = None,
    keep: KeepLike = Keep(),
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Trajectory:
    """The latents of `images`: the start's state, walked up the grid (docs/theory.md, eq. 4 and 6).

    Args:
        model: A `Model`, a live diffusers pipeline, or what `unsample.load` takes by name; a name is loaded at each call.
        images: A tensor of pixels in [-1, 1] of the model's size, float32, or float64 for a float64 walk. Or one or several
            PIL images, arrays (height, width, 3) of uint8 or files, which are cropped and reduced to the model's size.
        prompt: Another name of `condition`.
        size: Height and width to make a model of. By default latent models that take prompts are made for the images: for a
            tensor as it is; for the first picture at most as large as it is and as the model's own pictures, in multiples of
            64 pixels (8 latent cells). Other models keep their own size, and a `Model` has one.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        method: How a move is made: `DDIM()`, or as on the command line, "ddim:eval_at=source".
        start: Where the walk starts: `FromImage()`, `ForwardNoise(...)`, or as on the command line, "4%" or 2.
        condition: One for all items or one per item; a prompt, class index or name; None is unconditional.
        guidance: w in eps_u + w (eps_c - eps_u).
        seed: For the start's noise, together with `items`.
        items: One id per image; defaults to 0, 1, 2, ... The noise of an item depends on (seed, id) alone.
        until: Stop at this level of the grid instead of the noisy end.
        batch_size: Items per network call; all at once by default.
        keep: What to keep besides the latents: `Keep("states")`, or "states".
        grid: The levels to visit; default is the model's own.
        on_step: Called after each move with (item moves done, item moves in all); for progress bars.

    Returns:
        A `Trajectory`; its `nfe` is the measured number of network evaluations per item.

    Raises:
        ArgumentError: Images of the wrong shape or range of values, or settings that do not fit together.
        ImageError: A picture that is missing, unreadable or too small.
        ModelError: A pipeline of a class that is not known, or a model that cannot be loaded.
    """
    model, images = opened(model, images, size)
    return invert_encoded(
        model,
        images,
        None,
        method=method,
        start=start,
        condition=one_condition(condition, prompt),
        guidance=guidance,
        seed=seed,
        items=items,
        until=until,
        batch_size=batch_size,
        keep=keep,
        grid=grid_of(model, steps, grid),
        on_step=on_step,
    )


@undisturbed()
def invert_encoded(
    model: Model,
    images: Images,
    clean: list[Tensor] | None,
    *,
    method: Stepper | Corrected,
    start: Start,
    grid: Grid,
    condition: Conditions = None,
    guidance: float = 1.0,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    until: int | None = None,
    batch_size: int | None = None,
    keep: Keep = Keep(),
    on_step: OnStep | None = None,
) -> Trajectory:
    """`invert`, of images that are encoded already: `clean`, one tensor per batch; or else they are, batch by batch."""
    check_images(model, images)
    ids = list(range(len(images))) if items is None else list(items)
    if len(ids) != len(images):
        raise ArgumentError(f"expected one id per image: {len(images)} images, {len(ids)} items")
    conditions = broadcast_conditions(condition, len(images))
    first, last = ends(method, start, grid, until)
    report = counter(on_step, total=len(images) * method.moves(grid, first.index, last))

    def invert_rows(x0: Tensor, rows: list[int], start: Start) -> Trajectory:
        denoiser = model.denoiser(conditions and [conditions[row] for row in rows], guidance)
        noise, pixels = ItemNoise(seed, [ids[row] for row in rows]), images[rows]
        return ascend(denoiser, x0, grid, method, start, noise, images=pixels, until=until, keep=keep, on_move=report)

    parts: list[Trajectory] = []
    order: list[int] = []
    for i, rows in enumerate(batches(len(images), batch_size)):
        x0 = model.codec.encode(images[rows].to(model.device)) if clean is None else clean[i]
        if tuple(x0.shape[1:]) != model.shape:
            raise ArgumentError(
                f"expected images that model {model.name!r} can take as states of shape {model.shape}, "
                f"given {tuple(images.shape)}: check their channels"
            )
        pending, spent = torch.arange(rows.start, rows.stop, device="cpu"), 0
        candidates = start.candidates(grid) if isinstance(start, AutoStart) and method.inversion else [start]
        best: dict[int, tuple[float, Trajectory]] = {}
        for candidate in candidates:
            tried = invert_rows(x0[pending - rows.start], pending.tolist(), candidate)
            spent += tried.nfe
            fine = torch.ones(len(tried), dtype=torch.bool, device="cpu")
            if isinstance(start, AutoStart) and len(candidates) > 1:
                scores = start.scores(images[pending], tried.latent)
                fine = scores < AUTO_SCORE
                for i in (~fine).nonzero()[:, 0]:
                    item, score = int(pending[i]), float(scores[i])
                    if item not in best or score < best[item][0]:
                        best[item] = score, tried.take(i[None])
            if bool(fine.any()):
                parts.append(replace(tried if bool(fine.all()) else tried.take(fine.nonzero()[:, 0]), nfe=spent))
                order += pending[fine].tolist()
            pending = pending[~fine]
            if not len(pending):
                break
        for item in pending.tolist():  # none was white: the whitest
            parts.append(replace(best[item][1], nfe=spent))
            order.append(item)
    joined = replace(Trajectory.cat(parts), method=spelled(method), schedule=model.schedule.digest)
    _warn_of_divergence(joined.latent, method)
    return joined if order == sorted(order) else joined.take(torch.tensor(order, device="cpu").argsort())


@brief
@dataclass(frozen=True, eq=False)
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


@use()
def reconstruct(
    model: Source,
    images: Images | Picture | Sequence[Picture],
    *,
    prompt: Conditions = None,
    size: Size | None = None,
    steps: int = 50,
    method: MethodLike = DEFAULT_METHOD,
    sampler: SamplerLike | None = None,
    start: StartLike = DEFAULT_START,
    condition: Conditions = None,
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
    model, images = opened(model, images, size)
    condition = one_condition(condition, prompt)
    grid = grid_of(model, steps, grid)
    trajectory, on_step = invert_first(
        model,
        images,
        method=method,
        start=start,
        grid=grid,
        moves_after=len(images) * grid.steps,
        on_step=on_step,
        condition=condition,
        guidance=guidance,
        seed=seed,
        items=items,
        batch_size=batch_size,
    )
    sampled = sample(
        model,
        trajectory,
        method=sampler,
        condition=condition,
        guidance=guidance,
        seed=seed,
        items=items,
        batch_size=batch_size,
        on_step=on_step,
    )
    return Reconstruction(sampled.images, trajectory, trajectory.nfe + sampled.nfe)


def invert_first(
    model: Model,
    images: Tensor,
    *,
    method: Stepper | Corrected,
    start: Start,
    grid: Grid,
    moves_after: int,
    on_step: OnStep | None,
    **settings: Any,
) -> tuple[Trajectory, OnStep | None]:
    """The inversion of images, and what counts the item moves that follow it: one progress bar for both."""
    moves_up = len(images) * method.moves(grid, start.level(grid).index, grid.steps)

    def counted_from(before: int) -> OnStep | None:
        return on_step and (lambda done, _total: on_step(before + done, moves_up + moves_after))

    trajectory = invert(model, images, method=method, start=start, grid=grid, on_step=counted_from(0), **settings)
    return trajectory, counted_from(moves_up)


def encoded(model: Model, images: Images, batch_size: int | None = None) -> list[Tensor]:
    """The clean states of images, one tensor per batch."""
    return [model.codec.encode(images[rows].to(model.device)) for rows in batches(len(images), batch_size)]


def _warn_of_divergence(latent: Tensor, method: Stepper | Corrected) -> None:
    """Warn of latents that are finite and far beyond noise; those that are not finite show by themselves."""
    sizes = wide(latent).flatten(1).square().mean(1).sqrt()
    beyond = sizes[(sizes > BEYOND_NOISE) & torch.isfinite(sizes)]
    if len(beyond):
        warn(
            f"{len(beyond)} of {len(latent)} latents are up to {float(beyond.max()):.0e} times as large as noise: {method} "
            "diverged. Take fewer steps, a stabler setting of it, or another method",
            DivergenceWarning,
        )


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
    if not largest <= IMAGE_LIMIT:
        raise ArgumentError(
            f"expected finite images, nominally in [-1, 1], given one with a value of {largest:.3g}; "
            "rescale bytes with images / 127.5 - 1"
        )
