"""Multistep methods: one evaluation a move, where x is, and the answers of the last moves put to use.

Along the path, d(x / alpha) = eps dS with S = sigma / alpha, the answers are points of a curve; the next move integrates the
polynomial through them. `AdamsBashforth` takes eps as a polynomial in S, or in another variable. `DPMSolverPP` takes
predicted x0 as a polynomial in lambda = log(alpha / sigma) and integrates it exactly. Both are `transfer` with a combined
eps, up and down.

The first moves have fewer answers and are of lower order; the first is DDIM's, evaluated at the source. Levels of equal S
count as one, with the newest answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.prediction import to_eps, to_velocity, to_x0
from ..core.schedule import Level
from ..core.stepper import Moved, Stepper
from ..core.transfer import transfer
from ..errors import ArgumentError, UnknownNameError

Variable = Literal["auto", "ratio", "flow", "log-snr"]
Solver = Literal["midpoint", "heun"]
Memory = tuple[tuple[Level, Tensor], ...]
"""Levels evaluated at and the answers there, newest first."""


@dataclass(frozen=True)
class AdamsBashforth(Stepper):
    """Adams-Bashforth with variable steps: eps extrapolated linearly (order 2) or quadratically (order 3).

    One evaluation a move. Started by a move of DDIM, whose error is of second order in its size: on the way up it is not
    forgotten, and order 3 is then no better than order 2. Down, where it is, order 3 shows.

    Source: Hairer, Norsett and Wanner 1993, chapter III.1 and III.5 (variable steps); in log S, exponentially weighted,
    Zhang and Chen 2023 (DEIS).

    Attributes:
        order: 2 or 3.
        variable: In what the answers are taken as a polynomial. `auto`: `ratio` on a table, `flow` on a flow model.
            `ratio`: eps in S. `flow`: the direction w = eps - x0 in tau = sigma / (alpha + sigma), along which
            d(x / (alpha + sigma)) = w dtau; for a flow model its velocity in t.
            `log-snr`: eps in log S, integrated exactly against dS; a move from or to a level without noise is DDIM's. A level
            of almost no signal (flow models, zero terminal SNR) is far away in S and log S: only `flow` extrapolates into it.

    >>> AdamsBashforth()
    AdamsBashforth(order=2, variable='auto')
    """

    order: Literal[2, 3] = 2
    variable: Variable = "auto"

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise ArgumentError(f"expected order 2 or 3, given {self.order}; for order 1 use DDIM(eval_at='source')")
        if self.variable not in get_args(Variable):
            raise UnknownNameError("variable", self.variable, get_args(Variable))

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Memory = ()) -> Moved:
        """One evaluation at the source."""
        eps, variable = denoiser(x, step.src), self._variable(step)
        if variable == "log-snr" and step.src.sigma == 0:
            return Moved(step, transfer(x, eps, step), eps, state)
        answer = to_velocity(eps, x, step.src) if variable == "flow" else eps
        memory = _remember(step.src, answer, state, self.order)
        if len(memory) > 1:
            eps = self._mean_eps(x, step, memory)
        return Moved(step, transfer(x, eps, step), eps, memory)

    def _variable(self, step: Step) -> Variable:
        if self.variable != "auto":
            return self.variable
        return "flow" if step.src.is_flow else "ratio"

    def _mean_eps(self, x: Tensor, step: Step, memory: Memory) -> Tensor:
        """The eps of the move, from two or three answers."""
        variable = self._variable(step)
        if variable == "flow":
            mean = _mean([level.tau for level, _ in memory], memory, *_moments(step.dst.tau - step.src.tau))
            return to_eps(mean, x, step.src, "flow")
        if variable == "ratio":
            return _mean([level.ratio for level, _ in memory], memory, *_moments(step.dst.ratio - step.src.ratio))
        if step.dst.sigma == 0:
            return memory[0][1]
        h = math.log(step.dst.ratio / step.src.ratio)
        return _mean([math.log(level.ratio) for level, _ in memory], memory, *_exponential_moments(h))


def _remember(level: Level, answer: Tensor, memory: Memory, keep: int) -> Memory:
    """The memory with a new answer, at most `keep` of them and one for each S."""
    return ((level, answer), *(old for old in memory if old[0].ratio != level.ratio))[:keep]


def _mean(places: Sequence[float], memory: Memory, first: float, second: float) -> Tensor:
    """Mean over the move of the polynomial through two or three answers at `places`, newest first.

    With h_0 = places_0 - places_1 and divided differences e_01, e_012 the polynomial at places_0 + u is
    e_0 + u e_01 + u (u + h_0) e_012; `first` and `second` are the means of u and u^2.
    """
    (_, eps), (_, previous), *oldest = memory
    h0 = places[0] - places[1]
    slope = (eps - previous) / h0
    mean = eps + first * slope
    if oldest:
        earlier = (previous - oldest[0][1]) / (places[1] - places[2])
        mean = mean + (second + first * h0) * (slope - earlier) / (places[0] - places[2])
    return mean


def _moments(h: float) -> tuple[float, float]:
    """Means of u and u^2 over 0..h."""
    return h / 2, h * h / 3


def _exponential_moments(h: float) -> tuple[float, float]:
    """Means of u and u^2 over 0..h under the weight exp(u): that of dS where u is a difference of log S."""
    if h == 0:
        return 0.0, 0.0
    whole = -h / math.expm1(-h)  # h exp(h) / (exp(h) - 1)
    return whole - 1, h * whole - 2 * (whole - 1)


@dataclass(frozen=True)
class DPMSolverPP(Stepper):
    """Multistep DPM-Solver++ in lambda = log(alpha / sigma), up and down (Lu et al. 2022b, alg. 2).

    One evaluation a move; order 1 is DDIM evaluated at the source, order 2 is "DPM-Solver++(2M)". Predicted x0 is not clipped.
    A move from or to a level without noise (lambda infinite) is DDIM's, and an answer from there is not used again.

    Order 3 integrates the quadratic through three answers exactly. diffusers gives its second derivative half that weight,
    which is a method of second order; tests/parity holds both.

    Attributes:
        order: 1, 2 or 3. As for `AdamsBashforth`, the first moves are of lower order.
        solver: How moves of order 2 use the slope: `midpoint` takes its value in the middle of the move (the paper's), `heun`
            integrates it exactly. Names as in diffusers.

    >>> DPMSolverPP()
    DPMSolverPP(order=2, solver='midpoint')
    """

    order: Literal[1, 2, 3] = 2
    solver: Solver = "midpoint"

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ArgumentError(f"expected order 1, 2 or 3, given {self.order}")
        if self.solver not in get_args(Solver):
            raise UnknownNameError("solver", self.solver, get_args(Solver))

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Memory = ()) -> Moved:
        """One evaluation at the source; transfer along eps - (x0_used - x0) / S."""
        eps = denoiser(x, step.src)
        if step.src.sigma == 0:
            return Moved(step, transfer(x, eps, step), eps, state)
        memory = _remember(step.src, to_x0(eps, x, step.src), state, self.order)
        if step.dst.sigma > 0 and step.dst.ratio != step.src.ratio and len(memory) > 1:
            eps = eps - self._change(step, memory) / step.src.ratio
        return Moved(step, transfer(x, eps, step), eps, memory)

    def _change(self, step: Step, memory: Memory) -> Tensor:
        """What the x0 used in the move, D, has over the newest answer m.

        x_dst = (sigma_dst / sigma_src) x - alpha_dst phi_1 D with D = m - (phi_2 h m' - phi_3 h^2 m'') / phi_1, the exact
        integral of exp(lambda) m(lambda) for quadratic m: phi_1 = expm1(-h), phi_2 = phi_1 / h + 1, phi_3 = phi_2 / h - 1/2.
        """
        levels = [-math.log(level.ratio) for level, _ in memory]
        answers = [answer for _, answer in memory]
        h, h0 = -math.log(step.dst.ratio) - levels[0], levels[0] - levels[1]
        slope = (answers[0] - answers[1]) / h0
        if len(memory) == 2 and self.solver == "midpoint":
            return h / 2 * slope
        phi1 = math.expm1(-h)
        phi2 = phi1 / h + 1
        if len(memory) == 2:
            return -phi2 / phi1 * h * slope
        bend = (slope - (answers[1] - answers[2]) / (levels[1] - levels[2])) / (levels[0] - levels[2])
        return (-phi2 * h * (slope + h0 * bend) + (phi2 / h - 0.5) * h * h * 2 * bend) / phi1
