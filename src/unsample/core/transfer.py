"""The one equation: a move between two noise levels along a fixed eps.

DDIM with eta = 0 (Song et al. 2021, eq. 12), in both directions and for any alpha and sigma. Sampling and inversion differ
only in the eps that they use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .grid import Step
from .prediction import to_x0
from .schedule import TINY_ALPHA

__all__ = ["transfer"]


def transfer(x: Tensor, eps: Tensor, step: Step, clip: float | None = None) -> Tensor:
    """`x` moved from `step.src` to `step.dst` along the noise `eps` (docs/theory.md, eq. 2), in x's dtype.

    It is computed in float64 from a level of tiny alpha or with an eps in float64.

    Args:
        x: State at `step.src`, any shape.
        eps: Noise prediction, same shape.
        step: The move.
        clip: Clamp the predicted x0 to [-clip, clip] first, as some samplers do. Such a move cannot be undone.

    >>> import torch
    >>> from unsample import Level
    >>> step = Step(Level(0, 0, 1.0, 0.0), Level(1, 9, 0.8, 0.6))
    >>> transfer(torch.tensor(2.0), torch.tensor(1.0), step)
    tensor(2.2000)
    """
    src, dst = step.src, step.dst
    if x.dtype != torch.float64 and (src.alpha < TINY_ALPHA or eps.dtype == torch.float64):
        return transfer(x.double(), eps.double(), step, clip).to(x.dtype)
    if clip is not None:
        return dst.alpha * to_x0(eps, x, src).clamp(-clip, clip) + dst.sigma * eps
    scale = dst.alpha / src.alpha
    return scale * x + (dst.sigma - scale * src.sigma) * eps
