"""From clean states to noise and back, by any method: `ascend` and `descend`, of a bare function (x, level) -> eps.

No model is needed: images, prompts and guidance are bound to the function beforehand, as `unsample.invert` does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from .._tensors import as_state, undisturbed
from ..errors import ArgumentError
from .corrections import Corrected, FreshNoise, Replay, Replayed, record
from .ddim import DDIM
from .denoiser import Counted, Denoiser
from .grid import Grid
from .rng import ItemNoise
from .schedule import Level
from .starts import FromImage, Start
from .stepper import Stepper
from .stored import Stored
from .trajectory import Keep, Keeper, Trajectory
from .walk import OnMove, walk


def ends(method: Stepper | Corrected, start: Start, grid: Grid, until: int | None = None) -> tuple[Level, int]:
    """The level that an inversion begins at, which may lie between two of the grid's, and the one that it ends at.

    Raises:
        ArgumentError: `until` is no level from the start's on, or not the noisy end though the method is recorded from there.
    """
    first, last = start.level(grid), grid.steps if until is None else until
    if not first.index <= last <= grid.steps or grid[last].ratio < first.ratio:
        name = f"level {first.index}" if first in grid.levels else f"timestep {first.t:g}, above level {first.index},"
        raise ArgumentError(f"until={until} must lie between the start's {name} and the grid's end {grid.steps}")
    if isinstance(method, Corrected) and last < grid.steps:
        raise ArgumentError(f"{method} is recorded on the way down from the noisy end; leave out until={until}")
    return first, last


@undisturbed()
def ascend(
    denoiser: Denoiser,
    x0: Tensor,
    grid: Grid,
    method: Stepper | Corrected = DDIM(),
    start: Start = FromImage(),
    noise: ItemNoise | None = None,
    *,
    images: Tensor | None = None,
    until: int | None = None,
    keep: Keep = Keep(),
    on_move: OnMove | None = None,
) -> Trajectory:
    """The latents of clean states: the start's state, walked up the grid (docs/theory.md, eq. 4 and 6).

    Args:
        denoiser: The function (x, level) -> eps to invert.
        x0: Clean states, one row per item.
        grid: The levels to visit.
        method: How a move is made.
        start: Where the walk starts.
        noise: Of the start, and of methods that draw a path or aim at a draw; by default of seed 0 and items 0, 1, 2, ...
        images: The pixels behind `x0`, for a start that looks at them.
        until: Stop at this level instead of the noisy end.
        keep: What to keep besides the latents.
        on_move: Called after each move, for progress bars.

    Raises:
        ArgumentError: Settings that do not fit together.

    >>> import torch
    >>> from unsample import Schedule
    >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 10)
    >>> trajectory = ascend(lambda x, level: torch.tanh(x), torch.ones(2, 4), grid)
    >>> tuple(trajectory.latent.shape), trajectory.index, trajectory.nfe
    ((2, 4), 10, 10)
    """
    first, last = ends(method, start, grid, until)
    x0, draws, counted, keeper = as_state(x0), noise or ItemNoise(0, range(len(x0))), Counted(denoiser), Keeper(keep, last)
    report: OnMove = on_move or (lambda _items: None)

    def up(method: Stepper, *keepers: Keeper) -> Trajectory:
        """The walk itself."""
        steered = method.steer(counted, lambda: draws.draw(x0.shape, dtype=x0.dtype, device=x0.device))

        def climb(k: int) -> Tensor:
            x = x0
            for moved in walk(steered, x, grid.up(0, k), method):
                x = moved.x
            return x

        x = start.place(x0, grid, draws, images=images, climb=climb)
        state = method.init(x)
        for keeper in keepers if first in grid.levels else ():  # in between there is no level to keep it as
            keeper.begin(first.index, x)
        for moved in walk(steered, x, grid.up(first, last), method, state):
            x, state = moved.x, moved.state
            for keeper in keepers:
                keeper.take(moved)
            report(len(x))
        stored = Stored(method.kept(state), steps=grid.steps)
        return Trajectory(x, first.index, last, 0, stored=stored, start_levels=(first,) * len(x))

    if isinstance(method, Corrected):
        needed = Keeper(Keep(method.keeps, device=str(x0.device)), last)
        inverted = (
            replace(up(method.inversion, keeper, needed), states=needed.states, eps=needed.eps) if method.inversion else None
        )
        walked = record(method, counted, x0, grid, draws, inverted, report)
    else:
        walked = up(method, keeper)
    kept: dict[str, Any] = {name: getattr(keeper, name) for name in ("states", "eps", "residuals")}
    return replace(walked, nfe=counted.nfe, grid=grid, sampler=method.sampler, **kept)


@undisturbed()
def descend(
    denoiser: Denoiser,
    latent: Tensor,
    grid: Grid,
    method: Stepper = DDIM(),
    stored: Stored = Stored(),
    noise: ItemNoise | None = None,
    *,
    index: int | None = None,
    keep: Keep = Keep(),
    on_move: OnMove | None = None,
) -> Trajectory:
    """Clean states sampled from latents by walking down the grid (docs/theory.md, eq. 3), as the `latent` of a trajectory.

    Args:
        denoiser: The function (x, level) -> eps to sample.
        latent: States at level `index`, one row per item.
        grid: The levels to visit.
        method: How a move is made: DDIM, or the `sampler` of the method that found the latents.
        stored: `Trajectory.stored`, with which some methods turn around exactly; of the same items and as many levels, on the
            latent's device.
        noise: For a stochastic method; by default of seed 0 and items 0, 1, 2, ... With corrections stored, none is drawn.
        index: The level `latent` is at; default is the noisy end.
        keep: What to keep besides the clean states.
        on_move: Called after each move, for progress bars.

    Raises:
        ArgumentError: What was stored is of a grid of another number of moves, or of other items.

    >>> import torch
    >>> from unsample import Schedule
    >>> grid, x0 = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 10), torch.ones(2, 4)
    >>> trajectory = ascend(lambda x, level: 0 * x, x0, grid)
    >>> torch.allclose(descend(lambda x, level: 0 * x, trajectory.latent, grid).latent, x0)
    True
    """
    stored.check(grid, latent)
    top = grid.steps if index is None else index
    counted, keeper = Counted(denoiser), Keeper(keep, 0)
    asked = Replayed(stored.eps, otherwise=counted) if stored.eps else counted
    correct: Replay | FreshNoise = Replay(stored.corrections)
    if not stored.corrections:
        correct = FreshNoise(method, noise or ItemNoise(0, range(len(latent))))
    x = as_state(latent)
    keeper.begin(top, x)
    for moved in walk(asked, x, grid.down(top), method, stored.memory or None, correct):
        x = moved.x
        keeper.take(moved)
        if on_move is not None:
            on_move(len(x))
    return Trajectory(x, top, 0, counted.nfe, states=keeper.states, eps=keeper.eps, residuals=keeper.residuals)
