"""`diagnose` of more latents than memory holds: sums of batches, which add up in any order and over any processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..._tensors import Images
from ...errors import ArgumentError
from .. import fidelity
from .._checks import Array, Latent, PerImage, check_batch, check_same_shape
from ..correlation import MIN_IMAGES, PATCH, TOP, correlation_floor, has_pairs, window_values
from ..diagnosis import (
    COORDINATE_ROW,
    FLOOR_NOTE,
    KL_NOTE,
    KL_ROW,
    LOW_NOTE,
    LOW_ROW,
    NORMAL_NOTE,
    NORMAL_ROW,
    PAIR_NOTE,
    PLAIN_NOTE,
    latent_areas,
    latent_statistics,
)
from ..intervals import FEWEST_IMAGES, jackknife_error, proportion
from ..normality import FEWEST, rejection_null
from ..null import Null, student_reach
from ..row import PATCH_ROW, Diagnosis, Row
from ..spectrum import low_frequency_null
from ._tables import LEVEL, NULL, of_totals, other_statistics
from ._totals import Statistic, drawn, ends
from .gaussianity import CoordinateKL
from .spectrum import TopKCorrelation

NULL_DRAWS = 8
"""Of the variances of coordinates on true noise."""

FLOOR_IMAGES = 4096
"""Of whose noise the floor of a correlation is drawn."""

MOST_BYTES = 2**26
"""Of the sums for the correlation across images: those of 4 channels of 64 x 64 take half of it, of 16 channels 8 times it."""

ORDER = (
    *("mean", "std", "std plain", "std other", "lag-1", "lag-1 plain", "lag-1 other", "excess kurtosis"),
    *(KL_ROW, COORDINATE_ROW, LOW_ROW, NORMAL_ROW, PATCH_ROW),
    *("plain fraction", "MAE", "MAE plain", "PSNR", "SSIM"),
)
"""Of the rows, as `diagnose` has them."""

FEWEST_GROUPS = 5
"""For the jackknife: fewer say little of its error."""

NOTES = {
    KL_ROW: KL_NOTE,
    LOW_ROW: LOW_NOTE,
    NORMAL_ROW: NORMAL_NOTE,
    "plain fraction": PLAIN_NOTE,
    "MAE": PAIR_NOTE,
    "MAE plain": PAIR_NOTE,
    "PSNR": "dB",
}


class DiagnosisSums:
    """All that `diagnose` says of a number of latents, as sums over them; its values are those of `diagnose` on all at once.

    Each statistic is kept as the sums over images that it is a function of, and the sums of their products: the statistic of
    totals drawn about them (they are normal, by the central limit theorem) gives its interval over images, and drawn about
    what is expected of true noise, in the same areas, its null. Memory does not grow with the number of images.

    >>> from unsample.diagnostics import true_noise
    >>> sums = DiagnosisSums()
    >>> for part in (0, 1):
    ...     _ = sums.update(true_noise((32, 1, 8, 8), draw=part), noise=true_noise((32, 1, 8, 8), draw=2 + part))
    >>> sums.images, round(sums.diagnosis()["std"].value, 1)
    (64, 1.0)
    """

    def __init__(self) -> None:
        self.images = 0
        self.shape: tuple[int, ...] = ()
        self.sums: dict[str, tuple[Array, Array]] = {}
        self.coordinates, self.windows = CoordinateKL(), TopKCorrelation()

    def update(
        self, latent: Latent, images: Images | None = None, reconstruction: Images | None = None, *, noise: Latent
    ) -> dict[str, PerImage]:
        """Add a batch.

        Args:
            latent: [B, C, h, w].
            images: [B, 3, H, W] in [-1, 1], what was inverted; of all batches, or of none.
            reconstruction: As `images`.
            noise: As `latent`, true noise.

        Returns:
            Each statistic image by image, by the name of its row; [B] float64, NaN where an image has none.

        Raises:
            ArgumentError: Latents of another shape than before, or what `diagnose` refuses.
        """
        check_batch(latent, "latent")
        check_same_shape(latent, noise, ("latent", "noise"))
        if self.shape not in ((), tuple(latent.shape[1:])):
            raise ArgumentError(f"expected latents {self.shape} as before, given {tuple(latent.shape[1:])}; use new sums")
        areas = latent_areas(latent, images)
        statistics = latent_statistics(latent, areas, pivot=0.0)
        tables = statistics | other_statistics(latent, images, reconstruction)
        tables |= {NULL + name: each for name, each in latent_statistics(noise, areas, pivot=0.0).items()}
        if self.images and set(tables) != set(self.sums):
            raise ArgumentError("expected images and reconstructions with all batches or with none")
        self.coordinates.update(latent)
        if has_pairs(latent.shape[1:]) and _window_bytes(tuple(latent.shape[1:])) <= MOST_BYTES:
            self.windows.update(latent)
        self.images, self.shape = self.images + len(latent), tuple(latent.shape[1:])
        for name, each in tables.items():
            totals, products = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = totals + each.sums.sum(0), products + each.sums.T @ each.sums
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: torch.from_numpy(each.statistic(each.sums)) for name, each in tables.items() if NULL not in name}

    def merge(self, other: DiagnosisSums) -> None:
        """Add the sums over other latents.

        Raises:
            ArgumentError: Latents of another shape, or with other statistics.
        """
        if not other.images:
            return
        if self.images and (self.shape != other.shape or set(self.sums) != set(other.sums)):
            raise ArgumentError(
                f"expected sums over latents {self.shape} with the same statistics; diagnose these by themselves"
            )
        for name, (totals, products) in other.sums.items():
            before = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = before[0] + totals, before[1] + products
        self.coordinates.merge_state(other.coordinates)
        self.windows.merge_state(other.windows)
        self.images, self.shape = self.images + other.images, other.shape

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a file; matrices that are symmetric without their lower halves."""
        tables = {
            f"{name}/{i}": torch.from_numpy(np.asarray(each))
            for name, pair in self.sums.items()
            for i, each in enumerate(pair)
        }
        states = {f"coordinates/{name}": getattr(self.coordinates, name) for name in self.coordinates.names}
        states |= {f"windows/{name}": getattr(self.windows, name) for name in self.windows.names}
        products = states["windows/products"]
        if products.ndim:
            rows, columns = torch.triu_indices(*products.shape[1:], device="cpu")
            states["windows/products"] = products[:, rows, columns]
        return {**tables, **states, "shape": torch.tensor([self.images, *self.shape], device="cpu")}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> DiagnosisSums:
        """The inverse of `tensors()`."""
        made = cls()
        made.images, *shape = tensors["shape"].tolist()
        made.shape = tuple(shape)
        for name in tensors:
            if name.endswith("/0"):
                made.sums[name[:-2]] = tensors[name].numpy(), tensors[f"{name[:-1]}1"].numpy()
        for metric, kind in ((made.coordinates, "coordinates"), (made.windows, "windows")):
            states = {name: tensors[f"{kind}/{name}"] for name in metric.names}
            if kind == "windows" and states["products"].ndim:
                side = states["totals"].shape[1]
                rows, columns = torch.triu_indices(side, side, device="cpu")
                whole = states["products"].new_zeros(len(states["products"]), side, side)
                whole[:, rows, columns] = whole[:, columns, rows] = states["products"]
                states["products"] = whole
            metric.merge_state(states)
        return made

    def diagnosis(self, groups: Sequence[DiagnosisSums] = (), seed: int = 0) -> Diagnosis:
        """The table.

        Args:
            groups: The same latents in five groups or more, about equally many in each: they give the interval of the
                correlation across images, by the delete-a-group jackknife.
            seed: Of intervals and nulls.

        Raises:
            ArgumentError: No latents.
        """
        if not self.images:
            raise ArgumentError("expected at least one batch of latents, given none")
        statistics = of_totals(self.shape, self.sums)
        rows = {name: self._row(name, each, seed) for name, each in statistics.items()}
        rows |= {COORDINATE_ROW: self._coordinate_row(seed), PATCH_ROW: self._patch_row(groups, seed)}
        if NORMAL_ROW not in rows:
            rows[NORMAL_ROW] = Row(NORMAL_ROW, math.nan, note=f"needs at least {FEWEST} values an image")
        if "PSNR" in rows and "SSIM" not in rows:
            rows["SSIM"] = Row("SSIM", math.nan, note=f"needs sides of at least {fidelity.SSIM_SIDE} pixels")
        return Diagnosis(self.images, tuple(rows[name] for name in ORDER if name in rows))

    def _row(self, name: str, statistic: Statistic, seed: int) -> Row:
        totals, products = self.sums[name]
        if name == NORMAL_ROW:
            share = proportion(round(float(totals[0])), self.images)
            return Row.from_interval(name, share, rejection_null(self.images, LEVEL), NORMAL_NOTE)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(totals[None])[0])
        null = self._null(name, statistic, seed)
        if name == LOW_ROW:
            null = low_frequency_null((self.images, *self.shape))
        row = Row(name, value, null=null, note=NOTES.get(name, ""))
        if math.isnan(value):
            return replace(row, note="no such pixels in these images, or all alike")
        if self.images < FEWEST_IMAGES:
            return row
        low, high = ends(drawn(totals, totals, products, self.images, statistic, seed))
        return replace(row, low=low, high=high)

    def _null(self, name: str, statistic: Statistic, seed: int) -> Null | None:
        """A statistic of totals drawn about those that true noise is expected to have, with the spread that it has."""
        if NULL + name not in self.sums or self.images < 2:
            return None
        totals, products = self.sums[NULL + name]
        expected = np.array([1, 0, 1, 0, 3]) * totals[0] if len(totals) == 5 else np.array([1, 0, 1, 0, 0, 0]) * totals[0]
        if len(totals) == 6:  # of an area: values, their sum and squares; pairs, their sums and products
            expected[3] = totals[3]
        values = drawn(expected, totals, products, self.images, statistic, seed)
        low, high = ends(values)
        return None if low is None or high is None else Null(float(values.mean()), float(values.std()), low, high)

    def _coordinate_row(self, seed: int) -> Row:
        if self.images < 2:
            return Row(COORDINATE_ROW, math.nan, note="needs at least 2 images")
        rng, n, size = np.random.default_rng(seed), self.images, (NULL_DRAWS, math.prod(self.shape))
        variance = rng.chisquare(n - 1, size) / n
        draws = (variance + rng.standard_normal(size) ** 2 / n - 1 - np.log(variance)) / 2
        value = float(self.coordinates.compute().mean())
        return Row(COORDINATE_ROW, value, null=Null.from_values(draws.mean(1).tolist()), note=KL_NOTE)

    def _patch_row(self, groups: Sequence[DiagnosisSums], seed: int) -> Row:
        if self.images < MIN_IMAGES:
            return Row(PATCH_ROW, math.nan, note=f"needs at least {MIN_IMAGES} images, given {self.images}")
        if not has_pairs(self.shape):
            return Row(PATCH_ROW, math.nan, note=f"needs windows of at least {TOP} pairs of values")
        if _window_bytes(self.shape) > MOST_BYTES:
            return Row(PATCH_ROW, math.nan, note=f"its sums, {_window_bytes(self.shape) / 1e6:.0f} MB, are not kept")
        row = Row(PATCH_ROW, float(self.windows.compute()), null=_floor(self.images, self.shape, seed), note=FLOOR_NOTE)
        if len(groups) < FEWEST_GROUPS or any(self.images - group.images < MIN_IMAGES for group in groups):
            return row
        reach = student_reach(len(groups) - 1) * jackknife_error([self._without(group) for group in groups])
        return replace(row, low=row.value - reach, high=row.value + reach)

    def _without(self, group: DiagnosisSums) -> float:
        rest = TopKCorrelation()
        rest.merge_state({name: getattr(self.windows, name) - getattr(group.windows, name) for name in rest.names})
        return float(rest.compute())


def _floor(images: int, shape: tuple[int, ...], seed: int) -> Null:
    """`correlation_floor`; of many images that of fewer, scaled: it falls with the root of their number."""
    few = min(images, FLOOR_IMAGES)
    null, scale = correlation_floor(few, shape, seed=seed), math.sqrt(few / images)
    return Null(null.mean * scale, null.std * scale, null.low * scale, null.high * scale)


def _window_bytes(shape: tuple[int, ...]) -> int:
    """Of the sums of products of values in windows."""
    return 8 * window_values(shape) ** 2 * math.prod(-(-side // PATCH) for side in shape[1:])
