"""Masks of where an edit may change a picture: from a file, a tensor, or where two conditions disagree (DiffEdit)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from .._arguments import warn
from ..core.batching import batches, broadcast_conditions
from ..core.denoiser import Counted
from ..core.grid import Grid
from ..core.model import Model
from ..core.rng import ItemNoise
from ..diagnostics.regions import resize_mask
from ..errors import ArgumentError, counted
from ..pictures.read import fitted_mask, read_mask
from .door import a_model, read_state, use
from .sources import Conditions, Picture, Size, grid_of

Cells = Bool[Tensor, "batch cell_height cell_width"]
"""Where a state may change."""

Mask = Tensor | Picture
"""True or at least one half where a picture may change; of a picture, white."""

AUTO = "auto"
"""The mask found by `difference_mask`."""

DRAWS, AT, EXTREME, HALF = 10, 0.5, 3.0, 0.5
"""DiffEdit: draws of noise, their level as a share of the moves, the cut-off in units of the map's mean, and the threshold.
As published, but for the cut-off, which is that of diffusers."""


def cells_of(model: Model, mask: Tensor, count: int) -> Cells:
    """A mask of images, one for all or one per image, at the resolution of states."""
    if mask.ndim not in (2, 3) or tuple(mask.shape[-2:]) != model.image_size or mask.shape[:-2] not in ((), (1,), (count,)):
        height, width = model.image_size
        raise ArgumentError(
            f"expected a mask of shape ({height}, {width}) or ({count}, {height}, {width}), given {tuple(mask.shape)}"
        )
    free = mask if mask.dtype == torch.bool else mask >= 0.5
    return resize_mask(free.expand(count, *model.image_size), (model.shape[1], model.shape[2]))


def warn_of_nothing(cells: Cells) -> None:
    """Warn of masks that let nothing change."""
    closed = int((~cells.flatten(1).any(dim=1)).sum())
    if closed:
        which = f"the mask lets nothing change in {closed} of {counted(len(cells), 'picture')}"
        warn(f"{which}: there it is black, or white in less than half of each latent cell")


def mask_tensor(mask: Mask, size: Size) -> Tensor:
    """A mask as a tensor, from a tensor, an array, a PIL image or a file; pictures are cropped and reduced to `size`.

    Raises:
        ImageError: A file that is missing, or not a picture.
        ArgumentError: Something else.
    """
    if isinstance(mask, np.ndarray):
        if mask.dtype != np.uint8:
            return torch.from_numpy(np.ascontiguousarray(mask))
        mask = Image.fromarray(mask if mask.max(initial=0) > 1 else 255 * mask)  # 0 and 1 are no and yes
    if isinstance(mask, Image.Image):
        return fitted_mask(mask, "mask", size)
    if isinstance(mask, (str, Path)):
        return read_mask(mask, size)
    if not isinstance(mask, Tensor):
        raise ArgumentError(f"expected a mask as a tensor, an array, a PIL image or a file, given {type(mask).__name__}")
    return mask


@use({"model": a_model, "clean": read_state})
def difference_mask(
    model: Model,
    clean: Tensor,
    *,
    to: Conditions,
    source: Conditions = None,
    steps: int = 50,
    draws: int = DRAWS,
    seed: int = 0,
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    grid: Grid | None = None,
) -> tuple[Cells, int]:
    """Where two conditions disagree about noised states, and the evaluations per item that it took: two per draw.

    The states are noised to half of the levels, |eps_to - eps_source| is averaged over channels and draws, cut off at three
    times its mean, divided by its largest value, and compared with one half (DiffEdit, Couairon et al. 2023, step 1; the
    cut-off is from diffusers). Empty where the conditions are the same.

    Args:
        model: As for `edit`.
        clean: Clean states, shape (batch, *model.shape): the images, or their latents.
        to: The condition of the edit.
        source: The condition of the images.
        steps: N; ignored when `grid` is given.
        draws: How many draws of noise.
        seed: For the noise, together with `items`.
        items: One id per state; defaults to 0, 1, 2, ...
        batch_size: Items per network call; all at once by default.
        grid: The levels; default is the model's own.
    """
    grid, count = grid_of(model, steps, grid), len(clean)
    if clean.shape[1:] != model.shape or not count:
        raise ArgumentError(f"expected clean states of shape (batch, *{model.shape}), given {tuple(clean.shape)}")
    level, noise = grid[max(1, round(AT * grid.steps))], ItemNoise(seed, list(range(count)) if items is None else list(items))
    wanted, away = broadcast_conditions(to, count), broadcast_conditions(source, count)
    parts, nfe = [], 0
    for rows in batches(count, batch_size):
        x0 = clean[rows].to(model.device)
        towards, from_ = (Counted(model.denoiser(each and each[rows])) for each in (wanted, away))
        total, drawn = torch.zeros_like(x0[:, 0]), ItemNoise(noise.seed, noise.items[rows])
        for draw in range(draws):
            fresh = drawn.draw(x0.shape, stream=f"mask {draw}", dtype=x0.dtype, device=x0.device)
            x = level.alpha * x0 + level.sigma * fresh
            total += (towards(x, level) - from_(x, level)).abs().mean(1).to(total)
        most = torch.minimum(EXTREME * total.mean((1, 2)), total.amax((1, 2)))[:, None, None]
        parts.append((total.minimum(most) >= HALF * most) & (most > 0))
        nfe = towards.nfe + from_.nfe
    return torch.cat(parts), nfe
