"""Every diagnostic of a latent in one table, each beside its value on true noise of the same shape and in the same areas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from .._typing import Images
from ..errors import ArgumentError, UnknownNameError
from . import fidelity
from ._border import Batch, Mask, PerImage, check_batch, check_images, check_same_shape
from .correlation import MIN_IMAGES, correlation_floor, top_k_jackknife
from .gaussianity import pooled_moments
from .intervals import Pooled, bootstrap
from .null import Null, nulls, student_reach
from .regions import area_sums, plain_mask, resize_mask

__all__ = ["Diagnosis", "Row", "diagnose"]

Areas = Mapping[str, Bool[Tensor, "batch area_height area_width"] | None]
Latent = Float[Tensor, "batch latent_channels latent_height latent_width"]

JACKKNIFE_GROUPS = 10
KL_ROW = "KL to N(0, 1)"
PATCH_ROW = "top-20 patch correlation"


@dataclass(frozen=True)
class Row:
    """One diagnostic.

    Attributes:
        name: What it is; unique in a diagnosis.
        value: Its value, NaN where it has none (the note says why).
        low: Lower end of its 95 % interval over images, or None.
        high: Upper end, or None.
        null: Its distribution on true noise, or None where noise has none (reconstruction).
        note: Unit, or why there is no value.

    >>> Row("std", 0.9, 0.8, 1.0, Null(1.0, 0.01, 0.97, 1.03)).is_noise
    False
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    null: Null | None = None
    note: str = ""

    @property
    def is_noise(self) -> bool | None:
        """Whether the value lies where 95 % of true noise does; None without a null or a value."""
        if self.null is None or math.isnan(self.value) or math.isnan(self.null.mean):
            return None
        return self.null.low <= self.value <= self.null.high


@dataclass(frozen=True)
class Diagnosis:
    """The rows of `diagnose`, to look up (`diagnosis["MAE"]`), print (`table`) or save (`to_dict`).

    >>> print(Diagnosis(images=2, rows=(Row("std", 0.5, null=Null(1.0, 0.01, 0.97, 1.03)),)))
    diagnostic   value   95 % interval             true noise   note
    std          0.500   -               1.000 [0.970, 1.030]
    """

    images: int
    rows: tuple[Row, ...]

    def __getitem__(self, name: str) -> Row:
        """The row called `name`."""
        by_name = {row.name: row for row in self.rows}
        if name not in by_name:
            raise UnknownNameError("diagnostic", name, by_name)
        return by_name[name]

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Plain text with aligned columns, one line a diagnostic."""
        head = ("diagnostic", "value", "95 % interval", "true noise", "note")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        align = (str.ljust, str.rjust, str.ljust, str.rjust, str.ljust)
        padded = [[side(cell, w) for side, cell, w in zip(align, line, widths, strict=True)] for line in lines]
        return "\n".join("   ".join(line).rstrip() for line in padded)

    def to_dict(self) -> dict[str, Any]:
        """As `json.dumps` takes it: NaN becomes None, an infinite value the string "inf" or "-inf"."""
        return {"images": self.images, "rows": [_json(asdict(row)) for row in self.rows]}


def diagnose(
    latent: Latent,
    *,
    images: Images | None = None,
    reconstruction: Images | None = None,
    seed: int = 0,
    null_draws: int = 8,
) -> Diagnosis:
    """All diagnostics of `latent`, each beside its value on true noise; no model is needed, and none is called.

    Args:
        latent: [B, C, h, w], as an inversion returns it.
        images: [B, 3, H, W] in [-1, 1], what was inverted. Splits the statistics into plain and other areas; at a size other
            than the latent's, the areas are resized to it.
        reconstruction: As `images`, which it needs: adds MAE (in units of [-1, 1]), PSNR and SSIM.
        seed: Of the bootstrap and of the noise of the null.
        null_draws: Batches of true noise for the null, two or more.

    Raises:
        ArgumentError: Wrong dimensions, shapes that differ, values that are not finite or not images, or a reconstruction
            without images.

    >>> from unsample.diagnostics import true_noise
    >>> diagnosis = diagnose(true_noise((8, 3, 16, 16)))
    >>> [row.name for row in diagnosis.rows]
    ['mean', 'std', 'lag-1', 'excess kurtosis', 'KL to N(0, 1)', 'top-20 patch correlation']
    >>> diagnosis["top-20 patch correlation"].note
    'needs at least 32 images, given 8'
    """
    _check(latent, images, reconstruction)
    rows = _latent_rows(latent, _areas(latent, images), seed, null_draws)
    rows.append(_patch_row(latent, seed))
    if images is not None:
        plain = plain_mask(images)
        rows.append(_mean_row("plain fraction", plain.double().mean((1, 2)), seed, note="of the images' pixels"))
        if reconstruction is not None:
            rows += _fidelity_rows(images, reconstruction, plain, seed)
    return Diagnosis(len(latent), tuple(rows))


def _check(latent: Latent, images: Images | None, reconstruction: Images | None) -> None:
    check_batch(latent, "latent")
    if images is not None:
        check_images(images, "images")
        if len(images) != len(latent):
            raise ArgumentError(f"expected one image per latent, given {len(images)} and {len(latent)}; pair them")
    if reconstruction is not None:
        if images is None:
            raise ArgumentError("reconstruction: expected with images, given without; pass images= as well")
        check_images(reconstruction, "reconstruction")
        check_same_shape(images, reconstruction, ("images", "reconstruction"))


def _areas(latent: Latent, images: Images | None) -> Areas:
    """Suffix of the row's name -> mask."""
    if images is None:
        return {"": None}
    plain = resize_mask(plain_mask(images).to(latent.device), (latent.shape[2], latent.shape[3]))
    return {" plain": plain, " other": ~plain}


