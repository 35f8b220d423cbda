"""The exact inverse of a DDIM sampling move, by iteration.

Sampling from u to x is undone by the u that solves u = f(u), f(u) = transfer(x, eps(u, dst), step): an implicit equation
(docs/theory.md, eq. 5). Each method here starts from what DDIM inversion puts in, eps(x, dst), and improves it a fixed number
of times. All iterates are transfer(x, e) for some e, so the unknown is e itself: e = eps(transfer(x, e), dst), and a mean of
answers is a mean of states.

How fast this goes is known beforehand. For the best denoiser of any data no eigenvalue of f' exceeds 1 - 1/r with
r = S_dst / S_src, and plain areas attain it (eq. 7). From a clean level without noise that is 1: plain areas do not converge
there. The residual says so; a forward start avoids such moves. Down, all methods are DDIM sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensors import full_precision
from ..core.ddim import DDIM
from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.stepper import Moved, Stepper, eps_ahead
from ..core.transfer import transfer
from ..errors import ArgumentError

Update = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(e, the network's answer at transfer(x, e), residual per item) -> the next e."""


def residual_of(eps: Tensor, answer: Tensor, step: Step) -> Tensor:
    """Root mean square of u - f(u) per item, where u is moved by `eps` and `answer` is the network's eps at u; (batch,).

    >>> from unsample import Level
    >>> step = Step(Level(0, 0, 1.0, 0.0), Level(1, 9, 0.8, 0.6))
    >>> residual_of(torch.zeros(1, 4), torch.ones(1, 4), step)
    tensor([0.6000])
    """
    gap = answer - eps
    return transfer(torch.zeros_like(gap), gap, step).flatten(1).square().mean(1).sqrt()


def solve(denoiser: Denoiser, x: Tensor, step: Step, iterations: int, update: Update) -> Moved:
    """A move up by `update`, `iterations` times from eps(x, dst): 1 + iterations evaluations. A move down is DDIM sampling.

    The residual reported is that of the last state the network saw, before the last update.
    """
    if not step.is_up:
        return DDIM().step(denoiser, x, step)
    eps, residual = eps_ahead(denoiser, x, step), None
    for _ in range(iterations):
        answer = eps_ahead(denoiser, x, step, eps)
        residual = residual_of(eps, answer, step)
        eps = update(eps, answer, residual)
    return Moved(step, transfer(x, eps, step), eps, residual=residual)


