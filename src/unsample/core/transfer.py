"""The one equation: a move between two noise levels along a fixed eps.

DDIM with eta = 0 (Song et al. 2021, eq. 12), in both directions and for any alpha and sigma. Sampling and inversion differ
only in the eps that they use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._tensors import as_wide_as, wide
from .grid import Step
from .prediction import held, to_x0
from .schedule import TINY_ALPHA


def transfer(x: Tensor, eps: Tensor, step: Step, clip: float | None = None) -> Tensor:
    """`x` moved from `step.src` to `step.dst` along the noise `eps` (docs/theory.md, eq. 2), in x's dtype.

    It is computed in float64 from a level of tiny alpha or with an eps in float64; in float32 on a device without float64.

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
    src, dst, dtype, eps = held(step.src, x), step.dst, x.dtype, as_wide_as(eps, x)
    if src.alpha < TINY_ALPHA or eps.dtype == torch.float64:
        x, eps = wide(x), wide(eps)
    if clip is not None:
        return (dst.alpha * to_x0(eps, x, src).clamp(-clip, clip) + dst.sigma * eps).to(dtype)
    scale = dst.alpha / src.alpha
    return (scale * x + (dst.sigma - scale * src.sigma) * eps).to(dtype)
