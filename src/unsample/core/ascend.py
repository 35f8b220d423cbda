"""From clean states to noise and back, by any method: `ascend` and `descend`, of a bare function (x, level) -> eps.

No model is needed: whoever has images, prompts and guidance binds them to the function beforehand, as `unsample.invert` and
`unsample.sample` do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .._tensors import as_state, undisturbed
from ..errors import ArgumentError
from .corrections import Corrected, FreshNoise, Recorder, Replay
from .ddim import DDIM
from .denoiser import Counted, Denoiser, Replayed
from .grid import Grid
from .rng import ItemNoise
from .schedule import Level
from .starts import FromImage, Start
from .stepper import Stepper
from .trajectory import Keep, Keeper, Stored, Trajectory
from .walk import walk

OnMove = Callable[[int], object]
"""Called after each move with the number of items moved."""


def ends(method: Stepper | Corrected, start: Start, grid: Grid, until: int | None = None) -> tuple[Level, int]:
    """The level that an inversion begins at, which may lie between two of the grid's, and the one that it ends at.

    Raises:
        ArgumentError: `until` is no level from the start's on, or not the noisy end though the method is recorded from there.
    """
    first, last = start.level(grid), grid.steps if until is None else until
    if not first.index <= last <= grid.steps or grid[last].ratio < first.ratio:
        raise ArgumentError(f"until={until} must lie between the start's {_name(first, grid)} and the grid's end {grid.steps}")
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
    >>> found = ascend(lambda x, level: torch.tanh(x), torch.ones(2, 4), grid)
    >>> tuple(found.latent.shape), found.index, found.nfe
    ((2, 4), 10, 10)
    """
    _, last = ends(method, start, grid, until)
    x0, noise = as_state(x0), noise or ItemNoise(0, range(len(x0)))
    counted, keeper = Counted(denoiser), Keeper(keep, last)
    climb = _Ascent(counted, x0, grid, start, noise, images, on_move or (lambda _items: None))
    found = climb.recorded(method, keeper) if isinstance(method, Corrected) else climb.walked(method, last, keeper)
    kept: dict[str, Any] = {name: getattr(keeper, name) for name in ("states", "eps", "residuals")}
    return replace(found, nfe=counted.nfe, grid=grid, sampler=method.sampler, **kept)


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
        ArgumentError: What was stored is of a grid of another number of moves.

    >>> import torch
    >>> from unsample import Schedule
    >>> grid, x0 = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 10), torch.ones(2, 4)
    >>> found = ascend(lambda x, level: 0 * x, x0, grid)
    >>> torch.allclose(descend(lambda x, level: 0 * x, found.latent, grid).latent, x0)
    True
    """
    stored.check(grid)
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


@dataclass(frozen=True, eq=False)
class _Ascent:
    """Items that start at the same level and are walked together."""

    denoiser: Denoiser
    x0: Tensor
    grid: Grid
    start: Start
    noise: ItemNoise
    images: Tensor | None
    on_move: OnMove

    def walked(self, method: Stepper, last: int, *keepers: Keeper) -> Trajectory:
        """From the start's level up to level `last`."""
        x0, first = self.x0, self.start.level(self.grid)
        denoiser = method.steer(self.denoiser, lambda: self.noise.draw(x0.shape, dtype=x0.dtype, device=x0.device))

        def climb(k: int) -> Tensor:
            x = x0
            for moved in walk(denoiser, x, self.grid.up(0, k), method):
                x = moved.x
            return x

        x = self.start.place(x0, self.grid, self.noise, images=self.images, climb=climb)
        state = method.init(x)
        for keeper in keepers if first in self.grid.levels else ():  # in between there is no level to keep it as
            keeper.begin(first.index, x)
        for moved in walk(denoiser, x, self.grid.up(first, last), method, state):
            x, state = moved.x, moved.state
            for keeper in keepers:
                keeper.take(moved)
            self.on_move(len(x))
        stored = Stored(method.kept(state), steps=self.grid.steps)
        return Trajectory(x, first.index, last, 0, stored=stored, start_levels=(first,) * len(x))

    def recorded(self, method: Corrected, keeper: Keeper) -> Trajectory:
        """Up the path of `method`, and down beside it."""
        top = self.grid.steps
        kept = Keeper(Keep(method.keeps, device=str(self.x0.device)), top)
        found = self.walked(method.inversion, top, keeper, kept) if method.inversion else None
        path = method.path(self.x0, self.grid, self.noise, kept.states)
        latent, memory = (found.latent, found.stored.memory) if found else (path(top), ())
        assert latent is not None  # a path of forward diffusion has a state at every level
        eps = kept.eps if method.keeps == "eps" else {}
        asked, recorder = Replayed(eps, otherwise=self.denoiser) if eps else self.denoiser, Recorder(path)
        for moved in walk(asked, latent, self.grid.down(), method.sampler, memory or None, recorder):
            self.on_move(len(moved.x))
        stored = Stored(memory, recorder.corrections, eps, self.grid.steps)
        levels = found.start_levels if found else (self.grid[top],) * len(latent)
        return Trajectory(latent, found.start if found else top, top, 0, stored=stored, start_levels=levels)


def _name(level: Level, grid: Grid) -> str:
    return f"level {level.index}" if level in grid.levels else f"timestep {level.t:g}, above level {level.index},"
