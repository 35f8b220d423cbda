"""What one walk records and another replays, predictions and corrections of states, and the fresh noise of samplers.

Where a path of states is known beforehand, a sampler is walked down beside it, and what its every move misses is kept, level
by level. Sampling again and adding these corrections follows the path to rounding error; sampling under another condition with
the same corrections edits the image. Methods of this kind are `Corrected`: they differ in the path and in the sampler.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .._tensors import brief
from .denoiser import Denoiser, Wrapper, cost_of
from .grid import Grid, Step
from .rng import ItemNoise
from .schedule import Level
from .specs import Checked
from .stepper import Moved, Stepper
from .stored import Stored
from .trajectory import Trajectory, What
from .walk import OnMove, walk

Path = Callable[[int], Tensor | None]
"""Level -> the state there; None where the sampler goes its own way."""


class Corrected(Checked, ABC):
    """A method of inversion that is a sampler and the path that it is made to follow."""

    @property
    @abstractmethod
    def sampler(self) -> Stepper:
        """How a move down is made."""

    @property
    @abstractmethod
    def inversion(self) -> Stepper | None:
        """What walks the path up; None for a path of forward diffusion alone, which needs no start either."""

    @property
    @abstractmethod
    def keeps(self) -> What:
        """What of the inversion it needs: `latent` (nothing more), `states`, or `eps` to replay on the way down."""

    @abstractmethod
    def path(self, x0: Tensor, grid: Grid, noise: ItemNoise, states: Mapping[int, Tensor]) -> Path:
        """The states to return to; `states` are those of the inversion by level, its start's first."""

    def moves(self, grid: Grid, first: int, last: int) -> int:
        """Moves of an inversion: from level `first` up to level `last`, if anything walks up, and all the way down."""
        return (last - first if self.inversion else 0) + grid.steps

    def evaluations(self, moves: int) -> int:
        """Network evaluations per item until the corrections of so many moves are known; without a start."""
        return (self.inversion.evaluations(moves) if self.inversion else 0) + self._down(0, moves)

    def evaluations_on(self, steps: Sequence[Step]) -> int:
        """The same for an inversion up these very steps, at least one, and a walk all the way down."""
        up = self.inversion.evaluations_on(steps) if self.inversion else 0
        return up + self._down(steps[0].src.index, steps[-1].dst.index)

    def _down(self, first: int, last: int) -> int:
        """Evaluations of the way down from level `last`; where eps is replayed, of its moves below level `first` alone."""
        return self.sampler.evaluations(first if self.keeps == "eps" else last)


@brief
@dataclass(eq=False)
class Recorded(Wrapper):
    """Keeps every prediction in `eps`, by the index of its level; the last one of each level."""

    denoiser: Denoiser
    eps: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """The eps of `denoiser`, kept."""
        self.eps[level.index] = self.denoiser(x, level)
        return self.eps[level.index]


@brief
@dataclass(frozen=True, eq=False)
class Replayed:
    """Gives back recorded eps at the levels that have one, and calls `otherwise` at the others.

    Recording a sampling and replaying its last k predictions while inverting is the paper's swap experiment (E9). It presumes
    a method that evaluates at the target level, as `DDIM()` does.
    """

    eps: Mapping[int, Tensor]
    otherwise: Denoiser

    @property
    def cost(self) -> int:
        """That of a level without recorded eps."""
        return cost_of(self.otherwise)

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Recorded eps, or a fresh one."""
        kept = self.eps.get(level.index)
        return self.otherwise(x, level) if kept is None else kept


@brief
@dataclass(eq=False)
class Recorder:
    """For `walk(correct=...)`: keeps the sampler on a path, and what it missed in `corrections`."""

    path: Path
    corrections: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, moved: Moved) -> Tensor:
        """The state of the path; reached as `Replay` will reach it, so that both are equal bit by bit."""
        index = moved.step.dst.index
        aim = self.path(index)
        if aim is None:
            return moved.x
        self.corrections[index] = aim - moved.x
        return moved.x + self.corrections[index]


def record(
    method: Corrected, denoiser: Denoiser, x0: Tensor, grid: Grid, noise: ItemNoise, up: Trajectory | None, on_move: OnMove
) -> Trajectory:
    """The latents of clean states `x0` with the corrections of a walk down beside the path of `method`.

    `up` is the walk of its `inversion`, if it has one, with the states or the eps that the method `keeps`.
    """
    top = grid.steps
    path = method.path(x0, grid, noise, up.states if up else {})
    latent, memory = (up.latent, up.stored.memory) if up else (path(top), ())
    assert latent is not None  # a path of forward diffusion has a state at every level
    eps = up.eps if up and method.keeps == "eps" else {}
    asked, recorder = Replayed(eps, otherwise=denoiser) if eps else denoiser, Recorder(path)
    for moved in walk(asked, latent, grid.down(), method.sampler, memory or None, recorder):
        on_move(len(moved.x))
    stored = Stored(memory, recorder.corrections, eps, top)
    levels = up.start_levels if up else (grid[top],) * len(latent)
    return Trajectory(latent, up.start if up else top, top, 0, stored=stored, start_levels=levels)


@brief
@dataclass(frozen=True, eq=False)
class Replay:
    """For `walk(correct=...)`: adds recorded corrections."""

    corrections: Mapping[int, Tensor]

    def __call__(self, moved: Moved) -> Tensor:
        """The sampler's state, corrected where there is a correction."""
        kept = self.corrections.get(moved.step.dst.index)
        return moved.x if kept is None else moved.x + kept


@dataclass(frozen=True)
class FreshNoise:
    """For `walk(correct=...)`: adds the noise that belongs to the moves of a sampler, per item and level.

    >>> import torch
    >>> from unsample import Grid, Schedule, walk
    >>> from unsample.methods.stochastic import Ancestral
    >>> grid, fresh = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 10), FreshNoise(Ancestral(), ItemNoise(0, [0]))
    >>> moves = walk(lambda x, level: 0 * x, torch.zeros(1, 1000), grid.down(10, 9), Ancestral(), correct=fresh)
    >>> round(Ancestral().spread(next(grid.down())), 2), round(float(next(moves).x.std()), 1)
    (0.91, 0.9)
    """

    sampler: Stepper
    noise: ItemNoise

    def __call__(self, moved: Moved) -> Tensor:
        """The state arrived at: mean + spread * noise."""
        spread = self.sampler.spread(moved.step)
        if spread == 0:
            return moved.x
        x, stream = moved.x, f"step {moved.step.dst.index}"
        return x + spread * self.noise.draw(x.shape, stream=stream, dtype=x.dtype, device=x.device)