def _pooled(x: Batch, areas: Areas) -> dict[str, Pooled]:
    """The statistics that are functions of sums over images, by the name of their row."""
    whole = pooled_moments(x)
    sums = {suffix: area_sums(x, mask) for suffix, mask in areas.items()}
    return {
        "mean": whole["mean"],
        **{"std" + suffix: found.pooled("std") for suffix, found in sums.items()},
        **{"lag-1" + suffix: found.pooled("lag1") for suffix, found in sums.items()},
        "excess kurtosis": whole["kurtosis"],
        KL_ROW: whole["kl"],
    }


def _latent_rows(latent: Latent, areas: Areas, seed: int, null_draws: int) -> list[Row]:
    def values(x: Tensor) -> dict[str, float]:
        return {name: found.value for name, found in _pooled(x, areas).items()}

    null = nulls(values, latent.shape, null_draws, seed, device=latent.device)
    notes = {KL_ROW: "nats, from mean and variance alone"}
    return [_pooled_row(name, found, seed, null[name], notes.get(name, "")) for name, found in _pooled(latent, areas).items()]


def _patch_row(latent: Latent, seed: int) -> Row:
    n, variables = len(latent), latent.shape[1] * min(8, latent.shape[2]) * min(8, latent.shape[3])
    if n < MIN_IMAGES:
        return Row(PATCH_ROW, math.nan, note=f"needs at least {MIN_IMAGES} images, given {n}")
    if variables * (variables - 1) < 40:
        return Row(PATCH_ROW, math.nan, note=f"needs windows of at least 20 pairs, given {variables} values")
    found = top_k_jackknife(latent, groups=JACKKNIFE_GROUPS)
    reach = student_reach(JACKKNIFE_GROUPS - 1) * found.error
    floor = correlation_floor(n, latent.shape[1:], seed=seed, device=latent.device)
    note = "true noise is the floor at this number of images"
    return Row(PATCH_ROW, found.value, found.value - reach, found.value + reach, floor, note)


def _fidelity_rows(images: Images, reconstruction: Images, plain: Mask, seed: int) -> list[Row]:
    error = (images.detach() - reconstruction.detach()).abs()
    rows = [
        _mean_row("MAE", fidelity.mae(images, reconstruction), seed, note="of images in [-1, 1]"),
        _pooled_row("MAE plain", area_sums(error, plain).pooled("mean"), seed, note="of images in [-1, 1]"),
        _mean_row("PSNR", fidelity.psnr(images, reconstruction), seed, note="dB"),
    ]
    if min(images.shape[2:]) < fidelity.SSIM_SIDE:
        return [*rows, Row("SSIM", math.nan, note=f"needs sides of at least {fidelity.SSIM_SIDE} pixels")]
    return [*rows, _mean_row("SSIM", fidelity.ssim(images, reconstruction), seed)]


def _pooled_row(name: str, found: Pooled, seed: int, null: Null | None = None, note: str = "") -> Row:
    value = found.value
    if math.isnan(value):
        return Row(name, value, null=null, note="no such pixels in these images, or all alike")
    if len(found.sums) < 2:
        return Row(name, value, null=null, note=note)
    interval = found.interval(seed=seed)
    return Row(name, value, interval.low, interval.high, null, note)


def _mean_row(name: str, values: PerImage, seed: int, note: str = "") -> Row:
    """The mean over images."""
    if len(values) < 2:
        return Row(name, float(values.mean()), note=note)
    found = bootstrap(values, seed=seed)
    return Row(name, found.estimate, found.low, found.high, note=note)


def _cells(row: Row) -> tuple[str, ...]:
    interval = "-" if row.low is None or row.high is None else _span(row.low, row.high)
    null = "-" if row.null is None else f"{format_number(row.null.mean)} {_span(row.null.low, row.null.high)}"
    return row.name, format_number(row.value), interval, null, row.note


def _span(low: float, high: float) -> str:
    return f"[{format_number(low)}, {format_number(high)}]"


def format_number(value: float) -> str:
    """Three decimals from 0.1 up, four from 0.001, two significant digits below."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    return f"{value:.3f}" if size >= 0.1 or size == 0 else f"{value:.4f}" if size >= 0.001 else f"{value:.2g}"


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
