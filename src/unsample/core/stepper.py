"""What a method is: how to make one move.

A method is a small frozen dataclass. Its configuration is the dataclass itself, so it prints, compares and serialises. It
differs from other methods only in which eps it uses for a move; the move itself is always `transfer`. What most methods share
(first order, no memory, one evaluation a move, sampled back by DDIM) they inherit from `Stepper`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .._tensors import brief
from .denoiser import Denoiser
from .grid import Grid, Step
from .prediction import to_velocity
from .specs import Checked
from .transfer import transfer


@brief
@dataclass(frozen=True, eq=False)
class Moved:
    """The outcome of one move.

    Attributes:
        step: The move.
        x: State at `step.dst`.
        eps: The noise prediction the move used.
        state: Carried to the next move by methods with memory.
        residual: How far an implicit method is from solving its equation, per item; None for explicit ones.
    """

    step: Step
    x: Tensor
    eps: Tensor
    state: Any = ()
    residual: Tensor | None = None


class Stepper(Checked, ABC):
    """A method of making one move, up or down. Of a subclass only `step` is required; the rest describes the usual method.

    >>> class Euler(Stepper):
    ...     def step(self, denoiser, x, step, state=()):
    ...         eps = denoiser(x, step.src)
    ...         return Moved(step, transfer(x, eps, step), eps)
    >>> Euler().evaluations(50), Euler().sampler
    (50, DDIM(eval_at='target', clip=None))
    """

    reversible: ClassVar[bool] = False
    """Whether a walk down from the memory that a walk up ended with returns to where it began, exactly."""

    usual_sampler: ClassVar[Stepper]
    """DDIM, as `core/ddim.py` says: it is a Stepper itself, so this file cannot import it."""

    @abstractmethod
    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Any = ()) -> Moved:
        """`x` at `step.src` moved to `step.dst`."""

    @property
    def order(self) -> int:
        """Order of convergence (tested); that of fixed points is backward Euler's, 1."""
        return 1

    def init(self, x: Tensor) -> Any:
        """The memory before the first move."""
        return ()

    def kept(self, state: Any) -> tuple[Tensor, ...]:
        """The memory as tensors with one row per item, which a reversible method turns around with: `step` takes them, too."""
        return ()

    def evaluations(self, moves: int) -> int:
        """Network evaluations per item of a walk of so many moves up (tested); at most, if the levels decide."""
        return moves

    def evaluations_on(self, steps: Iterable[Step]) -> int:
        """Network evaluations per item of a walk up these very steps (tested)."""
        return self.evaluations(len(list(steps)))

    def spread(self, step: Step) -> float:
        """Standard deviation of the noise that belongs to the end of a move, in units of x; 0 but for stochastic samplers."""
        return 0.0

    def steer(self, denoiser: Denoiser, noise: Callable[[], Tensor]) -> Denoiser:
        """What is evaluated instead of `denoiser` on the way up, by a method that aims at a draw of `noise` per item."""
        return denoiser

    @property
    def sampler(self) -> Stepper:
        """What samples back from where the method walked up to: itself if it is reversible, DDIM otherwise."""
        return self if self.reversible else self.usual_sampler

    @property
    def inversion(self) -> Stepper:
        """What walks up: the method itself."""
        return self

    def moves(self, grid: Grid, first: int, last: int) -> int:
        """Moves of an inversion from level `first` to level `last` of a grid."""
        return last - first


def eps_ahead(denoiser: Denoiser, x: Tensor, step: Step, eps: Tensor | None = None) -> Tensor:
    """The eps to move `x` by: the network's answer at `step.dst` of the state that `eps` leads to, or, without it, of `x`.

    On the straight path of a flow model the velocity of the answer is kept instead of its eps. Near the noisy end eps is the
    state itself, whatever the network says, so that x would hardly move and any state would solve the implicit equation.

    >>> import torch
    >>> from unsample import Level, to_eps
    >>> step = Step(Level(1, 250, 0.75, 0.25, is_flow=True), Level(2, 1000, 2**-26, 1 - 2**-26, is_flow=True))
    >>> x = torch.zeros(1)
    >>> transfer(x, eps_ahead(lambda x, level: to_eps(torch.full_like(x, 2), x, level, "flow"), x, step), step)
    tensor([1.5000])
    """
    state = x if eps is None else transfer(x, eps, step)
    answer = denoiser(state, step.dst)
    if not step.dst.is_flow:
        return answer
    velocity = to_velocity(answer, state, step.dst)
    return (x + step.src.alpha * velocity) / (step.src.alpha + step.src.sigma)