def per_item(values: Tensor, like: Tensor) -> Tensor:
    """One value per item, (batch,), shaped to multiply `like`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def at_least(least: int, **options: int) -> None:
    """Refuse options below `least`."""
    for name, value in options.items():
        if value < least:
            raise ArgumentError(f"{name} must be at least {least}, given {value}")


@dataclass(frozen=True)
class Iterated(Stepper):
    """A method that improves the DDIM guess of each move up a fixed number of times, at an evaluation each.

    Attributes:
        iterations: Improvements after the DDIM guess.
    """

    iterations: int = 5

    def __post_init__(self) -> None:
        at_least(1, iterations=self.iterations)

    def evaluations(self, moves: int) -> int:
        """The guess, and one for each iteration; backward passes, where there are any, are not counted."""
        return moves * (1 + self.iterations)


@dataclass(frozen=True)
class FixedPoint(Iterated):
    """u <- f(u) (Pan et al. 2023, AIDI without acceleration; Meiri et al. 2023, FPI); 1 + iterations evaluations a move.

    Attributes:
        iterations: Improvements after the DDIM guess. In plain areas each leaves 1 - 1/r of the error.

    The residual is that before the last improvement, ||u_{n-1} - u_n||; that of the result is smaller by the same factor.

    >>> FixedPoint().evaluations(50)
    300
    """

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """1 + iterations evaluations up, one down."""
        return solve(denoiser, x, step, self.iterations, lambda eps, answer, residual: answer)


@dataclass(frozen=True)
class AveragedFixedPoint(Iterated):
    """u_{k+1} <- (f(u_k) + f(u_{k-1})) / 2 (Pan et al. 2023, AIDI-E); 1 + iterations evaluations a move.

    The mean of the last two answers damps iterations that swing from side to side, as strong guidance can make them; where f'
    has no negative eigenvalue it is slower than `FixedPoint`. The residual is that before the last update.

    >>> AveragedFixedPoint(iterations=3).evaluations(10)
    40
    """

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """1 + iterations evaluations up, one down."""
        answers: list[Tensor] = []

        def update(eps: Tensor, answer: Tensor, residual: Tensor) -> Tensor:
            before = answers.pop() if answers else eps  # the guess is the answer at u = x
            answers.append(answer)
            return (answer + before) / 2

        return solve(denoiser, x, step, self.iterations, update)


@dataclass(frozen=True)
class DampedFixedPoint(Iterated):
    """u <- u - rho (S(u) - x), S the sampler's own move down (Hong et al. 2024, order 1); 1 + iterations evaluations a move.

    As u - f(u) = (a_dst/a_src) (S(u) - x), this is `FixedPoint` relaxed by rho a_src/a_dst; on the straight path of a flow
    model u - f(u) = S(u) - x, and it is relaxed by rho. It also converges where f' has
    eigenvalues below -1; where it has none below 0, it is slower than `FixedPoint`. The paper iterates up to 500 times, after
    20 of warm-up, until S(u) - x is small; here the number is fixed. The residual is that before the last update.

    Attributes:
        iterations: Improvements after the DDIM guess.
        rho: Share of the sampler's error taken off u each time.
        patience: Halve an item's rho when its residual has not set a new low for so many iterations; None never does.

    >>> DampedFixedPoint(iterations=20, patience=5).evaluations(50)
    1050
    """

    iterations: int = 10
    rho: float = 0.5
    patience: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, patience=1 if self.patience is None else self.patience)
        if not self.rho > 0:
            raise ArgumentError(f"rho must be positive, given {self.rho}")

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """1 + iterations evaluations up, one down."""
        scale = 1.0 if step.dst.is_flow else step.src.alpha / step.dst.alpha
        rho = torch.full((len(x),), self.rho * scale, dtype=x.dtype, device=x.device)
        lowest, waited = torch.full_like(rho, torch.inf), torch.zeros_like(rho)

        def update(eps: Tensor, answer: Tensor, residual: Tensor) -> Tensor:
            nonlocal rho, lowest, waited
            if self.patience is not None:
                waited = torch.where(residual < lowest, 0, waited + 1)
                lowest, stuck = torch.minimum(lowest, residual), waited >= self.patience
                rho, waited = torch.where(stuck, rho / 2, rho), torch.where(stuck, 0, waited)
            return eps + per_item(rho, eps) * (answer - eps)

        return solve(denoiser, x, step, self.iterations, update)


@dataclass(frozen=True)
class Anderson(Iterated):
    """Fixed point with Anderson mixing (Walker and Ni 2011; Pan et al. 2023, AIDI-A); 1 + iterations evaluations a move.

    With R_k = f(u_k) - u_k, the next u is f(u_k) - sum_i g_i (f(u_{i+1}) - f(u_i)), with the g that make
    ||R_k - sum_i g_i (R_{i+1} - R_i)|| least, per item, over the last `window` differences. With a linear f and a
    window that holds them all it is GMRES: a few modes that contract slowly cost a few iterations. The residual is that before
    the last update.

    Attributes:
        iterations: Improvements after the DDIM guess.
        window: Earlier iterates mixed with the last; each keeps two states in memory.
        ridge: Tikhonov term: ridge sum_i g_i^2 (||R_{i+1} - R_i||^2 + ||R_k||^2) is added to what is made least. It keeps g
            within 1 / (2 sqrt(ridge)), so that items that have converged, or that have no solution, are not thrown far.

    >>> Anderson(iterations=3).evaluations(50)
    200
    """

    window: int = 3
    ridge: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, window=self.window)
        if not self.ridge > 0:
            raise ArgumentError(f"ridge must be positive, given {self.ridge}")

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """1 + iterations evaluations up, one down."""
        return solve(denoiser, x, step, self.iterations, Mixing(self.window, self.ridge))


class Mixing:
    """Anderson's update: remembers the last iterates of one move, and never waits for the device."""

    def __init__(self, window: int, ridge: float) -> None:
        self.window, self.ridge = window, ridge
        self.gaps: list[Tensor] = []
        self.answers: list[Tensor] = []

    @full_precision()
    def __call__(self, eps: Tensor, answer: Tensor, residual: Tensor) -> Tensor:
        """The next e."""
        self.gaps = [*self.gaps, (answer - eps).flatten(1)][-self.window - 1 :]
        self.answers = [*self.answers, answer.flatten(1)][-self.window - 1 :]
        if len(self.gaps) == 1:
            return answer
        rises, gap = torch.stack(self.gaps, 1).diff(dim=1), self.gaps[-1][:, :, None]  # (batch, differences, size)
        scales = (rises.square().sum(2, keepdim=True) + gap.square().sum(1, keepdim=True)).sqrt()
        scales = scales.clamp(min=torch.finfo(eps.dtype).tiny)
        rises = rises / scales
        gram = rises @ rises.mT + self.ridge * torch.eye(rises.shape[1], dtype=eps.dtype, device=eps.device)
        weights: Tensor = torch.linalg.solve_ex(gram, rises @ gap)[0]  # solve would wait for the device to report errors
        change: Tensor = (weights / scales * torch.stack(self.answers, 1).diff(dim=1)).sum(1)
        return answer - change.reshape(answer.shape)
