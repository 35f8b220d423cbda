"""What a method is: how to make one move.

A method is a small frozen dataclass. Its configuration is the dataclass itself, so it prints, compares and serialises. It
differs from other methods only in which eps it uses for a move; the move itself is always `transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from .denoiser import Denoiser
from .grid import Step
from .prediction import to_velocity
from .transfer import transfer

__all__ = ["HasCost", "Moved", "Steered", "Stepper", "ask_ahead", "evaluations_on", "is_reversible"]


@dataclass(frozen=True)
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
    state: Any = None
    residual: Tensor | None = None


@runtime_checkable
class HasCost(Protocol):
    """What has a price in network evaluations."""

    def evaluations(self, moves: int) -> int:
        """Network evaluations per item of a walk of so many moves up, tested.

        An upper bound if the method decides from the levels; it then has `evaluations_on(steps)`, which is exact.
        """


@runtime_checkable
class Stepper(HasCost, Protocol):
    """One move of a method, up or down."""

    @property
    def order(self) -> int:
        """Order of convergence, tested."""

    def init(self, x: Tensor) -> Any:
        """The memory before the first move."""

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Any) -> Moved:
        """`x` at `step.src` moved to `step.dst`."""


@runtime_checkable
class Steered(Stepper, Protocol):
    """A method that pulls the inversion towards a draw of noise, one per item."""

    def steer(self, denoiser: Denoiser, noise: Tensor) -> Denoiser:
        """What is asked instead of `denoiser` on the way up."""


def ask_ahead(denoiser: Denoiser, x: Tensor, step: Step, eps: Tensor | None = None) -> Tensor:
    """The eps to move `x` by: the network's answer at `step.dst` of the state that `eps` leads to, or, without it, of `x`.

    On the straight path of a flow model the velocity of the answer is kept instead of its eps. Near the noisy end eps is the
    state itself, whatever the network says, so that x would hardly move and any state would solve the implicit equation.

    >>> import torch
    >>> from unsample import Level, to_eps
    >>> step = Step(Level(1, 250, 0.75, 0.25, is_flow=True), Level(2, 1000, 2**-26, 1 - 2**-26, is_flow=True))
    >>> x = torch.zeros(1)
    >>> transfer(x, ask_ahead(lambda x, level: to_eps(torch.full_like(x, 2), x, level, "flow"), x, step), step)
    tensor([1.5000])
    """
    state = x if eps is None else transfer(x, eps, step)
    answer = denoiser(state, step.dst)
    if not step.dst.is_flow:
        return answer
    velocity = to_velocity(answer, state, step.dst)
    return (x + step.src.alpha * velocity) / (step.src.alpha + step.src.sigma)


def is_reversible(method: Stepper) -> bool:
    """Whether a walk down from the memory that a walk up ended with returns to where it began, exactly.

    The memory of such a method, `Moved.state`, is a tuple of tensors with one row per item.
    """
    return bool(getattr(method, "reversible", False))


def evaluations_on(method: HasCost, steps: Sequence[Step]) -> int:
    """Network evaluations per item of a walk up these very steps."""
    exact = getattr(method, "evaluations_on", None)
    return int(exact(steps)) if exact else method.evaluations(len(steps))
