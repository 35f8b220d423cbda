"""Photographs beside their latents, row by row, and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .._tensors import brief
from ..diagnostics import excess_variance, plain_mask, true_noise
from ._canvas import COLUMNS, columns_of, panels, png, say_left_out, short, show_images
from .read import to_bytes

Pixels = npt.NDArray[Any]
Cell = tuple[Pixels, dict[str, Any]]

EXCESS_RANGE = 1.0
"""Colour range of the excess-variance maps: from -1 (no noise at all) through 0 (true noise) to +1."""

WINDOW = 5
"""Side of the window of those maps, in cells."""

CELL, AROUND = 1.25, 0.95
"""Inches: the height of a square photograph with its gap, and what titles and the colour scale take."""

ROWS, INVERSIONS, SHEET = 8, 8, 64
"""Photographs and inversions drawn on an overview, and images on a sheet, at most."""


@brief
@dataclass(frozen=True, eq=False)
class LatentColumns:
    """The latents of the photos of an overview by one method and, if they were sampled back, reconstructions."""

    title: str
    latent: Tensor
    reconstruction: Tensor | None = None


def overview(photos: Tensor, names: Sequence[str], inversions: Sequence[LatentColumns], *, rows: int = ROWS) -> bytes:
    """Photo, plain area, then latent, excess variance and reconstruction of each inversion, and true noise; as PNG bytes.

    Args:
        photos: Shape (batch, channels, height, width) in [-1, 1].
        names: One per photo.
        inversions: What to show side by side.
        rows: At most so many photos are drawn; of inversions at most 8.
    """
    count, every, inversions = min(rows, len(photos)), len(inversions), inversions[:INVERSIONS]
    noise = LatentColumns("true noise", true_noise(tuple(inversions[0].latent[:count].shape)))
    columns = ["photo", "where it is plain"]
    for one in (*inversions, noise):
        columns += [f"{one.title}\nlatent", "its variance - 1", *(["sampled back"] if one.reconstruction is not None else [])]
    figure, axes, canvas = panels(count, len(columns))
    said = say_left_out(figure, (count, len(photos), "pictures"), (len(inversions), every, "inversions"))
    figure.set_layout_engine("compressed")  # no gaps between pictures that keep their shape
    figure.set_figheight(count * CELL * photos.shape[-2] / photos.shape[-1] + AROUND + said)
    masks = plain_mask(photos[:count])
    for row in range(count):
        cells: list[Cell] = [(to_bytes(photos[row]), {}), (plain_picture(photos[row], masks[row]), {})]
        cells += [cell for one in (*inversions, noise) for cell in _cells(one, row)]
        for axis, (pixels, how) in zip(axes[row], cells, strict=True):
            drawn = axis.imshow(pixels, interpolation="nearest", **how)
            if how:
                scale = drawn
        axes[row][0].set_ylabel(short(names[row]), fontsize=9)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=9)
    ticks = (-EXCESS_RANGE, 0, EXCESS_RANGE)
    bar = figure.colorbar(scale, ax=axes.ravel().tolist(), location="bottom", fraction=0.015, pad=0.01, aspect=60, ticks=ticks)
    bar.set_label(
        "local variance of the latent - 1:   blue, too little noise;   white, like true noise;   red, too much", fontsize=9
    )
    return png(figure, canvas)


def _cells(inversion: LatentColumns, row: int) -> list[Cell]:
    """A latent, the map of its excess variance and, if there is one, its reconstruction, with how each is drawn."""
    latent = inversion.latent[row : row + 1].float().cpu()
    excess = excess_variance(latent, window=WINDOW)[0].numpy()
    cells: list[Cell] = [
        (latent_picture(latent[0]), {}),
        (excess, {"cmap": "RdBu_r", "vmin": -EXCESS_RANGE, "vmax": EXCESS_RANGE}),
    ]
    return cells if inversion.reconstruction is None else [*cells, (to_bytes(inversion.reconstruction[row]), {})]


def sheet(images: Tensor, titles: Sequence[str] | None = None, *, columns: int = 8) -> bytes:
    """The first images side by side, shape (batch, channels, height, width) in [-1, 1]; as PNG bytes."""
    count, shown = len(images), images[:SHEET]
    rows, across = columns_of(len(shown), min(columns, COLUMNS))
    figure, axes, canvas = panels(rows, across)
    height, width = images.shape[-2:]
    said = say_left_out(figure, (len(shown), count, "images"))
    figure.set_figheight(rows * (1.3 * height / width + 0.2 * bool(titles)) + 0.1 + said)
    show_images(axes, shown, dict(enumerate(titles or ())))
    return png(figure, canvas)


def latent_picture(latent: Tensor) -> Pixels:
    """A latent of shape (channels, height, width) as RGB: +-3 standard deviations of true noise fill the range.

    More than three channels are projected on their three principal components.
    """
    values = latent.detach().float().cpu()
    if values.shape[0] == 2 or values.shape[0] > 3:
        flat = values.flatten(1) - values.flatten(1).mean(1, keepdim=True)
        basis = np.linalg.svd(flat.numpy(), full_matrices=False)[0][:, :3]
        values = values.new_tensor(basis.T @ flat.numpy()).reshape(-1, *values.shape[1:])
    return to_bytes(values / 3)


def plain_picture(photo: Tensor, mask: Tensor) -> Pixels:
    """A photo of shape (channels, height, width) in grey, the area where `mask` is True in blue."""
    pixels = to_bytes(photo.cpu()).astype(np.float64)
    inside = mask.cpu().numpy()[..., None]
    grey = 255 - (255 - pixels.mean(-1, keepdims=True)) * 0.35
    return np.where(inside, 0.35 * pixels + 0.65 * np.array([40, 90, 200]), grey).astype(np.uint8)
