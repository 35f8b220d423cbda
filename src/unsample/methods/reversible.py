"""Reversible methods: a walk down from the memory of a walk up returns to its start, up to rounding.

Each keeps a second tensor and can solve its move for what the move replaced, evaluating the network only at what is still
there: no equation is left to iterate. The memory, `Moved.state`, and what is kept of it, tensors with one row per item:

- `EDICT`: (y,), a twin of x at the same level.
- `BDIA`, `OBELM`: (x', level'), the neighbouring state that x came from and its level; kept as (x', alpha', sigma').

A walk turns around at any level, up or down, when the next one is given that memory:
`walk(denoiser, moved.x, grid.down(i), method, state=moved.state)`. `BDIA` and `OBELM` then look the first move up. A walk
without memory is that of any method: `EDICT` starts with two equal twins, the others with a move of DDIM evaluated at the
source.

Exact means undone, not accurate: the latent is no whiter for it, and a forward start composes. It needs the memory: sampling
from the latent alone is a reconstruction like any other, and a poor one for `BDIA` and `OBELM` with few moves on a trained
network, where on the way up their errors swing from move to move without dying out.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.denoiser import Denoiser
from ..core.grid import Step
from ..core.prediction import to_eps, to_velocity
from ..core.schedule import Level
from ..core.stepper import Moved, Stepper
from ..core.transfer import transfer
from ..errors import ArgumentError

Tensors = tuple[Tensor, ...]
Memory = tuple[Any, ...]
"""Nothing; or a state and its level; or, as it was kept, a state and rows of its level's alpha and sigma."""


@dataclass(frozen=True)
class EDICT(Stepper):
    """Two coupled states, each moved along the eps of the other and then mixed (Wallace et al. 2023).

    Two evaluations a move, both at the noisier of the two levels, so never the clean one. The twins change roles from move
    to move. Down, mixing keeps them together; up, it is undone and drives them apart by 1/p^2 a move. p = 0.93 is the paper's
    choice for 50 moves; for N moves take 0.93 ** (50 / N): with 0.93 and N = 200, latents are hundreds of times too large.

    Attributes:
        p: Weight of mixing, in (0, 1]; 1 is no mixing.

    >>> EDICT(), EDICT.reversible
    (EDICT(p=0.93), True)
    """

    p: float = 0.93
    reversible: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ArgumentError(f"expected a mixing weight p in (0, 1], given {self.p}")

    def kept(self, state: Tensors) -> Tensors:
        """The twin, which is all of the memory."""
        return state

    def evaluations(self, moves: int) -> int:
        """One for each twin, every move."""
        return 2 * moves

    def init(self, x: Tensor) -> Tensors:
        """The twin starts equal to x."""
        return (x,)

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Tensors = ()) -> Moved:
        """Up undoes down line by line, in reverse order."""
        swapped = max(step.src.index, step.dst.index) % 2 == 1
        first, second = (state[0], x) if swapped else (x, state[0])
        if step.is_up:
            second = (second - (1 - self.p) * first) / self.p
            first = (first - (1 - self.p) * second) / self.p
            of_first = denoiser(first, step.dst)
            second = transfer(second, of_first, step)
            of_second = denoiser(second, step.dst)
            first = transfer(first, of_second, step)
        else:
            of_second = denoiser(second, step.src)
            first = transfer(first, of_second, step)
            of_first = denoiser(first, step.src)
            second = transfer(second, of_first, step)
            first = self.p * first + (1 - self.p) * second
            second = self.p * second + (1 - self.p) * first
        return Moved(step, second, of_first, (first,)) if swapped else Moved(step, first, of_second, (second,))


