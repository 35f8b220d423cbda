"""Up to the level where an edit turns around, and down from there, with the states outside of a mask set back (pivots)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._tensors import Images
from ..core.batching import batches, negative_of
from ..core.corrections import Corrected, Replay
from ..core.denoiser import Counted
from ..core.grid import Grid
from ..core.model import Condition, Model
from ..core.rng import ItemNoise
from ..core.schedule import Level
from ..core.starts import ForwardNoise, Start
from ..core.stepper import Moved, Stepper
from ..core.trajectory import Keep, Trajectory
from ..core.walk import walk
from ..errors import ArgumentError, DivergenceError
from .invert import check_images, encoded, invert_encoded
from .masks import Cells
from .sources import Conditions

REPLAYED = "what replays the source's eps on the way down cannot be edited: use exact with keep_eps=False"


def turning_level(strength: float, grid: Grid, start: Start | None = None) -> int:
    """The level where the walk turns around: 0, which is the image itself, or not below the start.

    Raises:
        ArgumentError: A strength outside 0..1, or too little for the start.
    """
    if not 0 <= strength <= 1:
        raise ArgumentError(f"expected a strength in 0..1, the share of the moves that is walked, given {strength}")
    level = round(strength * grid.steps)
    if start is not None and level > 0 and grid[level].ratio < (first := start.level(grid)).ratio:
        raise ArgumentError(
            f"strength {strength:g} walks to level {level} of {grid.steps}, timestep {grid[level].t:g}, and the start is at "
            f"timestep {first.t:g}: give more strength or a smaller start"
        )
    return level


def cut(grid: Grid, start: Start, top: Level) -> tuple[Grid, Start]:
    """The grid as if it ended at `top`, one of its levels or one between two of them, and the same start on it."""
    if isinstance(start, ForwardNoise) and grid.schedule is None:  # where a share is one of the moves of the whole grid
        start = ForwardNoise(steps=start.level(grid).index, at_next_level=start.at_next_level)
    end = top.index + (grid[top.index].ratio < top.ratio)
    return replace(grid, levels=(*grid.levels[:end], replace(top, index=end))), start


def check_editable(method: Stepper | Corrected, *, masked: bool = False) -> None:
    """Refuse a method whose way down cannot be under another condition, or within a mask.

    Raises:
        ArgumentError: Such a method.
    """
    if masked and method.sampler.reversible:
        raise ArgumentError(f"a mask sets states back, and {method} carries more than its state: choose another method")
    if isinstance(method, Corrected) and method.keeps == "eps":
        raise ArgumentError(REPLAYED)


def walked_up(
    model: Model,
    images: Images,
    clean: list[Tensor] | None,
    method: Stepper | Corrected,
    start: Start,
    grid: Grid,
    level: int,
    noise: ItemNoise,
    *,
    keep: Keep = Keep(),
    condition: Conditions = None,
    batch_size: int | None = None,
) -> Trajectory:
    """The inversion of images up to `level`, as if the grid ended there; kept states include the clean ones.

    `clean` are the encoded images, one tensor per batch, where they are known.
    """
    check_images(model, images)
    if clean is None and (level == 0 or keep.what == "states"):
        clean = encoded(model, images, batch_size)
    states = {0: torch.cat(clean)} if clean and (level == 0 or keep.what == "states") else {}
    if level == 0:
        return Trajectory(states[0], 0, 0, 0, states=states)
    part, start = cut(grid, start, grid[level])
    how: dict[str, Any] = {"seed": noise.seed, "items": noise.items, "keep": keep, "batch_size": batch_size}
    up = invert_encoded(model, images, clean, method=method, start=start, grid=part, condition=condition, **how)
    if isinstance(method, Corrected) and states:
        path = method.path(states[0], part, noise, up.states)
        passed = {i: path(i) for i in range(level + 1)}
        states |= {i: state for i, state in passed.items() if state is not None}
    return replace(up, states={**up.states, **states}, grid=grid, stored=replace(up.stored, steps=grid.steps))


def pivots_of(states: Mapping[int, Tensor], grid: Grid, level: int) -> dict[int, Tensor]:
    """The states up to `level`; between level 0 and the lowest other one, those of forward diffusion to that one.

    x_i = alpha_i x0 + sigma_i n, where n is the noise that the lowest state implies: with a forward start from one of the
    grid's levels, the one it drew.

    Raises:
        ArgumentError: No states.
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


def walked_down(
    model: Model,
    there: Trajectory,
    grid: Grid,
    sampler: Stepper,
    conditions: Sequence[Condition] | None,
    *,
    guidance: float = 1.0,
    negative: Conditions | Mapping[int, Tensor] = None,
    cells: Cells | None = None,
    batch_size: int | None = None,
    report: Callable[[int], None] = lambda moves: None,
) -> tuple[Tensor, int]:
    """Images sampled from where `there` ends, and the evaluations per item; outside of `cells` its states are kept.

    Raises:
        DivergenceError: An image that is not finite.
    """
    parts, nfe = [], 0
    for rows in batches(len(there), batch_size):
        away = negative_of(negative, len(there), rows)
        denoiser = Counted(model.denoiser(conditions and conditions[rows], guidance, away))
        x = there.latent[rows].to(model.device)
        kept = there.stored.take(rows, x.device)
        replay = Replay(kept.corrections)
        correct: Replay | _Held = replay
        if cells is not None:
            pivots = {i: state[rows].to(x) for i, state in there.states.items()}
            correct = _Held(pivots, cells[rows, None].to(x.device), replay)
        for moved in walk(denoiser, x, grid.down(there.index), sampler, kept.memory or None, correct):
            x = moved.x
            report(len(x))
        parts.append(model.codec.decode(x))
        nfe = denoiser.nfe
    if not bool(torch.isfinite(images := torch.cat(parts)).all()):
        raise DivergenceError(f"an edit left the finite numbers; try a guidance below {guidance:g}, more steps, or float32")
    return images, nfe


@dataclass(frozen=True, eq=False)
class _Held:
    """For `walk(correct=...)`: recorded corrections, then outside of the mask the pivot of that level, if there is one."""

    pivots: Mapping[int, Tensor]
    free: Tensor
    corrected: Replay

    def __call__(self, moved: Moved) -> Tensor:
        """The state after a move."""
        x, pivot = self.corrected(moved), self.pivots.get(moved.step.dst.index)
        return x if pivot is None else torch.where(self.free, x, pivot)
