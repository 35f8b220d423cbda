"""The conversion of a network's raw output into eps.

With x = alpha * x0 + sigma * eps, a network may be trained to output eps, x0 ("sample"), v = alpha * eps - sigma * x0
("v_prediction") or the velocity eps - x0 ("flow"). At a known level each determines the others, so `transfer` only ever sees
eps. Where alpha is tiny, eps says little about x0 and is in float64 (`TINY_ALPHA`), or alpha is not quite as tiny (`held`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor

from .._tensors import has_float64, wide
from ..errors import ArgumentError, UnknownNameError
from .schedule import TINY_ALPHA, Level

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]

LEAST_IN_SINGLE = 2.0**-12
"""The least alpha where float32 is all there is: x0 is wrong by about this much for want of signal, and by float32 rounding
over this much, which is as much again."""


def held(level: Level, x: Tensor) -> Level:
    """The level as the device of `x` can hold it: itself, but for a tiny alpha on a device without float64 (Apple's MPS).

    There alpha is `LEAST_IN_SINGLE`: eps in float32 would say nothing of x0 at a flow model's t = 1.
    """
    if level.alpha >= LEAST_IN_SINGLE or has_float64(x):
        return level
    alpha = LEAST_IN_SINGLE
    return replace(level, alpha=alpha, sigma=1 - alpha if level.is_flow else math.sqrt(1 - alpha**2))


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
        level, output, x = held(level, x), wide(output), wide(x)
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
    level = held(level, x)
    return (x - level.sigma * eps) / level.alpha


def to_velocity(eps: Tensor, x: Tensor, level: Level) -> Tensor:
    """The velocity eps - x0 that belongs to `eps` at `level`, in x's dtype: ((alpha + sigma) eps - x) / alpha.

    >>> import torch
    >>> to_velocity(torch.tensor(5.0), torch.tensor(2.75), Level(index=1, t=250.0, alpha=0.75, sigma=0.25))
    tensor(3.)
    """
    level, exact = (held(level, x), wide(eps)) if level.alpha < TINY_ALPHA else (level, eps)
    return (((level.alpha + level.sigma) * exact - x) / level.alpha).to(x.dtype)
