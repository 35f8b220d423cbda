"""One-step explicit methods: the ones that look ahead, and one that holds back.

The path is an ordinary differential equation, d(x / alpha) = eps dS with S = sigma / alpha, and a move with eps held fixed is
Euler's (DDIM). `Heun` and `Midpoint` spend a second evaluation on where that leads and move with a better eps; `EasyInv`
averages the move with standing still. The formulas are the same up and down, but for `EasyInv`, which is for the way up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..core.ddim import DDIM, EvalAt
from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.schedule import Level
from ..core.stepper import Moved, Stepper
from ..core.transfer import transfer
from ..errors import ArgumentError


@dataclass(frozen=True)
class Heun(Stepper):
    """Heun's method in S: the mean of eps at the source and at the state DDIM predicts there (Karras et al. 2022, alg. 1).

    Two evaluations a move. A move down to a level without noise is DDIM's, as in that algorithm: there is no eps there.

    >>> Heun().order, Heun().evaluations(10)
    (2, 20)
    """

    order: ClassVar[int] = 2

    def evaluations(self, moves: int) -> int:
        """Two for every move up."""
        return 2 * moves

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """One transfer along (eps_src + eps_dst) / 2."""
        eps = denoiser(x, step.src)
        if step.is_up or step.dst.sigma > 0:
            eps = (eps + denoiser(transfer(x, eps, step), step.dst)) / 2
        return Moved(step, transfer(x, eps, step), eps)


@dataclass(frozen=True)
class Midpoint(Stepper):
    """The explicit midpoint method in S: eps at a level between the two (the solver of RF-Solver, Wang et al. 2025).

    Two evaluations a move. The network is evaluated at the trained timestep halfway, t = (t_src + t_dst) // 2, which the grid
    does not have: its S is read off a straight line in t between the ends, in log(1 + S^2), for trained tables the sum of the
    betas but for their squares. What that reading misses is of second order, as is the method; the state is at the S that was
    read. Neighbours without a timestep between them (the first move of a leading grid) or of equal S are moved by `Heun`.

    >>> Midpoint().order, Midpoint().evaluations(10)
    (2, 20)
    """

    order: ClassVar[int] = 2

    def evaluations(self, moves: int) -> int:
        """Two for every move up."""
        return 2 * moves

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """One transfer along eps_src + (eps_mid - eps_src) / (2 c), the middle a share c of the way in S."""
        middle = between(step)
        if middle is None:
            return Heun().step(denoiser, x, step)
        eps = denoiser(x, step.src)
        share = (middle.ratio - step.src.ratio) / (step.dst.ratio - step.src.ratio)
        ahead = denoiser(transfer(x, eps, Step(step.src, middle)), middle)
        eps = eps + (ahead - eps) / (2 * share)
        return Moved(step, transfer(x, eps, step), eps)


def between(step: Step) -> Level | None:
    """The level halfway in trained timesteps, index -1; None where there is none."""
    src, dst = step.src, step.dst
    t = (src.t + dst.t) // 2
    if src.ratio == dst.ratio or not min(src.t, dst.t) < t < max(src.t, dst.t):
        return None
    share = (t - src.t) / (dst.t - src.t)
    ends = math.log1p(src.ratio**2), math.log1p(dst.ratio**2)
    ratio = math.sqrt(math.expm1(ends[0] + share * (ends[1] - ends[0])))
    norms = math.hypot(src.alpha, src.sigma), math.hypot(dst.alpha, dst.sigma)
    alpha = (norms[0] + share * (norms[1] - norms[0])) / math.hypot(1.0, ratio)
    return Level(-1, t, alpha, alpha * ratio, src.is_flow)


@dataclass(frozen=True)
class EasyInv(Stepper):
    """DDIM, but in a window of moves up the new state is mixed with the old one (Zhang et al. 2025, "EasyInv").

    One evaluation a move. A window of a fixed number of moves leaves the method first order; one that is a share of the grid,
    as its authors set it, does not converge with more steps. Their settings at 50 steps, counting moves from 0: Stable
    Diffusion 1.4 moves 3 to 12 with equal weights (the default here), SDXL 43 to 47 with 0.8 of the new state.

    Attributes:
        start: Source level of the first averaged move.
        length: Number of averaged moves.
        eval_at: As for `DDIM`.
        weight: Of the new state, in (0, 1]; the old one has the rest (the authors' eta).

    >>> EasyInv(start=43, length=5, weight=0.8)
    EasyInv(start=43, length=5, eval_at='target', weight=0.8)
    """

    start: int = 3
    length: int = 10
    eval_at: EvalAt = "target"
    weight: float = 0.5

    def __post_init__(self) -> None:
        DDIM(self.eval_at)  # refuses an eval_at that is none
        if not 0 < self.weight <= 1:
            raise ArgumentError(f"the weight of the new state lies in (0, 1], given {self.weight}; 0.5 is an average")
        if self.start < 0 or self.length < 0:
            raise ArgumentError(f"a window needs start and length of at least 0, given {self.start} and {self.length}")

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """DDIM's move; weight * new + (1 - weight) * old inside the window on the way up."""
        moved = DDIM(self.eval_at).step(denoiser, x, step)
        inside = step.is_up and self.start <= step.src.index < self.start + self.length
        return replace(moved, x=self.weight * moved.x + (1 - self.weight) * x) if inside else moved
