"""Editing: up under one condition, down under another.

An inversion under the source's condition leads to a latent from which sampling under that condition returns. Under another
condition the same latent becomes another picture, the more so the further up the walk went. A mask keeps the background: on
the way down the state outside of it is set back, level by level, to the one that the way up passed there (its pivot).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

from .._typing import Images
from ..core.batching import OnStep, batches, broadcast_conditions, counter, negative_of
from ..core.corrections import Corrected, Replay
from ..core.denoiser import Counted, Denoiser
from ..core.grid import Grid
from ..core.model import Model
from ..core.rng import ItemNoise
from ..core.starts import ForwardNoise, Start
from ..core.stepper import Moved, Stepper
from ..core.trajectory import Keep, Trajectory
from ..core.walk import walk
from ..errors import ArgumentError, DivergenceError
from ..methods.registry import DEFAULT_METHOD, DEFAULT_START
from .invert import check_images, invert
from .masks import AUTO, Conditions, cells_of, difference_mask, read_mask

__all__ = ["Edit", "edit", "turning_level"]


@dataclass(frozen=True)
class Edit:
    """Edited images.

    Attributes:
        images: Nominally in [-1, 1], not clamped; shape (batch, channels, height, width).
        trajectory: The way up, which serves further edits; after a masked one with all pivots, the clean state at level 0.
        mask: Where the state might change, one value a latent cell; None for everywhere.
        nfe_up: Network evaluations per item on the way up; 0 for a trajectory that was there before.
        nfe_down: Evaluations on the way down.
        nfe_mask: Evaluations to find the mask.
    """

    images: Tensor
    trajectory: Trajectory
    mask: Tensor | None
    nfe_up: int
    nfe_down: int
    nfe_mask: int = 0

    @property
    def nfe(self) -> int:
        """In all."""
        return self.nfe_up + self.nfe_down + self.nfe_mask


@torch.no_grad()
def edit(
    model: Model,
    images: Images | Trajectory,
    *,
    to: Conditions,
    source: Conditions = None,
    guidance: float = 3.0,
    negative: Conditions | Mapping[int, Tensor] | EllipsisType = ...,
    strength: float = 1.0,
    mask: Tensor | str | Path | None = None,
    steps: int = 50,
    method: Stepper | Corrected = DEFAULT_METHOD,
    start: Start = DEFAULT_START,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> Edit:
    """Images inverted under `source` and sampled under `to`.

    Where `to` is the source's condition the result is the reconstruction, whatever the guidance: moving away from the source
    then cancels (negative-prompt inversion, Miyake et al. 2023). Below a forward start, pivots lie on the line of its noise.

    Args:
        model: What `unsample.load` returns, or your own `Model`.
        images: Pixels in [-1, 1] of the model's size; or a trajectory of `invert` under `source`, for as many edits as you
            like. Of such a one a smaller strength or a mask needs the states, `keep=Keep("states")`; a mask then holds down to
            the lowest state kept, so add the clean one, level 0, after a forward start.
        to: The condition of the edit; one for all items or one per item; None is unconditional.
        source: The condition that the images are inverted under.
        guidance: w in eps_n + w (eps_to - eps_n) on the way down; the way up is walked without. Large ones saturate
            the colours, as in sampling: on the bundled model from about 4 on.
        negative: What eps_n is asked under; by default the source, None for the unconditional, or embeddings by level
            (`unsample.null_text`).
        strength: The share of the moves that is walked up and down, 0..1; 0 is the image itself, through the codec.
        mask: Where the picture may change: true or from 0.5 on, shape (height, width) or (batch, height, width) of the images;
            a grey picture file, white where it may; or "auto" (`difference_mask`). Without, everywhere.
        steps: N, moves of the whole grid; ignored when `grid` is given.
        method: How the way up is made, or was.
        start: Where it starts.
        seed: For the start's noise and that of an automatic mask, together with `items`.
        items: One id per image; defaults to 0, 1, 2, ...
        batch_size: Items per network call; all at once by default.
        grid: The levels to visit; default is the model's own.
        on_step: Called after each move, for progress bars.

    Raises:
        ArgumentError: Settings that do not fit together, or a trajectory that lacks what they need.
        ImageError: A mask file that cannot be read.
        DivergenceError: A result that is not finite.
    """
    grid = grid or model.grid(steps)
    fresh = not isinstance(images, Trajectory)
    level, count = turning_level(strength, grid, start if fresh else None), len(images)
    if mask is not None and method.sampler.reversible:
        raise ArgumentError(f"a mask sets states back, and {method} carries more than its state: choose another method")
    if (isinstance(method, Corrected) and method.keeps == "eps") or (isinstance(images, Trajectory) and images.stored.eps):
        raise ArgumentError("what replays the source's eps on the way down cannot be edited: use exact with keep_eps=False")
    noise = ItemNoise(seed, list(range(count)) if items is None else list(items))
    away = negative
    if isinstance(away, EllipsisType):
        away = None if model.distilled else source
    conditions = broadcast_conditions(to, count)
    model.denoiser(conditions and conditions[:1], guidance, negative_of(away, count, slice(0, 1)))  # refused before any work
    if isinstance(images, Trajectory):
        there, nfe_up = _reused(images, level, grid, method), 0
    else:
        keep = Keep() if mask is None else Keep("states")
        there = walked_up(model, images, method, start, grid, level, noise, keep, condition=source, batch_size=batch_size)
        nfe_up = there.nfe
    cells, nfe_mask = _found(model, there, mask, to, source, grid, noise, batch_size)
    if cells is not None:
        there = replace(there, states=pivots_of(there.states, grid, level))
    way = _Way(model, grid, level, method.sampler, there, cells, counter(on_step, total=count * level))
    parts, nfe_down = [], 0
    for rows in batches(count, batch_size):
        denoiser = Counted(model.denoiser(conditions and conditions[rows], guidance, negative_of(away, count, rows)))
        parts.append(way.down(denoiser, rows))
        nfe_down = denoiser.nfe
    if not bool(torch.isfinite(edited := torch.cat(parts)).all()):
        raise DivergenceError(f"an edit left the finite numbers; try a guidance below {guidance:g}, more steps, or float32")
    return Edit(edited, there, cells, nfe_up, nfe_down, nfe_mask)


@dataclass(frozen=True)
class _Way:
    """The way down of all items."""

    model: Model
    grid: Grid
    level: int
    sampler: Stepper
    there: Trajectory
    cells: Tensor | None
    report: Callable[[int], None]

    def down(self, denoiser: Denoiser, rows: slice) -> Tensor:
        """Images of some items."""
        x = self.there.latent[rows].to(self.model.device)
        kept = self.there.stored.take(rows, x.device)
        replay = Replay(kept.corrections)
        correct: Replay | _Held = replay
        if self.cells is not None:
            pivots = {i: state[rows].to(x) for i, state in self.there.states.items()}
            correct = _Held(pivots, self.cells[rows, None].to(x.device), replay)
        for moved in walk(denoiser, x, self.grid.down(self.level), self.sampler, kept.memory or None, correct):
            x = moved.x
            self.report(len(x))
        return self.model.codec.decode(x)


@dataclass(frozen=True)
class _Held:
    """For `walk(correct=...)`: recorded corrections, then the pivot outside of the mask, where there is one."""

    pivots: Mapping[int, Tensor]
    free: Tensor
    corrected: Replay

    def __call__(self, moved: Moved) -> Tensor:
        """The state, free inside the mask."""
        x, pivot = self.corrected(moved), self.pivots.get(moved.step.dst.index)
        return x if pivot is None else torch.where(self.free, x, pivot)


def turning_level(strength: float, grid: Grid, start: Start | None = None) -> int:
    """Where the walk turns around: not below a start, but for level 0, which is the image itself.

    Raises:
        ArgumentError: A strength outside 0..1, or too little for the start.
    """
    if not 0 <= strength <= 1:
        raise ArgumentError(f"expected a strength in 0..1, the share of the moves that is walked, given {strength}")
    level = round(strength * grid.steps)
    if start is not None and 0 < level < start.index(grid):
        raise ArgumentError(
            f"strength {strength:g} walks to level {level} of {grid.steps}, and the start is at level {start.index(grid)}: "
            "give more strength or a smaller start"
        )
    return level


def walked_up(
    model: Model,
    images: Tensor,
    method: Stepper | Corrected,
    start: Start,
    grid: Grid,
    level: int,
    noise: ItemNoise,
    keep: Keep,
    **known: Any,
) -> Trajectory:
    """Up to `level`, as if the grid ended there; with states, the clean ones are among them."""
    check_images(model, images)
    rows = batches(len(images), known["batch_size"])
    clean = [model.codec.encode(images[each].to(model.device)) for each in rows] if level == 0 or keep.what == "states" else []
    states = {0: torch.cat(clean)} if clean else {}
    if level == 0:
        return Trajectory(states[0], 0, 0, 0, states=states)
    first = start.index(grid)
    if isinstance(start, ForwardNoise):
        start = ForwardNoise(steps=first, at_next_level=start.at_next_level)  # a fraction is one of the whole grid
    part = Grid(grid.levels[: level + 1])
    settings: dict[str, Any] = {"method": method, "start": start, "seed": noise.seed, "items": noise.items, **known}
    found = invert(model, images, grid=part, keep=keep, **settings)
    if isinstance(method, Corrected) and states:
        path = method.path(states[0], part, noise, found.states)
        passed = {i: path(i) for i in range(level + 1)}
        states |= {i: state for i, state in passed.items() if state is not None}
    return replace(found, states={**found.states, **states})


def _reused(there: Trajectory, level: int, grid: Grid, method: Stepper | Corrected) -> Trajectory:
    """A trajectory that was there before, cut off at `level`."""
    if there.index > grid.steps or (there.index < level):
        raise ArgumentError(
            f"expected a trajectory up to level {level} of {grid.steps}, given one up to {there.index}: give steps"
        )
    if isinstance(method, Corrected) and not there.stored.corrections:
        raise ArgumentError(
            f"expected a trajectory of {method}, given one without corrections: give the method it was made by"
        )
    if level == there.index:
        return there
    if there.stored.tensors():
        raise ArgumentError(f"what {method} stored belongs to the whole way: give the images for a smaller strength")
    if level not in there.states:
        raise ArgumentError(
            f"the trajectory kept no state at level {level}: invert with keep=Keep('states'), or give the images"
        )
    return replace(there, latent=there.states[level], index=level)


def pivots_of(states: Mapping[int, Tensor], grid: Grid, level: int) -> dict[int, Tensor]:
    """The states up to `level`; between the clean one and the lowest other, those on the line of its noise.

    x_i = alpha_i x0 + sigma_i n, n the noise that the lowest state implies: below a forward start, the one it drew.
    """
    known = {i: state for i, state in states.items() if i <= level}
    if not known:
        raise ArgumentError(
            "a mask sets states back to those of the way up, and none was kept: invert with keep=Keep('states')"
        )
    first = min((i for i in known if i > 0), default=0)
    if 0 not in known or first < 2:
        return known
    x0, top = known[0].to(known[first]), grid[first]
    noise = (known[first] - top.alpha * x0) / top.sigma
    return known | {i: grid[i].alpha * x0 + grid[i].sigma * noise for i in range(1, first)}


def _found(
    model: Model,
    there: Trajectory,
    mask: Tensor | str | Path | None,
    to: Conditions,
    source: Conditions,
    grid: Grid,
    noise: ItemNoise,
    batch_size: int | None,
) -> tuple[Tensor | None, int]:
    """The mask at the resolution of states, and what it cost."""
    if mask is None:
        return None, 0
    if not isinstance(mask, str) or mask != AUTO:
        return cells_of(model, read_mask(mask, model.image_size) if isinstance(mask, (str, Path)) else mask, len(there)), 0
    if 0 not in there.states:
        raise ArgumentError(
            "an automatic mask looks at the clean state, level 0, which the trajectory did not keep: give the images"
        )
    return difference_mask(
        model, there.states[0], to=to, source=source, grid=grid, seed=noise.seed, items=noise.items, batch_size=batch_size
    )
