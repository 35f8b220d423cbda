"""What a network is taught: noise levels, noisy states, targets, and how much each level counts. Functions of tensors alone.

A state is alpha * x0 + sigma * noise. On a table of betas alpha^2 = alpha_bar and sigma^2 = 1 - alpha_bar, and the target is
the noise (`epsilon`) or alpha * noise - sigma * x0 (`v_prediction`, Salimans and Ho 2022). On the straight paths of flow
matching (Liu et al. 2023; Lipman et al. 2023) alpha = 1 - t, sigma = t, and the target is the velocity noise - x0 (`flow`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from recipe import Recipe
from torch import Tensor

LEVELS = 25
"""Bands of noise levels whose losses are balanced."""

MEMORY = 0.02
"""Share of a new batch in the running mean of a band's loss."""


@dataclass(frozen=True)
class Noising:
    """A noise level per item.

    Attributes:
        alpha, sigma: Scales of image and noise, float32 of shape (B,).
        t: The time that the network is told, (B,): int64 timesteps of a table, or float32 `timesteps` * t of a flow.
        band: Which of `LEVELS` bands of levels it is in, int64 of shape (B,).
    """

    alpha: Tensor
    sigma: Tensor
    t: Tensor
    band: Tensor

    def __getitem__(self, rows: Tensor) -> Noising:
        return Noising(self.alpha[rows], self.sigma[rows], self.t[rows], self.band[rows])


def alpha_bar(recipe: Recipe) -> Tensor:
    """Signal power left after each timestep of the linear table, float32 of shape (timesteps,), from about 1 to about 0."""
    betas = torch.linspace(recipe.beta_start, recipe.beta_end, recipe.timesteps, dtype=torch.float64)
    return (1 - betas).cumprod(0).float()


def generator_of(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The source of all that is random at a step."""
    # On CPUs a generator takes 32 bits of its seed. The runs of two seeds lie far apart in them.
    return torch.Generator(device).manual_seed((seed * 0x9E3779B1 + step) % 2**32)


def draw(recipe: Recipe, step: int, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (count, *shape), places of noise levels (count,) in 0..1 and which labels to drop (count,).

    A pure function of (seed, step), but another one on another kind of device: noise is drawn where it is used. The places are
    stratified: each is uniform, but together they cover the range evenly, which makes the gradient less noisy.
    """
    generator = generator_of(recipe.seed, step, device)
    noise = torch.randn(count, *recipe.shape, generator=generator, device=device)
    within = torch.rand(count, generator=generator, device=device)
    places = (torch.arange(count, device=device) + within) / count
    return noise, places, torch.rand(count, generator=generator, device=device) < recipe.class_drop


def noising(recipe: Recipe, places: Tensor, table: Tensor) -> Noising:
    """The levels at places (B,) in 0..1, from clean to noisy; `table` is `alpha_bar(recipe)`, on the same device."""
    if recipe.prediction == "flow":
        t = recipe.timesteps * places
        return Noising(1 - places, places, t, _band(t, recipe))
    t = (places * recipe.timesteps).long().clamp(max=recipe.timesteps - 1)
    return Noising(table[t].sqrt(), (1 - table[t]).sqrt(), t, _band(t, recipe))


def _band(t: Tensor, recipe: Recipe) -> Tensor:
    return (t * LEVELS // recipe.timesteps).long().clamp(max=LEVELS - 1)


def add_noise(x0: Tensor, noise: Tensor, levels: Noising) -> Tensor:
    """Noisy states of clean ones (B, C, H, W) and unit noise of the same shape."""
    return _each(levels.alpha) * x0 + _each(levels.sigma) * noise


def target_of(prediction: str, x0: Tensor, noise: Tensor, levels: Noising) -> Tensor:
    """What the network is to say of these states, of their shape."""
    if prediction == "epsilon":
        return noise
    if prediction == "flow":
        return noise - x0
    return _each(levels.alpha) * noise - _each(levels.sigma) * x0


def _each(scale: Tensor) -> Tensor:
    return scale[:, None, None, None]


def by_band(losses: Tensor, band: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss of each band, (LEVELS,), 0 where there is no item, and the number of items in it, (LEVELS,)."""
    count = losses.new_zeros(LEVELS).index_add_(0, band, torch.ones_like(losses))
    return losses.new_zeros(LEVELS).index_add_(0, band, losses) / count.clamp(min=1), count


def balance(known: Tensor, losses: Tensor, band: Tensor) -> tuple[Tensor, Tensor]:
    """The running mean of each band's loss with this batch in it, (LEVELS,), and a weight per item, (B,): one over its band's.

    Every level then counts alike. The loss of noise prediction falls by three orders of magnitude from little noise to much;
    left to itself, training neglects the noisy levels, where a small error in the noise is a large one in a sample's colours.
    """
    mean, count = by_band(losses, band)
    moved = torch.where(known == 0, mean, known.lerp(mean, MEMORY))
    known = torch.where(count > 0, moved, known)
    return known, 1 / known[band].clamp(min=1e-8)
