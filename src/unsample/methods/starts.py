"""Where an inversion starts.

The paper's repair is not a method but a start: the first k moves, the ones that spoil the latent, are replaced by forward
diffusion, x_k = alpha_k x0 + sigma_k noise (docs/theory.md, eq. 6). It composes with every method, because a method only
ever sees the moves that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..core.grid import Grid
from ..core.rng import ItemNoise
from ..diagnostics import area_sums, plain_area
from ..errors import ArgumentError

__all__ = ["AUTO_SCORE", "ForwardNoise", "FromImage", "PlainNoise", "Start", "parse_start", "whiteness_scores"]

Climb = Callable[[int], Tensor]

AUTO_FRACTION = 0.1
"""An automatic start tries no more than this share of the moves."""

AUTO_SCORE = 2.236
"""Two scores of true noise both stay below this 95 times in 100: the normal quantile of (1 + 0.95 ** 0.5) / 2."""

AUTO_VALUES = 64
"""Fewer values in plain areas tell nothing of their whiteness."""


@runtime_checkable
class Start(Protocol):
    """Places clean states on a grid."""

    def index(self, grid: Grid) -> int:
        """The level the walk starts from."""

    def candidates(self, grid: Grid) -> Sequence[Start]:
        """The starts to try in turn, until the latent is accepted; the last is taken in any case. Most starts: itself."""

    def accepts(self, images: Tensor, latent: Tensor) -> Tensor:
        """Whether to stay with these latents, per item: Bool (batch,)."""

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """The state at that level. `images` are the pixels behind `x0`; `climb(k)` walks `x0` up to level k by the method."""


@dataclass(frozen=True)
class FromImage:
    """Start at the clean end: the usual inversion."""

    def index(self, grid: Grid) -> int:
        """0."""
        return 0

    def candidates(self, grid: Grid) -> Sequence[Start]:
        """Itself."""
        return (self,)

    def accepts(self, images: Tensor, latent: Tensor) -> Tensor:
        """All."""
        return torch.ones(len(latent), dtype=torch.bool)

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """x0 itself."""
        return x0


@dataclass(frozen=True)
class ForwardNoise:
    """Replace the first k moves by forward diffusion with fresh noise, one draw per item.

    Give exactly one of `steps`, `fraction`, `sigma`.

    Attributes:
        steps: k itself; 0 is the usual inversion, N is noise all the way. "auto" takes the smallest k from 1 on whose latent
            is white where the image is plain: its variance and its lag-1 correlation there lie within what true noise of so
            many values has 95 times in 100 (`whiteness_scores`). Decided per item by inverting: each k that fails costs its
            evaluations. An image with too little plain area to tell stays with 1; after a tenth of the moves no more is tried.
        fraction: k as a share of the grid's moves, rounded, at least 1 (the paper: 0.04, that is 2 of 50).
        sigma: Start from the first level whose sigma is at least this.
        at_next_level: Noise to level k + 1 but step on as if at level k: an off-by-one of published code, for comparison.

    >>> from unsample import Schedule
    >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 50)
    >>> [start.index(grid) for start in (ForwardNoise(steps=3), ForwardNoise(fraction=0.04), ForwardNoise(sigma=0.1))]
    [3, 2, 3]
    """

    steps: int | Literal["auto"] | None = None
    fraction: float | None = None
    sigma: float | None = None
    at_next_level: bool = False

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        return f"ForwardNoise({', '.join(f'{name}={value}' for name, value in shown.items())})"

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.fraction, self.sigma) if value is not None]
        if len(given) != 1:
            raise ArgumentError("ForwardNoise takes exactly one of steps, fraction and sigma; for example steps=2")
        if self.steps not in (None, "auto") and (not isinstance(self.steps, int) or self.steps < 0):
            raise ArgumentError(f"a forward start takes 'auto' or a whole number of steps from 0 on, given {self.steps!r}")
        if self.fraction is not None and not 0 <= self.fraction <= 1:
            raise ArgumentError(f"the fraction of a forward start lies in 0..1, given {self.fraction}")
        if self.sigma is not None and not 0 <= self.sigma < float("inf"):
            raise ArgumentError(f"the sigma of a forward start is a number from 0 on, given {self.sigma}")

    def index(self, grid: Grid) -> int:
        """K on this grid; for "auto" the least it can be."""
        if self.steps is not None:
            k = 1 if self.steps == "auto" else self.steps
        elif self.fraction is not None:
            k = max(1, round(self.fraction * grid.steps)) if self.fraction > 0 else 0
        else:
            k = next((level.index for level in grid.levels if level.sigma >= (self.sigma or 0)), grid.steps + 1)
        if k > grid.steps - self.at_next_level:
            raise ArgumentError(f"{self} asks for level {k} of a grid of {grid.steps} steps; use a smaller start")
        return k

    def candidates(self, grid: Grid) -> Sequence[Start]:
        """Itself; for "auto" 1, 2, 3 ... steps, up to a tenth of the moves."""
        if self.steps != "auto":
            return (self,)
        return tuple(replace(self, steps=k) for k in range(1, max(1, round(AUTO_FRACTION * grid.steps)) + 1))

    def accepts(self, images: Tensor, latent: Tensor) -> Tensor:
        """All; for "auto" those whose plain areas cannot be told from white noise."""
        if self.steps != "auto":
            return torch.ones(len(latent), dtype=torch.bool)
        return whiteness_scores(images, latent.nan_to_num()).abs().amax(1) < AUTO_SCORE

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """alpha_k x0 + sigma_k noise; x0 itself for k = 0. "auto" is placed as its candidates are."""
        k = self.index(grid)
        if k == 0:
            return x0
        level = grid[k + self.at_next_level]
        return level.alpha * x0 + level.sigma * noise.draw(x0.shape, dtype=x0.dtype, device=x0.device)


@dataclass(frozen=True)
class PlainNoise:
    """A spatially adaptive start: fresh noise only where the image is plain, the inverted signal where it has detail.

    The first k moves are made by the method. Then, with n the fresh noise, e = (x_k - alpha_k x0) / sigma_k the noise that the
    inversion implies and m the share of plain pixels among the 3x3 around a pixel, x_k becomes
    alpha_k x0 + sigma_k (m n + (1 - m) e) / sqrt(m^2 + (1 - m)^2), whose noise has variance 1 wherever e has.

    Costs the k evaluations that a forward start saves.

    Attributes:
        steps: k, at least 1.

    >>> parse_start("2@plain")
    PlainNoise(steps=2)
    """

    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ArgumentError(f"an adaptive start takes a whole number of steps from 1 on, given {self.steps!r}")

    def index(self, grid: Grid) -> int:
        """K."""
        return ForwardNoise(steps=self.steps).index(grid)

    def candidates(self, grid: Grid) -> Sequence[Start]:
        """Itself."""
        return (self,)

    def accepts(self, images: Tensor, latent: Tensor) -> Tensor:
        """All."""
        return torch.ones(len(latent), dtype=torch.bool)

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """The blend; k moves of the method."""
        if climb is None or images is None:
            raise ArgumentError("an adaptive start needs the images and the method; invert gives it both")
        level = grid[self.index(grid)]
        implied = (climb(level.index) - level.alpha * x0) / level.sigma
        fresh = noise.draw(x0.shape, dtype=x0.dtype, device=x0.device)
        plain = plain_area(images.clamp(-1, 1), x0)[:, None].to(x0)
        share = torch.nn.functional.avg_pool2d(plain, 3, stride=1, padding=1, count_include_pad=False)
        blend = (share * fresh + (1 - share) * implied) / (share.square() + (1 - share).square()).sqrt()
        return level.alpha * x0 + level.sigma * blend


def whiteness_scores(images: Tensor, latent: Tensor) -> Tensor:
    """How far latents are from white noise where their images are plain: scores of variance and of neighbours, (batch, 2).

    In units of what true noise would do by chance. Over the n values in plain areas (mean square - 1) sqrt(n / 2), and over
    their pairs of touching values the sum of products / sqrt(pairs): both N(0, 1) for true noise and many values, and not
    correlated. Fewer than `AUTO_VALUES` values say nothing and score 0. An automatic start accepts scores of both below
    `AUTO_SCORE`.

    Args:
        images: Pixels in [-1, 1], shape (batch, channels, height, width).
        latent: Their latents; may be smaller than the images.
    """
    sums = area_sums(latent, plain_area(images.clamp(-1, 1), latent))
    enough = (sums.count >= AUTO_VALUES) & (sums.pairs >= AUTO_VALUES)
    count, pairs = np.where(enough, sums.count, 1), np.where(enough, sums.pairs, 1)
    scores = np.stack([(sums.squares / count - 1) * np.sqrt(count / 2), sums.products / np.sqrt(pairs)], axis=1)
    return torch.from_numpy(np.where(enough[:, None], scores, 0.0))


def parse_start(text: str) -> FromImage | ForwardNoise | PlainNoise:
    """A start from what people type: `0`, `2`, `4%`, `sigma=0.1`, `auto`; `2@next` is `at_next_level`, `2@plain` adaptive.

    >>> parse_start("0"), parse_start("4%")
    (FromImage(), ForwardNoise(fraction=0.04))
    """
    amount, at, where = text.strip().partition("@")
    slip = bool(at)
    try:
        if where == "plain":
            return PlainNoise(steps=int(amount))
        if slip and where != "next":
            raise ValueError
        if amount == "auto":
            return ForwardNoise(steps="auto", at_next_level=slip)
        if amount.startswith("sigma="):
            return ForwardNoise(sigma=float(amount.removeprefix("sigma=")), at_next_level=slip)
        if amount.endswith("%"):
            return ForwardNoise(fraction=float(amount.removesuffix("%")) / 100, at_next_level=slip)
        return ForwardNoise(steps=int(amount), at_next_level=slip) if int(amount) != 0 else FromImage()
    except ArgumentError:
        raise
    except ValueError:
        known = "0, 2, 4%, sigma=0.1, auto, 2@plain or 2@next"
        raise ArgumentError(f"expected a forward start like {known}, given {text!r}") from None
