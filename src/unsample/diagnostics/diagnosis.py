"""Every diagnostic of a latent in one table, each beside its value on true noise of the same shape and in the same areas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from jaxtyping import Bool, Float
from torch import Tensor

from .._arguments import takes, whole
from .._tensors import Images
from ..errors import ArgumentError
from . import fidelity
from ._checks import Batch, Latent, Mask, PerImage, check_batch, check_image_pair, check_images, check_same_shape
from .correlation import MIN_IMAGES, TOP, correlation_floor, has_pairs, top_k_jackknife, window_values
from .gaussianity import kl_per_coordinate, pooled_moments
from .geometry import triangle
from .intervals import FEWEST_IMAGES, Pooled
from .normality import FEWEST, normality_rejection, rejection_null
from .null import Null, null, nulls, student_reach
from .regions import area_sums, plain_area, plain_mask
from .row import PATCH_ROW, Diagnosis, Row
from .spectrum import low_frequency_null, low_frequency_power

Areas = Mapping[str, Bool[Tensor, "batch area_height area_width"] | None]
Noise = Float[Tensor, "noise_batch noise_channels noise_height noise_width"]

JACKKNIFE_GROUPS = 10
LARGEST_SEED = 2**63 - 1  # of torch
KL_ROW = "KL to N(0, 1)"
COORDINATE_ROW = "KL per coordinate"
LOW_ROW, LOW_NOTE = "low-frequency power", "below a quarter of the highest frequency"
NORMAL_ROW, NORMAL_NOTE = "normality rejected", "share of latents, Shapiro-Wilk at 5 %"
KL_NOTE, PAIR_NOTE, PLAIN_NOTE = "nats, from mean and variance alone", "of images in [-1, 1]", "of the images' pixels"
FLOOR_NOTE = "true noise is the floor at this number of images"


@takes({"seed": whole(0, LARGEST_SEED), "null_draws": whole(2)})
def diagnose(
    latent: Latent,
    *,
    images: Images | None = None,
    reconstruction: Images | None = None,
    codec: Images | None = None,
    noise: Noise | None = None,
    seed: int = 0,
    null_draws: int = 8,
) -> Diagnosis:
    """All diagnostics of `latent`, each beside its value on true noise; no model is needed, and none is called.

    Args:
        latent: [B, C, h, w], as an inversion returns it.
        images: [B, 3, H, W] in [-1, 1], what was inverted. Splits the statistics into plain and other areas; at a size other
            than the latent's, the areas are resized to it.
        reconstruction: As `images`, which it needs: adds MAE (in units of [-1, 1]), PSNR and SSIM.
        codec: As `images`, what encoding and decoding alone make of them: adds its PSNR, the bound of any reconstruction's.
        noise: As `latent`, what the images were sampled from: adds the error of the latent, and the triangle's angle at it if
            images have the latent's shape. Their null is another draw of noise in the latent's place.
        seed: Of the bootstrap and of the noise of the null.
        null_draws: Batches of true noise for the null, two or more.

    Raises:
        ArgumentError: Wrong dimensions, shapes that differ, values that are not finite or not images, or a reconstruction
            without images.

    >>> from unsample.diagnostics import true_noise
    >>> diagnosis = diagnose(true_noise((8, 3, 16, 16)))
    >>> [row.name for row in diagnosis.rows][:5]
    ['mean', 'std', 'lag-1', 'excess kurtosis', 'KL to N(0, 1)']
    >>> diagnosis["top-20 patch correlation"].note
    'needs at least 32 images, given 8'
    """
    _check(latent, images, reconstruction, noise)
    if codec is not None and reconstruction is None:
        raise ArgumentError("codec: expected with images and a reconstruction, which it bounds; pass them as well")
    areas = latent_areas(latent, images)
    rows = [*_latent_rows(latent, areas, seed, null_draws), *_shape_rows(latent, seed), patch_row(latent, seed)]
    if noise is not None:
        rows += _noise_rows(latent, noise, areas, seed, null_draws)
        rows += _angle_row(latent, noise, images, seed, null_draws)
    if images is not None:
        plain = plain_mask(images)
        rows.append(Row.over_images("plain fraction", plain.double().mean((1, 2)), seed=seed, note=PLAIN_NOTE))
        if reconstruction is not None:
            rows += _fidelity_rows(images, reconstruction, plain, seed)
            if codec is not None:
                check_same_shape(images, codec, ("images", "codec"))
                bound = fidelity.psnr(images, codec)
                rows.append(Row.over_images("PSNR of the codec", bound, seed=seed, note="dB, of encoding and decoding alone"))
    return Diagnosis(len(latent), tuple(rows))


def _check(latent: Latent, images: Images | None, reconstruction: Images | None, noise: Noise | None) -> None:
    check_batch(latent, "latent")
    if noise is not None:
        check_batch(noise, "noise")
        check_same_shape(latent, noise, ("latent", "noise"))
    if images is not None:
        check_images(images, "images")
        if len(images) != len(latent):
            raise ArgumentError(f"expected one image per latent, given {len(images)} and {len(latent)}; pair them")
    if reconstruction is not None:
        if images is None:
            raise ArgumentError("reconstruction: expected with images, given without; pass images= as well")
        check_image_pair(images, reconstruction)


def latent_areas(latent: Latent, images: Images | None) -> Areas:
    """Suffix of the row's name -> mask: plain and other areas of images, or all."""
    if images is None:
        return {"": None}
    plain = plain_area(images, latent)
    return {" plain": plain, " other": ~plain}


