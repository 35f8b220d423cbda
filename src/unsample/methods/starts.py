"""Starts that look at the image: how much forward diffusion each needs, and where; and every start as people type it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.grid import Grid
from ..core.reading import number_of, whole_of
from ..core.rng import ItemNoise
from ..core.schedule import Level
from ..core.specs import Checked
from ..core.starts import PAPER_STEPS, Climb, ForwardNoise, FromImage, Start
from ..diagnostics import area_sums, plain_area
from ..errors import ArgumentError

AUTO_MOVES = (1, 2, 3, 4, 5, 7, 10, 15, 20)
"""An automatic start tries the levels of so many of 50 moves: methods of first order need many where the steps are few."""

AUTO_SCORE = 2.236
"""Two scores of true noise both stay below this 95 times in 100: the normal quantile of (1 + 0.95 ** 0.5) / 2."""

AUTO_VALUES = 64
"""Fewer values in plain areas say nothing about their whiteness."""


@dataclass(frozen=True)
class AutoStart(Checked):
    """Forward diffusion to the lowest level whose latent is white where the image is plain, or else to the whitest.

    White: its variance and its lag-1 correlation there lie within what true noise of so many values has 95 times in 100
    (`whiteness_scores`). The levels are those of 1 to 5, 7, 10, 15 and 20 of 50 moves, whatever the number of moves, as of
    `ForwardNoise(fraction=...)`. Decided per item by inverting: each level that fails costs its evaluations. An image with too
    little plain area to decide stays with the first. Placed by itself it is its first candidate.

    Attributes:
        at_next_level: As for `ForwardNoise`.

    >>> from unsample import Schedule
    >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 10)
    >>> [start.level(grid).t for start in AutoStart().candidates(grid)]
    [0, 20, 40, 60, 80, 120, 180, 280, 380]
    """

    at_next_level: bool = False

    def level(self, grid: Grid) -> Level:
        """The lowest it can be."""
        return self._of(1).level(grid)

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """Forward diffusion to the lowest level."""
        return self._of(1).place(x0, grid, noise)

    def candidates(self, grid: Grid) -> list[ForwardNoise]:
        """The starts to try in turn, until the latent is white; of an image that none makes white the whitest is taken."""
        levels = {ForwardNoise(fraction=k / PAPER_STEPS).level(grid): k for k in AUTO_MOVES}
        fit = [self._of(k) for level, k in levels.items() if level.index + self.at_next_level <= grid.steps]
        return fit or [self._of(1)]

    def scores(self, images: Tensor, latent: Tensor) -> Tensor:
        """How far each item's plain area is from white noise, of which it cannot be told below `AUTO_SCORE`: (batch,)."""
        return whiteness_scores(images, latent.nan_to_num()).abs().amax(1)

    def _of(self, k: int) -> ForwardNoise:
        return ForwardNoise(fraction=k / PAPER_STEPS, at_next_level=self.at_next_level)


@dataclass(frozen=True)
class PlainNoise(Checked):
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
        if self.steps < 1:
            raise ArgumentError(f"an adaptive start takes a whole number of steps from 1 on, given {self.steps}")

    def level(self, grid: Grid) -> Level:
        """Level k of this grid."""
        return ForwardNoise(steps=self.steps).level(grid)

    def place(
        self, x0: Tensor, grid: Grid, noise: ItemNoise, *, images: Tensor | None = None, climb: Climb | None = None
    ) -> Tensor:
        """The blend; k moves of the method."""
        if climb is None or images is None:
            raise ArgumentError("an adaptive start needs the images and the method; invert gives it both")
        level = self.level(grid)
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


def whiteness_text(images: Tensor, latent: Tensor) -> str:
    """What an automatic start sought and reached, for people."""
    scores = whiteness_scores(images, latent).abs().amax(1)
    unknown, white = int((scores == 0).sum()), int((scores < AUTO_SCORE).sum())
    reached = f"reached by {white - unknown} of {len(scores)}"
    missed = f", not by {len(scores) - white}, which got the whitest tried" if white < len(scores) else ""
    few = f", {unknown} with too little plain area to tell kept the lowest" if unknown else ""
    return f"sought: each picture's plain area, by itself, like 95 % of true noise; {reached}{missed}{few}"


def parse_start(text: str) -> FromImage | ForwardNoise | AutoStart | PlainNoise:
    """A start from what people type: `0`, `2`, `4%`, `sigma=0.1`, `auto`; `2@next` is `at_next_level`, `2@plain` adaptive.

    >>> parse_start("0"), parse_start("4%")
    (FromImage(), ForwardNoise(fraction=0.04))
    """
    amount, at, where = text.strip().partition("@")
    slip = bool(at)
    try:
        if where == "plain":
            return PlainNoise(steps=whole_of(amount))
        if slip and where != "next":
            raise ValueError
        if amount == "auto":
            return AutoStart(at_next_level=slip)
        if amount.startswith("sigma="):
            return ForwardNoise(sigma=number_of(amount.removeprefix("sigma=")), at_next_level=slip)
        if amount.endswith("%"):
            return ForwardNoise(fraction=number_of(amount.removesuffix("%")) / 100, at_next_level=slip)
        steps = whole_of(amount)
        return ForwardNoise(steps=steps, at_next_level=slip) if steps != 0 else FromImage()
    except ArgumentError:
        raise
    except ValueError:
        known = "0, 2, 4%, sigma=0.1, auto, 2@plain or 2@next"
        raise ArgumentError(f"expected a forward start like {known}, given {text!r}") from None


def start_text(start: Start) -> str:
    """A start as people type it: `parse_start` reads it back.

    Raises:
        ArgumentError: A start that cannot be typed.

    >>> start_text(ForwardNoise(fraction=0.04)), start_text(FromImage()), start_text(ForwardNoise(steps=2, at_next_level=True))
    ('4%', '0', '2@next')
    """
    steps, fraction, sigma = (getattr(start, name, None) for name in ("steps", "fraction", "sigma"))
    amount = "auto" if isinstance(start, AutoStart) else "0" if isinstance(start, FromImage) else f"{steps}"
    amount = f"sigma={sigma}" if sigma is not None else f"{100 * fraction:.12g}%" if fraction is not None else amount
    slip = "@plain" if isinstance(start, PlainNoise) else "@next" if getattr(start, "at_next_level", False) else ""
    try:
        if parse_start(amount + slip) == start:
            return amount + slip
    except ArgumentError:
        pass
    raise ArgumentError(f"expected a start that can be typed, like 2 or 4%, given {start}")
