"""Models whose best denoiser is known in closed form: ground truth for tests, and a bench that needs no weights.

For Gaussian data the optimal eps is linear, one gain per mode (docs/theory.md, eq. 7); for a mixture it is a weighted sum of
such terms. Both are presented as a network that takes a timestep, so every method runs on them as on a trained one, in
float64, including methods that evaluate at a level other than the state's. At the timesteps of a table they return eps, at
those of a flow schedule the velocity, E[noise - x0 | x].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..core.model import ClassConditioner, Model
from ..core.prediction import Prediction
from ..core.schedule import AnySchedule, FlowSchedule, Schedule
from ..errors import ArgumentError

LEAST_VARIANCE = 1e-24
"""Stand-in for the variance of a state that has none: data without variance at a level without noise."""


@dataclass(frozen=True, eq=False)
class _Table:
    """Scales at a timestep, looked up in a table or those of a flow schedule."""

    schedule: AnySchedule

    @cached_property
    def alpha_bar(self) -> Tensor:
        assert isinstance(self.schedule, Schedule)
        return torch.tensor(self.schedule.alpha_bar, dtype=torch.float64)

    @property
    def is_flow(self) -> bool:
        return isinstance(self.schedule, FlowSchedule)

    def scales(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_flow:
            sigma = t[:, None].double() / len(self.schedule)
            return 1 - sigma, sigma
        alpha_bar = self.alpha_bar.to(x.device)[t]
        return alpha_bar.sqrt()[:, None], (1 - alpha_bar).sqrt()[:, None]


@dataclass(frozen=True, eq=False)
class _GaussianNetwork(_Table):
    """eps = sigma (alpha^2 C + sigma^2)^-1 (x - alpha mean), in the modes of C; x0 likewise, mean + alpha C (...)."""

    variances: Tensor
    basis: Tensor | None
    mean: Tensor

    def __call__(self, x: Tensor, t: Tensor, condition: None = None) -> Tensor:
        alpha, sigma = self.scales(x, t)
        centred = x.flatten(1).double() - alpha * self.mean
        modes = centred if self.basis is None else centred @ self.basis
        weight = sigma - alpha * self.variances if self.is_flow else sigma
        answer = weight * modes / (alpha**2 * self.variances + sigma**2).clamp_min(LEAST_VARIANCE)
        answer = answer if self.basis is None else answer @ self.basis.T
        return (answer - self.mean if self.is_flow else answer).reshape(x.shape).to(x.dtype)


@dataclass(frozen=True, eq=False)
class _MixtureNetwork(_Table):
    """eps = sigma sum_i r_i (x - alpha mean_i) / (alpha^2 v_i + sigma^2), r the posterior of the component."""

    weights: Tensor
    means: Tensor = field(repr=False)
    variances: Tensor

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        alpha, sigma = self.scales(x, t)
        flat, count = x.flatten(1).double(), len(self.weights)
        variance = (alpha**2 * self.variances + sigma**2).clamp_min(LEAST_VARIANCE)
        offset = flat[:, None, :] - alpha[:, :, None] * self.means
        logits = self.weights.log() - 0.5 * flat.shape[1] * variance.log() - 0.5 * offset.square().sum(-1) / variance
        wanted = condition[:, None] == torch.arange(count, device=x.device)
        logits = logits.masked_fill(~wanted & (condition != count)[:, None], -torch.inf)
        posterior = logits.softmax(dim=1)
        share = posterior / variance
        if self.is_flow:
            velocity = torch.einsum("bk,bkd->bd", share * (sigma - alpha * self.variances), offset) - posterior @ self.means
            return velocity.reshape(x.shape).to(x.dtype)
        return (sigma * torch.einsum("bk,bkd->bd", share, offset)).reshape(x.shape).to(x.dtype)


def _prediction(schedule: AnySchedule) -> Prediction:
    return "flow" if isinstance(schedule, FlowSchedule) else "epsilon"


def gaussian(
    schedule: AnySchedule,
    variances: Tensor | Sequence[float],
    *,
    shape: tuple[int, int, int],
    basis: Tensor | None = None,
    mean: Tensor | float = 0.0,
) -> Model:
    """The exact model of data x0 ~ N(mean, basis diag(variances) basis^T).

    Args:
        schedule: Any trained table, or a flow schedule.
        variances: One per mode, shape (D,), at least 0.
        shape: Channels, height, width, with product D.
        basis: Orthonormal modes as columns, shape (D, D); default is the pixels themselves.
        mean: Scalar or shape (D,).

    >>> model = gaussian(Schedule.from_betas(Schedule.linear_betas()), [0.0, 1.0], shape=(1, 1, 2))
    >>> level = model.grid(10)[5]
    >>> eps = model.denoiser()(torch.ones(1, 1, 1, 2).double() * level.sigma, level)
    >>> round(eps[0, 0, 0, 0].item(), 6)
    1.0
    """
    spread = torch.as_tensor(variances, dtype=torch.float64)
    if spread.shape != (int(np.prod(shape)),) or bool((spread < 0).any()):
        raise ArgumentError(f"expected {int(np.prod(shape))} variances of at least 0, given shape {tuple(spread.shape)}")
    network = _GaussianNetwork(
        schedule, spread, None if basis is None else basis.double(), torch.as_tensor(mean, dtype=torch.float64)
    )
    return Model(network, schedule, shape, _prediction(schedule), name="gaussian")


def mixture(
    schedule: AnySchedule,
    means: Tensor,
    variances: Tensor | Sequence[float],
    *,
    shape: tuple[int, int, int],
    weights: Tensor | Sequence[float] | None = None,
) -> Model:
    """The exact model of a mixture of K isotropic Gaussians; a component is a class, no condition the whole mixture.

    Args:
        schedule: Any trained table, or a flow schedule.
        means: Shape (K, D).
        variances: One per component, shape (K,).
        shape: Channels, height, width, with product D.
        weights: Shares of the components; equal by default.
    """
    count = len(means)
    share = torch.as_tensor([1.0] * count if weights is None else weights, dtype=torch.float64)
    spread = torch.as_tensor(variances, dtype=torch.float64)
    if means.shape != (count, int(np.prod(shape))) or spread.shape != (count,) or share.shape != (count,):
        raise ArgumentError(f"expected means ({count}, {int(np.prod(shape))}) and {count} variances and weights")
    network = _MixtureNetwork(schedule, share / share.sum(), means.double(), spread)
    conditioner = ClassConditioner(tuple(str(i) for i in range(count)), null=count)
    return Model(network, schedule, shape, _prediction(schedule), conditioner=conditioner, name="mixture")


def bench_field(schedule: AnySchedule | None = None) -> tuple[Model, Tensor]:
    """The bench without weights: a 16x16 Gaussian field, smooth on its left half and textured on its right.

    Covariance is block-diagonal: left 0.3 exp(-(d/4)^2 / 2) + 1e-5 on the diagonal, right 0.15 exp(-d^2 / 2) + 0.15 on the
    diagonal, d the distance in pixels. Left half stands for a plain area of a photograph.

    Returns:
        The model (scaled_linear 0.0015-0.0195 unless a schedule is given), and the mask of the left half, shape (16, 16).
    """
    schedule = schedule or Schedule.from_betas(Schedule.scaled_linear_betas(0.0015, 0.0195))
    rows, columns = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    plain = columns < 8
    places = np.stack([rows, columns], -1).reshape(-1, 2)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    left, right = plain.reshape(-1), ~plain.reshape(-1)
    smooth = 0.3 * np.exp(-((distance / 4) ** 2) / 2) + 1e-5 * np.eye(256)
    textured = 0.15 * np.exp(-(distance**2) / 2) + 0.15 * np.eye(256)
    covariance = smooth * np.outer(left, left) + textured * np.outer(right, right)
    variances, basis = np.linalg.eigh(covariance)
    model = gaussian(
        schedule,
        torch.from_numpy(np.maximum(variances, 0.0)),
        shape=(1, 16, 16),
        basis=torch.from_numpy(basis),
    )
    return model, torch.from_numpy(plain)
