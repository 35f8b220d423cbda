"""The conversion of a network's raw output into eps.

With x = alpha * x0 + sigma * eps, a network may be trained to output eps, x0 ("sample"), v = alpha * eps - sigma * x0
("v_prediction") or the velocity eps - x0 ("flow"). At a known level each determines the others, so `transfer` only ever sees
eps. Where alpha is tiny, eps says little about x0 and is in float64 (`TINY_ALPHA`).
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from ..errors import ArgumentError, UnknownNameError
from .schedule import TINY_ALPHA, Level

__all__ = ["Prediction", "to_eps", "to_velocity", "to_x0"]

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


def to_eps(output: Tensor, x: Tensor, level: Level, prediction: Prediction) -> Tensor:
    """Eps of a network's `output` for state `x` at `level` (docs/theory.md, eq. 8); shapes are equal.

    v is solved with x, so no alpha^2 + sigma^2 = 1 is assumed: eps = (alpha v + sigma x) / (alpha^2 + sigma^2). So is the
    velocity, without alpha + sigma = 1: eps = (x + alpha v) / (alpha + sigma). The result has the dtype of the output, or
    float64 where alpha is below `TINY_ALPHA` and eps is not the output itself.

    Raises:
        ArgumentError: A network that predicts x0 at a level without noise, where eps is not defined.

    >>> import torch
    >>> level = Level(index=1, t=0, alpha=0.8, sigma=0.6)
    >>> x0, eps = torch.tensor(2.0), torch.tensor(5.0)
    >>> x, v = 0.8 * x0 + 0.6 * eps, 0.8 * eps - 0.6 * x0
    >>> round(float(to_eps(v, x, level, "v_prediction")), 4), round(float(to_eps(x0, x, level, "sample")), 4)
    (5.0, 5.0)
    """
    if prediction == "epsilon":
        return output
    if level.alpha < TINY_ALPHA:
        output, x = output.double(), x.double()
    if prediction == "flow":
        return (x + level.alpha * output) / (level.alpha + level.sigma)
    if prediction == "v_prediction":
        norm = level.alpha**2 + level.sigma**2
        return (level.alpha / norm) * output + (level.sigma / norm) * x
    if prediction == "sample":
        if level.sigma == 0:
            raise ArgumentError(
                "a network that predicts x0 has no eps at a level without noise; use eval_at='target', "
                "a forward start, or a grid with clean='first'"
            )
        return (x - level.alpha * output) / level.sigma
    raise UnknownNameError("prediction type", prediction, get_args(Prediction))


def to_x0(eps: Tensor, x: Tensor, level: Level) -> Tensor:
    """The x0 that belongs to `eps` at `level`: (x - sigma * eps) / alpha."""
    return (x - level.sigma * eps) / level.alpha


def to_velocity(eps: Tensor, x: Tensor, level: Level) -> Tensor:
    """The velocity eps - x0 that belongs to `eps` at `level`, in x's dtype: ((alpha + sigma) eps - x) / alpha.

    >>> import torch
    >>> to_velocity(torch.tensor(5.0), torch.tensor(2.75), Level(index=1, t=250.0, alpha=0.75, sigma=0.25))
    tensor(3.)
    """
    wide = eps.double() if level.alpha < TINY_ALPHA else eps
    return (((level.alpha + level.sigma) * wide - x) / level.alpha).to(x.dtype)
