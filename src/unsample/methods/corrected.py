"""Inversions whose sampler is corrected: what it misses on the way back is stored (`core/corrections.py`).

How noise-like the latent is has nothing to do with the corrections: it is that of the path, and a forward start composes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.corrections import Corrected, Path
from ..core.ddim import DDIM
from ..core.grid import Grid
from ..core.rng import ItemNoise
from ..core.stepper import Stepper
from ..core.trajectory import What
from ..errors import ArgumentError
from .multistep import AdamsBashforth


@dataclass(frozen=True)
class Direct(Corrected):
    """Direct inversion: DDIM sampling, corrected at every level to the inversion's state (Ju et al. 2024, "PnP Inversion").

    Stores a map a move. Below a forward start the path has no states and only the image itself is returned to.

    Attributes:
        method: What walks up.

    >>> Direct().evaluations(50)
    100
    """

    method: Stepper = DDIM()
    keeps: ClassVar[What] = "states"

    @property
    def inversion(self) -> Stepper:
        """The method, whose states are the path."""
        return self.method

    @property
    def sampler(self) -> Stepper:
        """DDIM, whatever walked up."""
        return DDIM()

    def path(self, x0: Tensor, grid: Grid, noise: ItemNoise, states: Mapping[int, Tensor]) -> Path:
        """Every state of the inversion, and the image."""
        return {**states, 0: x0}.get


@dataclass(frozen=True)
class ExactAndGaussian(Corrected):
    """A white latent and an exact reconstruction: any inversion from a forward start, and the one map its sampler misses.

    The latent is that of `method`, unchanged. Sampled back by DDIM, or by `method` and its memory if it is reversible, it
    misses the image by a map, and that is kept: one state per image.

    With `keep_eps` the eps of the inversion are kept as well, and the way down evaluates the network only below the start: it
    retraces the inversion, and the map holds nothing but what the skipped moves miss.

    Attributes:
        method: What walks up.
        keep_eps: Keep N - k more maps, and save N - k evaluations both when recording and when sampling back.

    >>> ExactAndGaussian().evaluations(50), ExactAndGaussian(keep_eps=True).evaluations(50)
    (100, 50)
    """

    method: Stepper = AdamsBashforth()
    keep_eps: bool = False

    def __post_init__(self) -> None:
        if self.keep_eps and self.method.reversible:
            raise ArgumentError(f"{self.method} turns around by its own memory; leave keep_eps off")

    @property
    def keeps(self) -> What:
        """The eps of every move up with `keep_eps`, nothing more without."""
        return "eps" if self.keep_eps else "latent"

    @property
    def inversion(self) -> Stepper:
        """The method, unchanged."""
        return self.method

    @property
    def sampler(self) -> Stepper:
        """The method itself if it is reversible, DDIM otherwise."""
        return self.method.sampler

    def path(self, x0: Tensor, grid: Grid, noise: ItemNoise, states: Mapping[int, Tensor]) -> Path:
        """The image alone; above it the sampler goes its own way."""
        return {0: x0}.get
