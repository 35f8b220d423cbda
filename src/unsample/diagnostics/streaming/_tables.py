"""What a diagnosis is summed from: statistics of each image as tables, and what is made of their totals."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ..._tensors import Images
from .. import fidelity
from .._checks import Latent, PerImage
from ..diagnosis import LOW_ROW, NORMAL_ROW, latent_statistics
from ..intervals import Pooled, ratio
from ..normality import FEWEST, shapiro_wilk
from ..regions import area_sums, plain_mask
from ..spectrum import low_frequency_power
from ._totals import Statistic

NULL = "noise: "
"""What the names of the sums over true noise begin with."""

LEVEL = 0.05
"""Of the test of normality."""


def other_statistics(latent: Latent, images: Images | None, reconstruction: Images | None) -> dict[str, Pooled]:
    """The statistics that true noise needs no sums for: its law is known, or it has none."""
    each: dict[str, Pooled] = {LOW_ROW: low_frequency_power(latent)}
    if latent[0].numel() >= FEWEST:
        each[NORMAL_ROW] = _mean((shapiro_wilk(latent).p < LEVEL).double())
    if images is None:
        return each
    plain = plain_mask(images)
    each["plain fraction"] = _mean(plain.double().mean((1, 2)))
    if reconstruction is not None:
        error = (images.detach() - reconstruction.detach()).abs()
        each["MAE"] = _mean(fidelity.mae(images, reconstruction))
        each["MAE plain"] = area_sums(error, plain).pooled("mean")
        each["PSNR"] = _mean(fidelity.psnr(images, reconstruction))
        if min(images.shape[2:]) >= fidelity.SSIM_SIDE:
            each["SSIM"] = _mean(fidelity.ssim(images, reconstruction))
    return each


def _mean(values: PerImage) -> Pooled:
    """The mean of one value per image."""
    column = values.cpu().double().numpy()
    return Pooled(np.stack([column, np.ones_like(column)], axis=-1), ratio)


def of_totals(shape: tuple[int, ...], names: Iterable[str]) -> dict[str, Statistic]:
    """From totals to a value, by the name of the row; as `latent_statistics` and `other_statistics` have them."""
    area = torch.ones(1, *shape[1:], dtype=torch.bool, device="cpu")
    of_latents = latent_statistics(torch.zeros(1, *shape, device="cpu"), {"": area, " plain": area, " other": area}, 0.0)
    known = {name: each.statistic for name, each in of_latents.items()}
    known["MAE plain"] = area_sums(torch.zeros(1, 1, 2, 2, device="cpu")).pooled("mean").statistic
    return {name: known.get(name, ratio) for name in names if not name.startswith(NULL)}
