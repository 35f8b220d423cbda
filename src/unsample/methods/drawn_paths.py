"""Methods whose path is forward diffusion: no inversion, only states as training draws them, and what the sampler misses.

The image is diffused to every level, a stochastic sampler is walked down beside it, and what each move misses is stored
(`core/corrections.py`): spread * z, z the "noise maps" of the papers. The latent is alpha_N x0 + sigma_N noise, white by
construction; the image is in the maps. Methods differ in how the levels are drawn and in the sampler. There are no moves up,
so a start changes nothing.

A move without noise, as a rule the last, has no z, and published code leaves out what it misses. The correction is defined
there all the same and is kept: the image returns to rounding error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..core.corrections import Corrected, Path
from ..core.grid import Grid, Step
from ..core.rng import ItemNoise
from ..core.stepper import Stepper
from ..core.trajectory import What
from .stochastic import Ancestral, SDEDPMSolverPP, Stochastic


def noise_maps(corrections: Mapping[int, Tensor], sampler: Stochastic, grid: Grid) -> dict[int, Tensor]:
    """The z of every level that `sampler` arrives at with noise: correction / spread, what it would have had to draw.

    Args:
        corrections: `Trajectory.stored.corrections`: level -> what was added there, shape (batch, channels, height, width).
        sampler: The method's sampler.
        grid: The levels the corrections were recorded on.

    >>> import torch
    >>> from unsample import Schedule
    >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 10)
    >>> maps = noise_maps({0: torch.ones(1), 9: torch.ones(1)}, Ancestral(), grid)
    >>> {level: round(float(z), 2) for level, z in maps.items()}
    {9: 1.1}
    """
    spreads = {i: sampler.spread(Step(grid[i + 1], grid[i])) for i in corrections}
    return {i: correction / spreads[i] for i, correction in corrections.items() if spreads[i] > 0}


class DrawnPath(Corrected):
    """A method whose every level is forward diffusion: no moves up, so the network is evaluated on the way down alone."""

    inversion: ClassVar[Stepper | None] = None
    keeps: ClassVar[What] = "latent"

    def __post_init__(self) -> None:
        _ = self.sampler  # refuses options that it does not have

    def path(self, x0: Tensor, grid: Grid, noise: ItemNoise, states: Mapping[int, Tensor]) -> Path:
        """Level -> alpha x0 + sigma noise, drawn for that level alone; x0 itself at the clean end."""
        return lambda index: _diffused(x0, grid, index, _draw(x0, noise, index)) if index else x0


@dataclass(frozen=True)
class EditFriendly(DrawnPath):
    """Edit-friendly DDPM inversion: every level drawn on its own, DDPM's sampler (Huberman-Spiegelglas et al. 2024, alg. 1).

    Stores a map a move. z is not what DDPM draws: for a network that knows the image, its variance is 1 + 2 kept / spread^2,
    kept = sigma_dst^2 - spread^2, and neighbouring levels are negatively correlated (tested).

    With eta other than 1 the authors' code keeps sigma_dst^2 - eta spread_1^2 of the variance, spread_1 that of eta = 1; here
    it is sigma_dst^2 - eta^2 spread_1^2, as in DDIM's eq. 12.

    Attributes:
        eta: The sampler's, 0 to 1.

    >>> EditFriendly().evaluations(50), EditFriendly().inversion
    (50, None)
    """

    eta: float = 1.0

    @property
    def sampler(self) -> Ancestral:
        """DDIM with this eta; DDPM for 1."""
        return Ancestral(self.eta)


@dataclass(frozen=True)
class LEditsPP(DrawnPath):
    """The inversion of LEDITS++: every level drawn on its own, SDE-DPM-Solver++ as the sampler (Brack et al. 2024).

    Stores a map a move.

    Attributes:
        order: The sampler's, 1 or 2; the paper's is 2. With order 1 it is `EditFriendly(eta=1)`.

    >>> LEditsPP().sampler
    SDEDPMSolverPP(order=2)
    """

    order: Literal[1, 2] = 2

    @property
    def sampler(self) -> SDEDPMSolverPP:
        """SDE-DPM-Solver++ of this order."""
        return SDEDPMSolverPP(self.order)


@dataclass(frozen=True)
class CycleDiffusion(DrawnPath):
    """CycleDiffusion's "DPM-Encoder": x_N ~ q(x_N | x0), then each level from q(x_dst | x_src, x0) (Wu and De la Torre 2023).

    Stores a map a move. A map is the noise that the path was drawn with, plus what the network misses of the image: where it
    knows the image, the maps are that noise.

    Attributes:
        eta: Of the path and of the sampler, 0 to 1.

    >>> CycleDiffusion(eta=0.1).sampler
    Ancestral(eta=0.1)
    """

    eta: float = 1.0

    @property
    def sampler(self) -> Ancestral:
        """DDIM with this eta; DDPM for 1."""
        return Ancestral(self.eta)

    def path(self, x0: Tensor, grid: Grid, noise: ItemNoise, states: Mapping[int, Tensor]) -> Path:
        """One chain of draws from the noisy end, and the image."""
        return _Chain(x0, grid, noise, self.sampler)


@dataclass(eq=False)
class _Chain:
    """Level -> alpha x0 + sigma noise, the noise of a level drawn given that of the one above.

    q(x_dst | x_src, x0) has mean alpha_dst x0 + sqrt(sigma_dst^2 - spread^2) n_src, x_src = alpha_src x0 + sigma_src n_src
    (Song et al. 2021, eq. 7), so n is a chain that does not know x0. One level of it is held; a level above that one is
    found by starting over.
    """

    x0: Tensor
    grid: Grid
    noise: ItemNoise
    sampler: Stochastic
    _held: tuple[int, Tensor] | None = None

    def __call__(self, index: int) -> Tensor:
        if index == 0:
            return self.x0
        if self._held is None or self._held[0] < index:
            self._held = (self.grid.steps, _draw(self.x0, self.noise, self.grid.steps))
        at, n = self._held
        for step in self.grid.down(at, index):
            new = self.sampler.spread(step) / step.dst.sigma if step.dst.sigma > 0 else 0.0
            if new > 0:
                n = math.sqrt(1 - new**2) * n + new * _draw(self.x0, self.noise, step.dst.index)
        self._held = (index, n)
        return _diffused(self.x0, self.grid, index, n)


def _diffused(x0: Tensor, grid: Grid, index: int, noise: Tensor) -> Tensor:
    return grid[index].alpha * x0 + grid[index].sigma * noise


def _draw(x0: Tensor, noise: ItemNoise, index: int) -> Tensor:
    return noise.draw(x0.shape, stream=f"path {index}", dtype=x0.dtype, device=x0.device)