def latent_statistics(x: Batch, areas: Areas, pivot: float | None = None) -> dict[str, Pooled]:
    """The statistics that are functions of sums over images, by the name of their row; `pivot` as `pooled_moments` has it."""
    whole = pooled_moments(x, pivot)
    sums = {suffix: area_sums(x, mask) for suffix, mask in areas.items()}
    return {
        "mean": whole["mean"],
        **{"std" + suffix: area.pooled("std") for suffix, area in sums.items()},
        **{"lag-1" + suffix: area.pooled("lag1") for suffix, area in sums.items()},
        "excess kurtosis": whole["kurtosis"],
        KL_ROW: whole["kl"],
    }


def _latent_rows(latent: Latent, areas: Areas, seed: int, null_draws: int) -> list[Row]:
    def values(x: Tensor) -> dict[str, float]:
        pooled = {name: each.value for name, each in latent_statistics(x, areas).items()}
        return {**pooled, COORDINATE_ROW: _coordinate_kl(x)}

    null, note = nulls(values, latent.shape, null_draws, seed, device=latent.device), KL_NOTE
    rows = [_pooled_row(name, each, seed, null[name]) for name, each in latent_statistics(latent, areas).items()]
    rows.append(Row(COORDINATE_ROW, _coordinate_kl(latent), null=null[COORDINATE_ROW]))
    if len(latent) < 2:
        return [*rows[:-1], replace(rows[-1], note="needs at least 2 images")]
    return [replace(row, note=note) if row.name in (KL_ROW, COORDINATE_ROW) else row for row in rows]


def _coordinate_kl(x: Tensor) -> float:
    return float(kl_per_coordinate(x).mean()) if len(x) > 1 else math.nan


def _shape_rows(latent: Latent, seed: int) -> list[Row]:
    """Power at low frequencies, and the test of each latent's values against the normal distribution."""
    power, note = low_frequency_power(latent), LOW_NOTE
    rows = [_pooled_row(LOW_ROW, power, seed, low_frequency_null(latent.shape), note)]
    if latent[0].numel() < FEWEST:
        return [*rows, Row(NORMAL_ROW, math.nan, note=f"needs at least {FEWEST} values an image")]
    share = normality_rejection(latent)
    null, note = rejection_null(len(latent)), NORMAL_NOTE
    if len(latent) < FEWEST_IMAGES:
        return [*rows, Row(NORMAL_ROW, share.estimate, null=null, note=note)]
    return [*rows, Row.from_interval(NORMAL_ROW, share, null, note)]


