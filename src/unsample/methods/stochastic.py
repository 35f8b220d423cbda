"""Samplers that add noise: what they arrive at is Gaussian, with the mean that `step` makes and the deviation `spread`.

A move of them is `transfer` to less noise than the level holds, sigma_dst^2 - spread^2 of its variance; the rest is added. A
step draws nothing, so whoever walks decides what is added: fresh noise (`core.corrections.FreshNoise`) or stored corrections,
of which the noise is a part (`methods/drawn_paths.py`). They are samplers: on the way up there is nothing to draw, and their
move is DDIM's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from ..core.ddim import DDIM
from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.prediction import to_x0
from ..core.stepper import Moved, Stepper
from ..core.transfer import transfer
from ..errors import ArgumentError
from .multistep import Memory


class Stochastic(Stepper):
    """A sampler whose moves down end in the mean of a Gaussian of deviation `spread`, and whose moves up are DDIM's."""

    @abstractmethod
    def spread(self, step: Step) -> float:
        """Standard deviation of the noise that belongs to the move, in units of x; 0 up, and to a level without noise."""


@dataclass(frozen=True)
class Ancestral(Stochastic):
    """DDIM with noise; eta = 1 is DDPM's posterior q(x_dst | x_src, x0) with predicted x0 (Song et al. 2021, eq. 12, 16).

    mean = alpha_dst x0 + sqrt(sigma_dst^2 - spread^2) eps, and spread = eta sigma_dst sqrt(1 - (S_dst / S_src)^2), which is
    eq. 16 for any alpha and sigma. One evaluation a move; eta = 0 is `DDIM()`.

    Attributes:
        eta: 0 to 1.

    >>> from unsample import Level
    >>> step = Step(Level(2, 9, 0.6, 0.8), Level(1, 0, 0.8, 0.6))
    >>> round(Ancestral().spread(step), 4), Ancestral(eta=0).spread(step)
    (0.4961, 0.0)
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ArgumentError(f"expected eta from 0 (DDIM) to 1 (DDPM), given {self.eta}")

    def spread(self, step: Step) -> float:
        """Eta times the deviation of DDPM's posterior."""
        return self.eta * _posterior(step)

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """One evaluation; the mean of the move down, DDIM's move up."""
        if step.is_up:
            return DDIM().step(denoiser, x, step)
        eps = denoiser(x, step.src)
        return Moved(step, _mean(x, eps, step, self.spread(step)), eps)


@dataclass(frozen=True)
class SDEDPMSolverPP(Stochastic):
    """SDE-DPM-Solver++, the multistep DPM-Solver++ of the diffusion SDE (Lu et al. 2022b), `sde-dpmsolver++` in diffusers.

    With h = lambda_dst - lambda_src, lambda = log(alpha / sigma), the deviation is sigma_dst sqrt(1 - exp(-2h)) and the mean
    (sigma_dst / sigma_src) exp(-h) x + alpha_dst (1 - exp(-2h)) D; D is predicted x0 (order 1), or predicted x0 in
    the middle of the move, by the slope from the move before (2, "2M", `midpoint` in diffusers). One evaluation a move.

    Order 1 is `Ancestral(eta=1)`, exactly. A move to a level without noise gives predicted x0, as diffusers' last move
    to `final_sigmas_type="zero"`. diffusers makes its last move with order 1 to other levels too, if there are fewer than 15
    moves (`lower_order_final`); here only the first has a lower order.

    Attributes:
        order: 1 or 2, that of the sampled variance on Gaussian data (tested). The move up is of order 1.

    >>> from unsample import Level
    >>> step = Step(Level(2, 9, 0.6, 0.8), Level(1, 0, 0.8, 0.6))
    >>> SDEDPMSolverPP().spread(step) == Ancestral(eta=1).spread(step)
    True
    """

    order: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ArgumentError(f"expected order 1 or 2, given {self.order}")

    def spread(self, step: Step) -> float:
        """sigma_dst sqrt(1 - exp(-2h)), which is DDPM's."""
        return _posterior(step)

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Memory = ()) -> Moved:
        """One evaluation; the mean of the move down, DDIM's move up."""
        if step.is_up:
            return replace(DDIM().step(denoiser, x, step), state=state)
        eps = denoiser(x, step.src)
        x0 = to_x0(eps, x, step.src)
        older = tuple(known for known in state if known[0].ratio != step.src.ratio)[:1]  # of equal levels, the newest counts
        if older and self.order == 2 and step.dst.sigma > 0:
            (level, before), h = older[0], math.log(step.src.ratio / step.dst.ratio)
            slope = (x0 - before) / math.log(level.ratio / step.src.ratio)
            eps = eps - h / 2 * slope / step.src.ratio  # the eps that goes with D
        return Moved(step, _mean(x, eps, step, self.spread(step)), eps, ((step.src, x0), *older))


def _posterior(step: Step) -> float:
    """Deviation of q(x_dst | x_src, x0): sigma_{src|dst} sigma_dst / sigma_src.

    sigma_{src|dst}^2 = sigma_src^2 - (alpha_src / alpha_dst)^2 sigma_dst^2 is sigma_src^2 (1 - (S_dst / S_src)^2), and
    S_dst / S_src = exp(-h).
    """
    if step.is_up or step.dst.sigma == 0:
        return 0.0
    return step.dst.sigma * math.sqrt(1 - (step.dst.ratio / step.src.ratio) ** 2)


def _mean(x: Tensor, eps: Tensor, step: Step, spread: float) -> Tensor:
    """alpha_dst x0 + sqrt(sigma_dst^2 - spread^2) eps."""
    kept = math.sqrt(step.dst.sigma**2 - spread**2)
    return transfer(x, eps, replace(step, dst=replace(step.dst, sigma=kept)))
