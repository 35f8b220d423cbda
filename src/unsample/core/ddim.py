"""DDIM, down and up.

Down, x is at the noisy end and eps(x_src, t_src) is known: DDIM sampling, explicit (docs/theory.md, eq. 3). Up, the exact
inverse needs eps at the state still to be found (eq. 5); DDIM inversion evaluates the network at the state at hand instead
(eq. 4), and two versions of that are in circulation, with the target's time or the source's. Here it is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from ..errors import UnknownNameError
from .denoiser import Denoiser
from .grid import Step
from .stepper import Moved, Stepper, eps_ahead
from .transfer import transfer

EvalAt = Literal["target", "source", "target_time"]


@dataclass(frozen=True)
class DDIM(Stepper):
    """DDIM with eta = 0; one evaluation a move (Song et al. 2021; Dhariwal and Nichol 2021 for the way up).

    Attributes:
        eval_at: The level at which the network is evaluated on the way up. `target`: where the move goes ("shifted":
            prompt-to-prompt, the diffusers inverse scheduler). `source`: where x is ("matched": guided-diffusion).
            `target_time`: the target's timestep with the source's alpha and sigma, which is how the diffusers inverse
            scheduler converts v and x0 predictions; the same as `target` for a network that predicts eps.
        clip: Clamp predicted x0 to [-clip, clip], as diffusers' `clip_sample` does. Not invertible, so off by default.

    >>> DDIM()
    DDIM(eval_at='target', clip=None)
    """

    eval_at: EvalAt = "target"
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.eval_at not in get_args(EvalAt):
            raise UnknownNameError("eval_at", self.eval_at, get_args(EvalAt))

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: object = ()) -> Moved:
        """One evaluation, one transfer."""
        if not step.is_up or self.eval_at == "source":
            eps = denoiser(x, step.src)
        elif self.eval_at == "target":
            eps = eps_ahead(denoiser, x, step)
        else:
            eps = denoiser(x, replace(step.src, t=step.dst.t))
        return Moved(step, transfer(x, eps, step, self.clip), eps)


Stepper.usual_sampler = DDIM()