class _TwoStep(Stepper):
    """A method whose moves look back at the neighbour that x came from. The look-up of a turn costs no evaluation."""

    reversible: ClassVar[bool] = True

    def kept(self, state: Memory) -> Tensors:
        """The neighbour, and rows of its level's scales; those on the CPU."""
        if not state or isinstance(state[1], Tensor):
            return state
        before, level = state
        scales = torch.tensor([level.alpha, level.sigma], dtype=torch.float64, device="cpu")
        return (before, *scales[:, None].repeat(1, len(before)))

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Memory = ()) -> Moved:
        """One evaluation at the source; without a neighbour a move of DDIM."""
        if turned := _known(x, step, state):
            return turned
        eps = denoiser(x, step.src)
        if step.src.ratio == step.dst.ratio:
            return Moved(step, transfer(x, eps, step), eps, state)
        there, eps = self._moved(x, eps, step, *_neighbour(state)) if state else (transfer(x, eps, step), eps)
        return Moved(step, there, eps, (x, step.src))

    @abstractmethod
    def _moved(self, x: Tensor, eps: Tensor, step: Step, before: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """The state at `step.dst`, and the eps of the move; `before` is the neighbour at `level`."""


@dataclass(frozen=True)
class BDIA(_TwoStep):
    """Bidirectional integration: x_{i-1} = gamma x_{i+1} + D(i to i-1) - gamma D(i to i+1), with DDIM's moves D from x_i.

    One evaluation a move, at x_i (Zhang et al. 2024). Up, the equation is solved for x_{i+1}, which divides by gamma: the
    method's own error and rounding grow by 1/gamma a move, 2^N for gamma = 0.5. Only gamma = 1 is stable up.

    Attributes:
        gamma: In (0, 1].

    >>> BDIA(), BDIA(gamma=0.5).order
    (BDIA(gamma=1.0), 1)
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ArgumentError(f"expected gamma in (0, 1], given {self.gamma}")

    @property
    def order(self) -> int:
        """Second order for gamma = 1, first order below."""
        return 2 if self.gamma == 1 else 1

    def _moved(self, x: Tensor, eps: Tensor, step: Step, before: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        gap = before - transfer(x, eps, Step(step.src, level))
        return transfer(x, eps, step) + (gap / self.gamma if step.is_up else gap * self.gamma), eps


@dataclass(frozen=True)
class OBELM(_TwoStep):
    """O-BELM, the most accurate of the two-step formulas that can be run both ways (Wang et al. 2024).

    One evaluation a move, at x. With h = S_dst - S_src and g = S_src - S_before, for x over alpha:
    x_dst = x + (h/g)^2 (x_before - x) + h (g + h) / g eps; solved for x_before it is the same formula. As `transfer`,
    eps' = (h/g^2) (x_before - x) + (1 + h/g) eps. On a flow model, whose last S is without bound, it is that for x in t, with
    the velocity.

    >>> OBELM().order, OBELM().evaluations(10)
    (2, 10)
    """

    order: ClassVar[int] = 2

    def _moved(self, x: Tensor, eps: Tensor, step: Step, before: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        src = step.src
        if src.is_flow:
            h, g = step.dst.sigma - src.sigma, src.sigma - level.sigma
            velocity = h / g**2 * (before - x) + (1 + h / g) * to_velocity(eps, x, src)
            eps = to_eps(velocity, x, src, "flow")
        else:
            h, g = step.dst.ratio - src.ratio, src.ratio - level.ratio
            eps = h / g**2 * (before / level.alpha - x / src.alpha) + (1 + h / g) * eps
        return transfer(x, eps, step), eps


def _neighbour(state: Memory) -> tuple[Tensor, Level]:
    """The state before and its level; of a level that was kept only the scales, and reading them waits for the device."""
    if isinstance(state[1], Level):
        return state
    before, alpha, sigma = state
    return before, Level(-1, -1, float(alpha[0]), float(sigma[0]))


def _known(x: Tensor, step: Step, state: Memory) -> Moved | None:
    """The move of a turn, to the remembered neighbour; None if the walk goes on.

    A move between levels of equal S leads nowhere: it leaves the memory alone and is no turn.
    """
    if not state or step.src.ratio == step.dst.ratio:
        return None
    before, level = _neighbour(state)
    if (level.alpha, level.sigma) != (step.dst.alpha, step.dst.sigma):
        return None
    eps = (before / step.dst.alpha - x / step.src.alpha) / (step.dst.ratio - step.src.ratio)
    return Moved(step, before, eps, (x, step.src))
