"""ReNoise: fixed-point iterates whose eps is averaged over a window (Garibi et al. 2024, "ReNoise", ECCV).

The iterates are those of `FixedPoint`; the move is then made with the mean of the last few answers, which settles what the
iteration has not. Optionally the mean is first pulled towards what noise looks like: gradient steps on two statistics of eps
itself, cheap because no network is in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensors import gradients
from ..core.ddim import DDIM
from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.stepper import Moved, eps_ahead
from ..core.transfer import transfer
from ..errors import ArgumentError
from .fixed_point import Iterated, residual_of

PATCH = 4
SMALLEST = 8
"""The pyramid of `autocorrelation` ends at maps no larger than this."""


def patch_divergence(eps: Tensor, reference: Tensor | None = None) -> Tensor:
    """The sum of log(v1/v0) + (v0 + (m0 - m1)^2)/v1 - 1 over 4x4 patches and channels, per item.

    Twice the divergence between Gaussians: m0, v0 are the mean and variance of a patch of `eps`, (batch, channels, height,
    width); m1, v1 those of `reference`, or 0 and 1. Rows and columns beyond the last whole patch do not count.

    >>> noise = torch.randn((1, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    >>> bool(patch_divergence(noise) < patch_divergence(2 * noise)), patch_divergence(noise, noise).item()
    (True, 0.0)
    """
    mean, variance = _moments(eps)
    aim, spread = (torch.zeros_like(mean), torch.ones_like(mean)) if reference is None else _moments(reference)
    return ((spread / variance).log() + (variance + (mean - aim).square()) / spread - 1).flatten(1).sum(1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each patch; a patch without variance is given the smallest one that has a logarithm."""
    rows, columns = x.shape[2] // PATCH, x.shape[3] // PATCH
    if not rows or not columns:
        raise ArgumentError(f"expected maps of at least {PATCH}x{PATCH}, given {tuple(x.shape[2:])}")
    patches = x[:, :, : rows * PATCH, : columns * PATCH].reshape(*x.shape[:2], rows, PATCH, columns, PATCH)
    return patches.mean((3, 5)), patches.var((3, 5)) + 1e-6


def autocorrelation(eps: Tensor) -> Tensor:
    """Sum over channels and a pyramid of half-sized means of the mean squared circular autocorrelation, per item.

    The mean runs over all shifts from 1 to half the side, along rows and along columns, in one Fourier transform. Pix2Pix-Zero
    (Parmar et al. 2023) and ReNoise draw one shift at random; this is what they estimate, without shift 0 (which would punish
    variance), and it is the same for any batch and seed.

    >>> flat, checks = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    >>> checks[..., ::2, :] *= -1
    >>> autocorrelation(torch.zeros(1, 1, 8, 8)).item(), autocorrelation(flat).item(), autocorrelation(checks).item()
    (0.0, 2.0, 2.0)
    """
    total = torch.zeros(len(eps), dtype=eps.dtype, device=eps.device)
    while min(eps.shape[2:]) >= 4:
        for along, across in ((2, 3), (3, 2)):
            size = eps.shape[along]
            power = torch.fft.rfft(eps, dim=along).abs().square().mean(across, keepdim=True)
            shifts = torch.fft.irfft(power, n=size, dim=along) / size
            total = total + shifts.narrow(along, 1, size // 2 - 1).square().mean(along).flatten(1).sum(1)
        if max(eps.shape[2:]) <= SMALLEST:
            break
        eps = torch.nn.functional.avg_pool2d(eps, 2)
    return total


@gradients()
def descended(loss: Callable[[Tensor], Tensor], eps: Tensor, size: float, steepest: float = math.inf) -> Tensor:
    """`eps` after one gradient step on `loss`, a value per item; the losses are summed, so that items do not mix.

    >>> descended(lambda eps: eps.square().flatten(1).sum(1), torch.ones(2, 1), 0.25)
    tensor([[0.5000],
            [0.5000]])
    """
    eps = eps.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(eps).sum(), eps)
    return eps.detach() - size * slope.clamp(-steepest, steepest)


def whitened(eps: Tensor, divergence: float = 0.065, correlation: float = 20.0, rounds: int = 4, rolls: int = 5) -> Tensor:
    """`eps` after gradient descent on `patch_divergence` and `autocorrelation`, item by item; no network evaluations.

    ReNoise measures the divergence from the network's eps on the forward-diffused image; a method does not know the image, so
    here it is the divergence from true noise, mean 0 and variance 1.

    Args:
        eps: Shape (batch, channels, height, width).
        divergence: Step size on the patch divergence, whose gradient is clamped to [-100, 100]; 0 leaves it out.
        correlation: Step size on the autocorrelation; 0 leaves it out.
        rounds: How often both are descended.
        rolls: Steps on the autocorrelation in each round, each of size correlation / rolls.

    >>> eps = torch.ones(1, 1, 8, 8) + torch.eye(8)
    >>> better = whitened(eps)
    >>> bool(autocorrelation(better) < autocorrelation(eps)), bool(patch_divergence(better) < patch_divergence(eps))
    (True, True)
    """
    for _ in range(rounds):
        if divergence:
            eps = descended(patch_divergence, eps, divergence, steepest=100)
        for _ in range(rolls if correlation else 0):
            eps = descended(autocorrelation, eps, correlation / rolls)
    return eps


@dataclass(frozen=True)
class ReNoise(Iterated):
    """The mean of eps over a window of fixed-point iterates, then one move with it; 1 + iterations evaluations a move.

    e_0 = eps(x, dst), e_i = eps(transfer(x, e_{i-1}), dst); the move is made with the mean of e_i for i in [lo, hi). The paper
    takes the window (8, 10) of 9 iterations for few-step models, and one iteration for 50 steps. Not taken over: its shorter
    window below timestep 250 and its noise correction, which belongs to samplers that add noise.

    The residual is that of the last iterate, transfer(x, e_{n-1}), before averaging.

    Attributes:
        iterations: Answers after the DDIM guess.
        average: (lo, hi), the answers averaged, counted from the guess at 0.
        divergence: Step size of `whitened` on the mean before the move; the paper's is 0.065, 0 leaves it out.
        correlation: The same for its autocorrelation; the paper's is 20.

    >>> ReNoise(iterations=4, average=(3, 5)).evaluations(50)
    250
    """

    iterations: int = 9
    average: tuple[int, int] = (8, 10)
    divergence: float = 0.0
    correlation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        first, end = self.average
        if not 0 <= first < end <= self.iterations + 1:
            raise ArgumentError(
                f"expected a window (lo, hi) with 0 <= lo < hi <= {self.iterations + 1} for iterations={self.iterations}, "
                f"given {self.average}"
            )

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """1 + iterations evaluations up, one down."""
        if not step.is_up:
            return DDIM().step(denoiser, x, step)
        eps = answer = eps_ahead(denoiser, x, step)
        window = [answer] if self.average[0] == 0 else []
        for i in range(1, self.iterations + 1):
            eps, answer = answer, eps_ahead(denoiser, x, step, answer)
            window += [answer] if self.average[0] <= i < self.average[1] else []
        mean = sum(window[1:], window[0]) / len(window)
        if self.divergence or self.correlation:
            mean = whitened(mean, self.divergence, self.correlation)
        return Moved(step, transfer(x, mean, step), mean, residual=residual_of(eps, answer, step))
