"""The exact inverse of a DDIM sampling move, by gradient descent through the network.

The unknown is the e of u = transfer(x, e), as in `fixed_point`; descended is the mean square of e - eps(u, dst), that of the
sampler's error S(u) - x up to a factor. Each step costs a network evaluation and a backward pass through it: about three
evaluations' time, and the memory of the network's activations for the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensors import gradients
from ..core.ddim import DDIM
from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.stepper import Moved, Stepper, eps_ahead
from ..core.transfer import transfer
from ..errors import ArgumentError
from .fixed_point import FixedPoint, Iterated, per_item, residual_of


@dataclass(frozen=True)
class GradientDescent(Iterated):
    """Adam on e from the DDIM guess, keeping each item's best; 1 + iterations evaluations a move, all but one with a backward.

    Zuo et al. (2025, "Precise Diffusion Inversion") descend the same error with AdamW on the e of u = a_dst x0 + s_dst e from
    the same guess. As x0 is constant that differs from this by the factor 1 - 1/r in the step and by the weight decay; they
    stop at a small error, here the number is fixed. The residual is that of the state returned, exactly.

    Attributes:
        iterations: Steps of Adam.
        rate: Its step size, in units of the noise.

    >>> GradientDescent(iterations=20).evaluations(2)
    42
    """

    iterations: int = 20
    rate: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate > 0:
            raise ArgumentError(f"rate must be positive, given {self.rate}")

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """1 + iterations evaluations and iterations backward passes up, one evaluation down."""
        if not step.is_up:
            return DDIM().step(denoiser, x, step)
        with gradients():
            eps = eps_ahead(denoiser, x, step).detach().clone().requires_grad_()
        best, lowest = eps.detach().clone(), torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        adam = torch.optim.Adam([eps], lr=self.rate)
        for _ in range(self.iterations):
            with gradients():
                answer = eps_ahead(denoiser, x, step, eps)
                error = (eps - answer).square().flatten(1).mean(1).sum()
                (eps.grad,) = torch.autograd.grad(error, eps)
            residual = residual_of(eps.detach(), answer.detach(), step)
            best = torch.where(per_item(residual < lowest, eps), eps.detach(), best)
            lowest = torch.minimum(lowest, residual)
            adam.step()
        return Moved(step, transfer(x, best, step), best, residual=lowest)


@dataclass(frozen=True)
class GradientThenFixedPoint(Stepper):
    """Gradient descent for the first move of a walk, fixed point for the others (Zeng et al. 2026, arXiv 2606.03111).

    The first move, out of the clean level, is where fixed points do not converge. That much is the paper's; the optimiser and
    its settings here are `GradientDescent`'s. Where the clean level has no noise, a plain area's answer is the same for every
    e, so that nothing is left to descend either.

    Attributes:
        first_iterations: Steps of `GradientDescent` on the first move up of a walk.
        rate: Their size.
        iterations: Iterations of `FixedPoint` on each of the others.

    >>> GradientThenFixedPoint().evaluations(50)
    345
    """

    first_iterations: int = 50
    rate: float = 0.05
    iterations: int = 5

    def __post_init__(self) -> None:
        self._parts()

    def evaluations(self, moves: int) -> int:
        """Those of the first move and of the others."""
        first, others = self._parts()
        return first.evaluations(min(moves, 1)) + others.evaluations(max(moves - 1, 0))

    def init(self, x: Tensor) -> bool:
        """Whether the first move up is still to come."""
        return True

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: bool = True) -> Moved:
        """Gradient descent the first time up, fixed point then; DDIM sampling down."""
        first, others = self._parts()
        moved = (first if state and step.is_up else others).step(denoiser, x, step)
        return Moved(step, moved.x, moved.eps, state and not step.is_up, moved.residual)

    def _parts(self) -> tuple[GradientDescent, FixedPoint]:
        return GradientDescent(self.first_iterations, self.rate), FixedPoint(self.iterations)
