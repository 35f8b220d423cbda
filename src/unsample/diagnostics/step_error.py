"""What a single move of an inversion gets wrong when it starts from the sampler's own state.

The sampler moved from x_t to x_{t-1} along eps(x_t, t); the inversion evaluates eps(x_{t-1}, t) in its place. So errors of
earlier moves do not count, and each step is judged alone. All is kept as sums per image over one area, so that images can be
resampled and no path is held in memory. Step 1 is the inversion's first, next to the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError
from ._checks import Array, Batch, Mask, blocks, check_batch, check_mask, check_same_shape, wide
from .intervals import Pooled

OfTwo = Callable[[Array, Array], Array]

COLUMNS = 6


def step_sums(eps: Batch, guess: Batch, true: Batch, arrived: Batch, mask: Mask | None = None) -> Float[Tensor, "batch 6"]:
    """The sums of one step over the values where `mask` is True, in float64; a row of `StepErrors`.

    Columns: number of values, sum of |eps - guess|, sum of `true` and of its square, sum of `arrived` and of its square.

    Args:
        eps: What the sampler used, eps(x_t, t); [B, C, H, W].
        guess: What the inversion evaluates instead, eps(x_{t-1}, t); the same shape.
        true: x_t, or the noise in it, x_t - alpha_t x_0; the same shape.
        arrived: The same of the state that the inversion's move arrives at.
        mask: Bool[B, H, W]; all pixels if None.

    Raises:
        ArgumentError: Shapes differ, dimensions are wrong, or values are not finite.

    Source: Staniszewski et al. 2024 (arXiv 2410.23530), sec. 3.3, for the error.

    >>> one = torch.ones(1, 1, 2, 2)
    >>> step_sums(one, 3 * one, one, 2 * one).tolist()
    [[4.0, 8.0, 4.0, 4.0, 8.0, 16.0]]
    """
    given = {"eps": eps, "guess": guess, "true": true, "arrived": arrived}
    for name, x in given.items():
        check_batch(x, name)
        check_same_shape(eps, x, ("eps", name))
    mask = check_mask(mask, eps)
    pieces = []
    for part in blocks(len(eps), eps[0].numel()):
        a, b, x, y = (wide(one[part]) for one in given.values())
        inside = mask[part][:, None].to(x).expand_as(x)
        terms = (torch.ones_like(x), (a - b).abs(), x, x * x, y, y * y)
        pieces.append(torch.stack([(term * inside).sum((1, 2, 3)) for term in terms], dim=1))
    return torch.cat(pieces)


@dataclass(frozen=True, eq=False)
class StepErrors:
    """The sums of all steps over one area of each image.

    Attributes:
        sums: [B, N, 6], the columns of `step_sums` for steps 1 to N.

    >>> one = torch.ones(2, 1, 2, 2)
    >>> errors = StepErrors(torch.stack([step_sums(one, 4 * one, one, one), step_sums(one, 2 * one, one, one)], dim=1).numpy())
    >>> [step.value for step in errors.error], errors.share(1).value
    ([3.0, 1.0], 0.75)
    """

    sums: Array

    def __post_init__(self) -> None:
        if self.sums.ndim != 3 or self.sums.shape[2] != COLUMNS:
            raise ArgumentError(f"sums: expected [B, N, {COLUMNS}], given shape {self.sums.shape}; stack rows of step_sums")

    @property
    def steps(self) -> int:
        """Their number N."""
        return int(self.sums.shape[1])

    @property
    def error(self) -> tuple[Pooled, ...]:
        """Each step's xi, the mean of |eps(x_t, t) - eps(x_{t-1}, t)| over the area of all images."""
        return tuple(Pooled(self.sums[:, step, :2], _mean) for step in range(self.steps))

    @property
    def recovered(self) -> tuple[Pooled, ...]:
        """Variance of `arrived` over that of `true` at each step, each about its own mean over the area of all images."""
        return tuple(Pooled(np.delete(self.sums[:, step], 1, axis=1), _recovered) for step in range(self.steps))

    def share(self, first: int, weights: Sequence[float] | None = None) -> Pooled:
        """The part that the first steps have in the sum of xi over all steps.

        Args:
            first: Number of steps, 1 to N.
            weights: What a step's xi is multiplied by; 1 if None.

        Raises:
            ArgumentError: `first` out of range, or not one weight per step.
        """
        weight = np.ones(self.steps) if weights is None else np.asarray(weights, dtype=np.float64)
        if not 1 <= first <= self.steps or weight.shape != (self.steps,):
            raise ArgumentError(
                f"share: expected 1 to {self.steps} first steps and {self.steps} weights, given {first} and {weight.shape}"
            )

        def statistic(totals: Array) -> Array:
            errors = weight * _means(totals, self.steps)
            return np.asarray(errors[..., :first].sum(-1) / errors.sum(-1))

        return Pooled(_flat(self.sums), statistic)

    def error_ratio(self, other: StepErrors, first: int) -> Pooled:
        """Mean xi over the first steps, over that of another area of the same images; NaN if one of them is empty.

        Raises:
            ArgumentError: Not the same images and steps.
        """

        def statistic(here: Array, there: Array) -> Array:
            return np.asarray(here[..., :first].mean(-1) / there[..., :first].mean(-1))

        return self._beside(other, statistic)

    def crossing(self, other: StepErrors) -> Pooled:
        """The first step whose xi is not above that of another area of the same images; N + 1 if there is none.

        NaN where an area is empty.

        Raises:
            ArgumentError: Not the same images and steps.
        """

        def statistic(here: Array, there: Array) -> Array:
            turned = here <= there
            step = np.where(turned.any(-1), turned.argmax(-1) + 1.0, self.steps + 1.0)
            return np.where(np.isnan(here + there).any(-1), np.nan, step)

        return self._beside(other, statistic)

    def _beside(self, other: StepErrors, statistic: OfTwo) -> Pooled:
        if other.sums.shape != self.sums.shape:
            raise ArgumentError(f"expected the same images and steps, given {self.sums.shape} and {other.sums.shape}")
        steps = self.steps

        def joint(totals: Array) -> Array:
            half = totals.shape[-1] // 2
            return statistic(_means(totals[..., :half], steps), _means(totals[..., half:], steps))

        return Pooled(np.concatenate([_flat(self.sums), _flat(other.sums)], axis=1), joint)


def _flat(sums: Array) -> Array:
    """[B, 2 N]: number of values and sum of errors of each step."""
    return sums[:, :, :2].reshape(len(sums), -1)


def _means(totals: Array, steps: int) -> Array:
    """Each step's xi, [..., N]."""
    return _mean(totals.reshape(*totals.shape[:-1], steps, 2))


def _mean(totals: Array) -> Array:
    return np.asarray(totals[..., 1] / totals[..., 0])


def _recovered(totals: Array) -> Array:
    count, total, squares, arrived, arrived_squares = np.moveaxis(totals, -1, 0)
    return np.asarray((arrived_squares / count - (arrived / count) ** 2) / (squares / count - (total / count) ** 2))
