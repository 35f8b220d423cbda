"""The noise prediction of a walk: a function (x, level) -> eps.

A lambda qualifies. Condition, guidance and dtype are bound beforehand, so a method never knows of them. Guidance and counting
are denoisers wrapped around denoisers. A denoiser may state its `cost`, the network evaluations of one call (1 if not).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .._tensors import as_wide_as, brief
from .prediction import Prediction, to_eps
from .schedule import Level


@runtime_checkable
class Denoiser(Protocol):
    """eps of state `x` at `level`: shape and device of `x`, and its dtype or, where alpha is tiny, float64."""

    def __call__(self, x: Tensor, level: Level, /) -> Tensor:
        """The noise prediction."""


@runtime_checkable
class Network(Protocol):
    """A trained network: (x, t of shape (batch,), condition) -> its raw output, in x's dtype."""

    def __call__(self, x: Tensor, t: Tensor, condition: Any, /) -> Tensor:
        """The raw prediction, same shape as `x`."""


def cost_of(denoiser: Denoiser) -> int:
    """Network evaluations of one call."""
    return int(getattr(denoiser, "cost", 1))


@brief
@dataclass(frozen=True)
class NetworkDenoiser:
    """A network with its condition bound and its prediction turned into eps.

    The network is given the timesteps of a table, whole numbers, as torch.long, and those of a flow schedule in x's dtype, at
    least float32. A condition of one row is that of every item. An answer in less than x's precision, as under a caller's
    autocast, is widened at once: the arithmetic between two calls is never autocast's.
    """

    network: Network
    prediction: Prediction
    condition: Any = None

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """One network evaluation."""
        is_whole = isinstance(level.t, (int, np.integer)) and not level.is_flow
        dtype = torch.long if is_whole else torch.promote_types(x.dtype, torch.float32)
        t = torch.full((x.shape[0],), level.t, device=x.device, dtype=dtype)
        output = as_wide_as(self.network(x, t, _rows(self.condition, len(x))), x)
        return to_eps(output, x, level, self.prediction)


def _rows(condition: Any, count: int) -> Any:
    """A condition, one tensor or several by name, with its only row repeated for `count` items."""
    if isinstance(condition, Mapping):
        return {name: _rows(value, count) for name, value in condition.items()}
    if isinstance(condition, Tensor) and condition.ndim and len(condition) == 1:
        return condition.expand(count, *condition.shape[1:])
    return condition


@dataclass(frozen=True)
class Guided:
    """Classifier-free guidance: eps_u + w (eps_c - eps_u). w = 1 is conditional only (docs/theory.md, eq. 9).

    >>> guided = Guided(lambda x, level: 3 * x, lambda x, level: x, guidance=2.0)
    >>> float(guided(torch.tensor(1.0), Level(index=1, t=9, alpha=0.8, sigma=0.6))), guided.cost
    (5.0, 2)
    """

    conditional: Denoiser
    unconditional: Denoiser
    guidance: float

    @property
    def cost(self) -> int:
        """Both branches are evaluated."""
        return cost_of(self.conditional) + cost_of(self.unconditional)

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """The guided eps."""
        eps = self.unconditional(x, level)
        return eps + self.guidance * (self.conditional(x, level) - eps)


class Wrapper:
    """Base class of a denoiser around another, whose cost it has."""

    denoiser: Denoiser

    @property
    def cost(self) -> int:
        """Network evaluations of one call of what it wraps."""
        return cost_of(self.denoiser)


@dataclass
class Counted(Wrapper):
    """Counts network evaluations per item in `nfe`."""

    denoiser: Denoiser
    nfe: int = 0

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """The eps of `denoiser`, counted, in at least x's precision."""
        self.nfe += self.cost
        return as_wide_as(self.denoiser(x, level), x)
