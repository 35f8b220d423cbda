"""Methods that store what the sampler misses.

Where a path of states is known beforehand, a sampler is walked down beside it, and what its every move misses is kept, level
by level. Sampling again and adding these corrections follows the path to rounding error; sampling under another condition with
the same corrections edits the image. Methods of this kind differ in the path and in the sampler. How noise-like the latent is
has nothing to do with the corrections: it is that of the path, and a forward start composes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from ..core.ddim import DDIM, sampler_for
from ..core.grid import Grid, Step
from ..core.rng import ItemNoise
from ..core.stepper import Moved, Stepper, evaluations_on, is_reversible
from ..core.trajectory import What
from ..errors import ArgumentError
from .multistep import AdamsBashforth

__all__ = ["Corrected", "Direct", "ExactAndGaussian", "Path", "Recorder", "Replay"]

Path = Callable[[int], Tensor | None]
"""Level -> the state there; None where the sampler goes its own way."""


@runtime_checkable
class Corrected(Protocol):
    """A sampler, and the path that it is made to follow."""

    @property
    def sampler(self) -> Stepper:
        """How a move down is made."""

    @property
    def inversion(self) -> Stepper | None:
        """What walks the path up; None for a path of forward diffusion alone, which needs no start either."""

    @property
    def keeps(self) -> What:
        """What of the inversion it needs: `latent` (nothing more), `states`, or `eps` to replay on the way down."""

    def evaluations(self, moves: int) -> int:
        """Network evaluations per item until the corrections of so many moves are known; without a start."""

    def evaluations_on(self, steps: Sequence[Step]) -> int:
        """The same for an inversion up these very steps, at least one, and a walk all the way down."""

    def path(self, x0: Tensor, grid: Grid, noise: ItemNoise, states: Mapping[int, Tensor]) -> Path:
        """The states to return to; `states` are those of the inversion by level, its start's first."""


@dataclass
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


@dataclass(frozen=True)
class Replay:
    """For `walk(correct=...)`: adds recorded corrections."""

    corrections: Mapping[int, Tensor]

    def __call__(self, moved: Moved) -> Tensor:
        """The sampler's state, corrected where there is a correction."""
        kept = self.corrections.get(moved.step.dst.index)
        return moved.x if kept is None else moved.x + kept


@dataclass(frozen=True)
class Direct:
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
        """The path is its own."""
        return self.method

    @property
    def sampler(self) -> Stepper:
        """DDIM."""
        return DDIM()

    def evaluations(self, moves: int) -> int:
        """Up and down."""
        return self.method.evaluations(moves) + moves

    def evaluations_on(self, steps: Sequence[Step]) -> int:
        """Up these steps (at least one), and all the way down."""
        return evaluations_on(self.method, steps) + steps[-1].dst.index

    def path(self, x0: Tensor, grid: Grid, noise: ItemNoise, states: Mapping[int, Tensor]) -> Path:
        """Every state of the inversion, and the image."""
        return {**states, 0: x0}.get


@dataclass(frozen=True)
class ExactAndGaussian:
    """A white latent and an exact reconstruction: any inversion from a forward start, and the one map its sampler misses.

    The latent is that of `method`, unchanged. Sampled back by DDIM, or by `method` and its memory if it is reversible, it
    misses the image by a map, and that is kept: one state per image.

    With `keep_eps` the eps of the inversion are kept as well, and the way down asks the network only below the start: it
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
        if self.keep_eps and is_reversible(self.method):
            raise ArgumentError(f"{self.method} turns around by its own memory; leave keep_eps off")

    @property
    def keeps(self) -> What:
        """As asked for."""
        return "eps" if self.keep_eps else "latent"

    @property
    def inversion(self) -> Stepper:
        """What walks up."""
        return self.method

    @property
    def sampler(self) -> Stepper:
        """The method itself if it is reversible, DDIM otherwise."""
        return sampler_for(self.method)

    def evaluations(self, moves: int) -> int:
        """Up, and down where the network is asked."""
        up = self.method.evaluations(moves)
        return up + (0 if self.keep_eps else up if is_reversible(self.method) else moves)

    def evaluations_on(self, steps: Sequence[Step]) -> int:
        """Up these steps (at least one), and all the way down."""
        first, last = steps[0].src.index, steps[-1].dst.index
        down = first if self.keep_eps else self.method.evaluations(last) if is_reversible(self.method) else last
        return evaluations_on(self.method, steps) + down

    def path(self, x0: Tensor, grid: Grid, noise: ItemNoise, states: Mapping[int, Tensor]) -> Path:
        """The image alone."""
        return {0: x0}.get
