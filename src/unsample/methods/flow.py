"""Methods of flow models, in variables in which they are methods of every model.

With u = x / (alpha + sigma) and tau = sigma / (alpha + sigma) the path is du = w dtau, w = eps - x0. On a flow model u = x,
tau = t and w is the velocity, so that these are the published methods there. A move along a mean direction w is `transfer`
along eps = (x + alpha w) / (alpha + sigma). Euler's method in these variables is `DDIM(eval_at="source")`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .._tensors import brief
from ..core.ddim import DDIM
from ..core.denoiser import Denoiser, Wrapper
from ..core.grid import Step
from ..core.prediction import to_eps, to_velocity
from ..core.schedule import Level
from ..core.stepper import Moved, Stepper
from ..core.transfer import transfer
from ..errors import ArgumentError
from .explicit import between

Direction = tuple[float, Tensor]
"""tau, and w there."""


@dataclass(frozen=True)
class RFSolver(Stepper):
    """The explicit midpoint method in tau: w half a move ahead (RF-Solver, Wang et al. 2025, second-order Taylor expansion).

    Two evaluations a move. The middle of two levels of a flow model is a level as good as any. A table has one at whole
    timesteps only, as in `Midpoint`; it is not halfway in tau, and w is then taken halfway on the line through both answers.
    Neighbours without a timestep between them have their mean as middle, with the noisier one's timestep.

    >>> RFSolver().order, RFSolver().evaluations(10)
    (2, 20)
    """

    order: ClassVar[int] = 2

    def evaluations(self, moves: int) -> int:
        """One at the source and one in the middle of every move."""
        return 2 * moves

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """One evaluation at the source, one in the middle."""
        first = step.src.tau, direction_at(denoiser, x, step.src)
        return moved_along(x, _halfway(step, first, _ahead(denoiser, x, step, first[1])), step)


@dataclass(frozen=True)
class FireFlow(Stepper):
    """RF-Solver that looks ahead along the last move's middle direction, not along that at the source (Deng et al. 2025).

    One evaluation a move, and one more for the first. Middles are those of `RFSolver`.

    >>> FireFlow().order, FireFlow().evaluations(10)
    (2, 11)
    """

    order: ClassVar[int] = 2

    def evaluations(self, moves: int) -> int:
        """One in the middle of every move, and one at the source of the first."""
        return moves + (moves > 0)

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: tuple[()] | Direction = ()) -> Moved:
        """One evaluation in the middle; the memory is its answer."""
        last = state or (step.src.tau, direction_at(denoiser, x, step.src))
        middle = _ahead(denoiser, x, step, last[1])
        return moved_along(x, _halfway(step, last, middle), step, middle)


@brief
@dataclass(frozen=True, eq=False)
class Controlled(Wrapper):
    """A denoiser pulled towards the noise an inversion shall end at (RF-Inversion, Rout et al. 2025, the controlled ODE).

    Up, the velocity v becomes v + gamma (v_1 - v), v_1 = (noise - x) / (1 - t) the one that ends at `noise`. At any level of
    any schedule that is eps + gamma (noise - eps). RF-Inversion is `DDIM(eval_at="source")` with this denoiser.

    Attributes:
        denoiser: What is pulled.
        noise: One draw per item, the same at all levels; shape of the states.
        gamma: 0 is the denoiser itself, 1 goes to the noise straight; the paper's is 0.5.

    >>> import torch
    >>> pulled = Controlled(lambda x, level: 3 * x, torch.tensor(1.0))
    >>> float(pulled(torch.tensor(1.0), Level(index=1, t=250.0, alpha=0.75, sigma=0.25)))
    2.0
    """

    denoiser: Denoiser
    noise: Tensor
    gamma: float = 0.5

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """One evaluation, pulled."""
        eps = self.denoiser(x, level)
        return eps + self.gamma * (self.noise - eps)


@dataclass(frozen=True)
class RFInversion(Stepper):
    """Euler's way up, pulled towards a draw of noise (RF-Inversion, Rout et al. 2025, the controlled ODE); see `Controlled`.

    With `gamma` 1 it is forward diffusion to that noise, with 0 `DDIM(eval_at="source")`; the pull makes latents whiter and
    reconstructions worse. The noise is that of a forward start. Its authors' way back, which pulls towards the image, is
    not here: down it is DDIM. One evaluation a move.

    Attributes:
        gamma: The pull, from 0 to 1; the paper's is 0.5.

    >>> RFInversion().evaluations(10)
    10
    """

    gamma: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ArgumentError(f"expected a pull gamma from 0 to 1, given {self.gamma}")

    def steer(self, denoiser: Denoiser, noise: Callable[[], Tensor]) -> Denoiser:
        """The denoiser pulled towards the draw."""
        return Controlled(denoiser, noise(), self.gamma)

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """DDIM's move, evaluated at the source; `denoiser` is pulled already."""
        return DDIM(eval_at="source").step(denoiser, x, step)


def direction_at(denoiser: Denoiser, x: Tensor, level: Level) -> Tensor:
    """The direction w of `x` at `level`; one evaluation."""
    return to_velocity(denoiser(x, level), x, level)


def moved_along(x: Tensor, direction: Tensor, step: Step, state: Any = None) -> Moved:
    """`x` moved along a mean direction."""
    eps = to_eps(direction, x, step.src, "flow")
    return Moved(step, transfer(x, eps, step), eps, state)


def _ahead(denoiser: Denoiser, x: Tensor, step: Step, direction: Tensor) -> Direction:
    """The direction in the middle of the move, at the state that `direction` leads to there."""
    middle = _middle(step)
    return middle.tau, direction_at(denoiser, moved_along(x, direction, Step(step.src, middle)).x, middle)


def _middle(step: Step) -> Level:
    """The level in the middle, index -1; alpha and sigma of a flow model are linear in t."""
    src, dst = step.src, step.dst
    means = (src.alpha + dst.alpha) / 2, (src.sigma + dst.sigma) / 2
    if src.is_flow:
        return Level(-1, (src.t + dst.t) / 2, *means, is_flow=True)
    return between(step) or Level(-1, max(src.t, dst.t), *means)


def _halfway(step: Step, first: Direction, second: Direction) -> Tensor:
    """The line through two directions, halfway in tau, which is its mean over the move; the second where that is halfway."""
    (before, w), (middle, ahead) = first, second
    beyond = (step.src.tau + step.dst.tau) / 2 - middle
    return ahead if before == middle or beyond == 0 else ahead + (beyond / (middle - before)) * (ahead - w)
