"""Pix2Pix-Zero's inversion: DDIM with eps pulled towards what noise looks like before every move up (Parmar et al. 2023).

Two statistics of eps itself are descended, its autocorrelation and its divergence from a standard normal distribution. No
network is in them, so the gradients are cheap and the method costs what DDIM costs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..core.ddim import DDIM, EvalAt
from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.stepper import Moved, Stepper
from ..core.transfer import transfer
from ..errors import ArgumentError
from .fixed_point import at_least
from .renoise import autocorrelation, descended

PIXELS, VALUES = 64 * 64, 4 * 64 * 64
"""The maps that the published step sizes are for: latents of four channels of 64x64."""


def normal_divergence(eps: Tensor) -> Tensor:
    """Variance + mean^2 - 1 - log(variance + 1e-7) over all values of an item: twice its divergence from N(0, 1); (batch,).

    The variance is the unbiased one.

    >>> import torch
    >>> values = torch.tensor([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    >>> [round(value, 3) for value in normal_divergence(values).tolist()]
    [1.0, 4.0]
    """
    flat = eps.flatten(1)
    variance = flat.var(1)
    return variance + flat.mean(1).square() - 1 - (variance + 1e-7).log()


def regularised(eps: Tensor, rounds: int = 5, rolls: int = 5, correlation: float = 20.0, divergence: float = 20.0) -> Tensor:
    """`eps` after gradient descent on `autocorrelation` and `normal_divergence`, item by item; no network evaluations.

    Differs from the authors' code in three ways. Their autocorrelation draws one shift a map at random, zero among them; here
    it is the mean over all shifts but zero. Their divergence is that of the whole batch; here that of each item. Their step
    sizes are for latents of 4x64x64, as they are here; but both statistics are means, with gradients that grow as maps get
    smaller (at 1x4x4 the same steps overshoot without bound), so that for other sizes the steps are scaled by the number of
    values averaged: eps is changed about as much at any size. To step at 3x32x32 as their code would, multiply `correlation`
    by 4 and `divergence` by 16/3.

    Args:
        eps: Shape (batch, channels, height, width), maps of at least 4x4.
        rounds: How often both are descended.
        rolls: Steps on the autocorrelation in each round, each of size correlation / rolls.
        correlation: Step size on the autocorrelation, at 64x64; 0 leaves it out.
        divergence: Step size on the divergence, at 4x64x64; 0 leaves it out.

    Raises:
        ArgumentError: Maps too small to have a lag.

    >>> import torch
    >>> eps = torch.ones(1, 1, 8, 8) + torch.eye(8)
    >>> better = regularised(eps)
    >>> bool(autocorrelation(better) < autocorrelation(eps)), bool(normal_divergence(better) < normal_divergence(eps))
    (True, True)
    """
    if min(eps.shape[2:]) < 4:
        raise ArgumentError(f"expected maps of at least 4x4, given {tuple(eps.shape[2:])}")
    pixels, values = eps[0, 0].numel(), eps[0].numel()
    for _ in range(rounds):
        for _ in range(rolls if correlation else 0):
            eps = descended(autocorrelation, eps, correlation / rolls * pixels / PIXELS)
        if divergence:
            eps = descended(normal_divergence, eps, divergence * values / VALUES)
    return eps


@dataclass(frozen=True)
class Pix2PixZero(Stepper):
    """DDIM inversion with `regularised` eps; one evaluation a move, down it is DDIM (Parmar et al. 2023, "Pix2Pix-Zero").

    Every move up changes eps by about the same amount however short it is, so with regularisation the method does not converge
    to the exact flow with more steps; with `rounds=0` it is DDIM.

    Attributes:
        rounds, rolls, correlation, divergence: As for `regularised`, which says what differs from the authors' code.
        eval_at: As for `DDIM`.

    >>> Pix2PixZero().evaluations(50)
    50
    """

    rounds: int = 5
    rolls: int = 5
    correlation: float = 20.0
    divergence: float = 20.0
    eval_at: EvalAt = "target"

    def __post_init__(self) -> None:
        DDIM(self.eval_at)  # refuses an eval_at that is none
        at_least(0, rounds=self.rounds)
        at_least(1, rolls=self.rolls)
        if not (self.correlation >= 0 and self.divergence >= 0):
            raise ArgumentError(f"step sizes must be at least 0, given {self.correlation} and {self.divergence}")

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """DDIM's move, up with regularised eps."""
        moved = DDIM(self.eval_at).step(denoiser, x, step)
        if not step.is_up or not self.rounds:
            return moved
        eps = regularised(moved.eps, self.rounds, self.rolls, self.correlation, self.divergence)
        return Moved(step, transfer(x, eps, step), eps)