def _noise_rows(latent: Latent, noise: Latent, areas: Areas, seed: int, null_draws: int) -> list[Row]:
    """How far the latent is from the noise it should be."""

    def pooled(x: Tensor) -> dict[str, Pooled]:
        error = (x - noise).abs()
        return {f"error{suffix}": area_sums(error, mask).pooled("mean") for suffix, mask in areas.items()}

    def values(x: Tensor) -> dict[str, float]:
        return {name: each.value for name, each in pooled(x).items()}

    null, note = nulls(values, latent.shape, null_draws, seed, device=latent.device), "mean |latent - noise|"
    return [_pooled_row(name, each, seed, null[name], note) for name, each in pooled(latent).items()]


def _angle_row(latent: Latent, noise: Latent, images: Images | None, seed: int, null_draws: int) -> list[Row]:
    """The triangle's angle at the latent, where image, noise and latent can be compared."""
    if images is None or images.shape != latent.shape:
        return []

    def angles(x: Tensor) -> PerImage:
        return triangle(images, noise, x).at_latent

    expected = null(lambda x: float(angles(x).mean()), latent.shape, null_draws, seed, device=latent.device)
    note = "degrees, between noise and image"
    return [Row.over_images("angle at the latent", angles(latent), seed=seed, null=expected, note=note)]


def patch_row(latent: Latent, seed: int = 0) -> Row:
    """`top_k_jackknife` with its 95 % interval and its floor; NaN with the reason where there is none.

    >>> from unsample.diagnostics import true_noise
    >>> patch_row(true_noise((40, 1, 8, 8))).is_noise
    True
    """
    n = len(latent)
    if n < MIN_IMAGES:
        return Row(PATCH_ROW, math.nan, note=f"needs at least {MIN_IMAGES} images, given {n}")
    if not has_pairs(latent.shape[1:]):
        values = window_values(latent.shape[1:])
        return Row(PATCH_ROW, math.nan, note=f"needs windows of at least {TOP} pairs, given {values} values")
    top = top_k_jackknife(latent, groups=JACKKNIFE_GROUPS)
    reach = student_reach(JACKKNIFE_GROUPS - 1) * top.error
    floor = correlation_floor(n, latent.shape[1:], seed=seed, device=latent.device)
    return Row(PATCH_ROW, top.value, top.value - reach, top.value + reach, floor, FLOOR_NOTE)


def _fidelity_rows(images: Images, reconstruction: Images, plain: Mask, seed: int) -> list[Row]:
    error = (images.detach() - reconstruction.detach()).abs()
    rows = [
        Row.over_images("MAE", fidelity.mae(images, reconstruction), seed=seed, note=PAIR_NOTE),
        _pooled_row("MAE plain", area_sums(error, plain).pooled("mean"), seed, note=PAIR_NOTE),
        Row.over_images("PSNR", fidelity.psnr(images, reconstruction), seed=seed, note="dB"),
    ]
    if min(images.shape[2:]) < fidelity.SSIM_SIDE:
        return [*rows, Row("SSIM", math.nan, note=f"needs sides of at least {fidelity.SSIM_SIDE} pixels")]
    return [*rows, Row.over_images("SSIM", fidelity.ssim(images, reconstruction), seed=seed)]


def _pooled_row(name: str, pooled: Pooled, seed: int, null: Null | None = None, note: str = "") -> Row:
    value = pooled.value
    if math.isnan(value):
        return Row(name, value, null=null, note="no such pixels in these images, or all alike")
    if len(pooled.sums) < FEWEST_IMAGES:
        return Row(name, value, null=null, note=note)
    return Row.from_interval(name, pooled.interval(seed=seed), null, note)
