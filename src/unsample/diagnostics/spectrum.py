"""How a latent's values hang together in space: its autocorrelation over lags and its power over frequencies.

White noise is uncorrelated at every lag but 0 and has power 1 at every frequency; an image, or a latent that copies one, has
long correlations and most of its power at low frequencies. Both nulls have closed forms. Both statistics are functions of
sums over images (`autocorrelation_sums`, `spectrum_sums`), so batches can be added up and images resampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from .._tensors import brief
from ..errors import ArgumentError
from ._checks import Batch, blocks, check_at_least, check_batch, check_fraction, wide
from .intervals import Pooled, bootstrap, ratio
from .null import Null

Lags = Float[Tensor, "lags_y lags_x"]
LagSums = Float[Tensor, "batch 3 lags_y lags_x"]
Bins = Float[Tensor, " bins"]
BinsPerImage = Float[Tensor, "batch bins"]
Groups = Int[Tensor, "height width"]


@brief
@dataclass(frozen=True, eq=False)
class Autocorrelation:
    """The sums of `autocorrelation_sums` over images, and what follows from them. The middle of a map is lag (0, 0).

    Attributes:
        totals: [3, 2 reach_y + 1, 2 reach_x + 1] float64: number of pairs, sum of a + b, sum of a * b at each lag.

    >>> stripes = torch.tensor([1.0, -1.0]).expand(8, 1, 2, 2)
    >>> Autocorrelation(autocorrelation_sums(stripes, reach=1).sum(0)).value.round().tolist()
    [[-1.0, 1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, 1.0, -1.0]]
    """

    totals: Float[Tensor, "3 lags_y lags_x"]

    @property
    def value(self) -> Lags:
        """Mean of (a - mean)(b - mean) over the pairs of each lag, divided by the variance; NaN for a constant."""
        pairs, sums, products = self.totals
        middle = pairs.shape[0] // 2, pairs.shape[1] // 2
        mean = sums[middle] / (2 * pairs[middle])
        covariance: Lags = (products - mean * sums) / pairs + mean**2
        variance = covariance[middle]
        # Rounding alone can give a constant some 1e-15 of its squared mean.
        return covariance / (variance if variance > 1e-14 * mean**2 else math.nan)

    @property
    def null_std(self) -> Lags:
        """That of `value` on white noise, 1 / sqrt(pairs), and 0 in the middle; 1.96 of it are a 95 % band about 0."""
        std = self.totals[0].rsqrt()
        std[std.shape[0] // 2, std.shape[1] // 2] = 0
        return std


def autocorrelation(x: Batch, reach: int | None = None) -> Autocorrelation:
    """Correlation of values of one channel that lie (dy, dx) apart, over all images and channels together.

    Only pairs inside the image count, so opposite edges do not touch, and each lag is divided by its own number of pairs. The
    mean and variance are those of all values. Lags d and -d are the same pairs: the map is symmetric about its middle.

    Args:
        x: [B, C, H, W].
        reach: Largest lag along each side, cut off at the side less 1; half of each side if None.

    Returns:
        Maps of [2 reach_y + 1, 2 reach_x + 1] lags, `.value` and `.null_std`, float64 on the CPU.

    Raises:
        ArgumentError: Wrong dimensions, a reach below 1, or values that are not finite.

    >>> autocorrelation(torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(2, 3, 4, 4)).value[2].round(decimals=3).tolist()
    [-1.0, 0.333, 1.0, 0.333, -1.0]
    """
    return Autocorrelation(autocorrelation_sums(x, reach).sum(0))


def autocorrelation_sums(x: Batch, reach: int | None = None) -> LagSums:
    """[B, 3, 2 reach_y + 1, 2 reach_x + 1]: per image and lag the number of pairs, the sums of a + b and of a * b.

    Add them up over images and batches for `Autocorrelation`. Arguments and errors as `autocorrelation`; float64 on the CPU.

    >>> autocorrelation_sums(torch.ones(1, 1, 2, 2), reach=1)[0, 0].tolist()
    [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    """
    check_batch(x)
    if reach is not None:
        check_at_least(reach, 1, "reach")
    height, width = (side // 2 if reach is None else min(reach, side - 1) for side in x.shape[2:])
    parts = blocks(len(x), 4 * x.shape[1] * (x.shape[2] + height) * (x.shape[3] + width))
    return torch.cat([_lag_sums(wide(x[part]), (height, width)).cpu() for part in parts])


def _lag_sums(x: Batch, reach: tuple[int, int]) -> LagSums:
    """`autocorrelation_sums` of float64 `x`, the products by a Fourier transform padded so that no lag wraps around."""
    size = x.shape[2] + reach[0], x.shape[3] + reach[1]
    power = _squares(torch.fft.rfft2(x, s=size)).sum(1)
    lags = [torch.arange(-r, r + 1, device=x.device) for r in reach]
    products = torch.fft.irfft2(power, s=size)[:, lags[0][:, None], lags[1]]
    down, across = (_has_partner(lag, side).to(x) for lag, side in zip(lags, x.shape[2:], strict=True))
    firsts, pairs = down @ x.sum(1) @ across.T, x.shape[1] * down.sum(1)[:, None] * across.sum(1)
    return torch.stack([pairs.expand_as(products), firsts + firsts.flip(1, 2), products], dim=1)


def _has_partner(lag: Tensor, side: int) -> Tensor:
    """[lags, side]: whether the pixel at the lag from each is inside, too."""
    partner = torch.arange(side, device=lag.device) + lag[:, None]
    return (partner >= 0) & (partner < side)


@dataclass(frozen=True, eq=False)
class RadialSpectrum:
    """Power over radial frequency, kept per image; bins as in `radial_spectrum`.

    Attributes:
        per_image: [B, bins], of `spectrum_sums`.
        shape: (C, H, W) of one image.

    >>> spectrum = RadialSpectrum(spectrum_sums(torch.ones(2, 3, 4, 8)), (3, 4, 8))
    >>> spectrum.power.tolist(), spectrum.frequencies.tolist(), spectrum.freedom.tolist()
    ([32.0, 0.0, 0.0], [0.0, 0.25, 0.5], [6.0, 84.0, 84.0])
    """

    per_image: BinsPerImage
    shape: tuple[int, int, int]

    @property
    def frequencies(self) -> Bins:
        """Middle of each bin in cycles per pixel, 0 to 0.5."""
        return torch.arange(self.per_image.shape[1], dtype=torch.float64, device="cpu") / min(self.shape[1:])

    @property
    def power(self) -> Bins:
        """Mean over images; 1 for white noise of unit variance."""
        return self.per_image.mean(0)

    @property
    def freedom(self) -> Bins:
        """B C times the number of modes of each bin: its degrees of freedom on white noise."""
        # A mode with a conjugate counts twice, and twice it is chi-square(2); a mode without one is chi-square(1).
        return _sizes(_radii(*self.shape[1:]), self.per_image.shape[1]) * (self.shape[0] * len(self.per_image))

    @property
    def null_std(self) -> Bins:
        """Standard deviation of `power` on white noise of unit variance: exact, as `power` is chi-square / freedom there."""
        return (2 / self.freedom).sqrt()

    def null_interval(self, level: float = 0.95) -> tuple[Bins, Bins]:
        """Ends of the interval of each bin that holds its `power` on white noise of unit variance at rate `level`: exact."""
        return _chi_square_interval(self.freedom, level)

    def interval(self, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> tuple[Bins, Bins]:
        """Ends of the bootstrap interval over images of each bin's `power`; needs two images or more."""
        bins = [bootstrap(column, level=level, draws=draws, seed=seed) for column in self.per_image.T]
        low, high = torch.tensor([(each.low, each.high) for each in bins], dtype=torch.float64, device="cpu").T
        return low, high


def radial_spectrum(x: Batch) -> RadialSpectrum:
    """Power |FFT|^2 / (H W) over radial spatial frequency, averaged over images, channels and the modes of each bin.

    Bin r = 1, 2, ... holds the modes whose frequency, in cycles per shorter side, rounds to r, up to Nyquist's; the modes in
    the corners beyond are left out. Bin 0 is the mode of frequency 0 alone (the squared mean, times H W); modes of a longer
    side that would round to 0 are in bin 1. Nothing is subtracted, so unit-variance white noise has power 1 in every bin.

    Args:
        x: [B, C, H, W], sides of at least 2.

    Returns:
        `.frequencies` in cycles per pixel, `.power`, `.null_std` and intervals, float64 on the CPU.

    Raises:
        ArgumentError: Wrong dimensions, a side below 2, or values that are not finite.

    >>> radial_spectrum(torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(2, 3, 4, 4)).power.round(decimals=3).tolist()
    [0.0, 0.0, 2.667]
    """
    return RadialSpectrum(spectrum_sums(x), (x.shape[1], x.shape[2], x.shape[3]))


def spectrum_sums(x: Batch) -> BinsPerImage:
    """[B, bins], the `radial_spectrum` of each image: `RadialSpectrum` takes the rows of several batches together.

    >>> spectrum_sums(torch.ones(2, 3, 4, 8)).tolist()
    [[32.0, 0.0, 0.0], [32.0, 0.0, 0.0]]
    """
    check_batch(x)
    if min(x.shape[2:]) < 2:
        raise ArgumentError(f"x: expected sides of at least 2 pixels, given shape {tuple(x.shape)}; one has no frequencies")
    return _group_power(x, _radii(x.shape[2], x.shape[3]), min(x.shape[2:]) // 2 + 1)


def low_frequency_power(x: Batch, fraction: float = 0.25) -> Pooled:
    """Mean power of all modes below `fraction` of Nyquist's frequency, that of frequency 0 included: 1 on white noise.

    What is smooth in an image and stays in its latent, in one number. An offset or a wrong variance shows here, too.

    Args:
        x: [B, C, H, W].
        fraction: In (0, 1]; a quarter of Nyquist's is a wavelength of 8 pixels.

    Returns:
        `.value`, and from two images `.interval()`; to be read beside `low_frequency_null(x.shape)`.

    Raises:
        ArgumentError: Wrong dimensions, a fraction out of range, or values that are not finite.

    >>> low_frequency_power(torch.ones(2, 3, 4, 4)).value  # one mode, that of the mean
    16.0
    """
    check_batch(x)
    power = _group_power(x, _above(x.shape[2], x.shape[3], fraction), 1)[:, 0].numpy()
    return Pooled(np.stack([power, np.ones_like(power)], axis=-1), ratio)


def low_frequency_null(shape: Sequence[int], fraction: float = 0.25) -> Null:
    """The exact distribution of `low_frequency_power` on true noise of `shape` [B, C, H, W]: chi-square over its freedom.

    Raises:
        ArgumentError: A shape that is not of 4 sides of at least 1, or a fraction out of range.

    >>> null = low_frequency_null((64, 3, 16, 16))
    >>> null.mean, round(null.std, 4), round(null.low, 3), round(null.high, 3)
    (1.0, 0.034, 0.934, 1.068)
    """
    if len(shape) != 4 or min(shape) < 1:
        raise ArgumentError(f"shape: expected [B, C, H, W], given {tuple(shape)}; use that of the batch")
    freedom = shape[0] * shape[1] * _sizes(_above(shape[2], shape[3], fraction), 1)
    low, high = _chi_square_interval(freedom, 0.95)
    return Null(1.0, math.sqrt(2 / float(freedom)), float(low), float(high))


def _radii(height: int, width: int) -> Groups:
    """The bin of each mode; the corners are in bins beyond Nyquist's."""
    # A little more than a half, since the division in a frequency and the product here may round down.
    radii = (_cycles(height, width) * min(height, width) + 0.5 + 1e-9).floor().long().clamp_min(1)
    radii[0, 0] = 0
    return radii


def _above(height: int, width: int, fraction: float) -> Groups:
    """0 for the modes below `fraction` of Nyquist's frequency, 1 for the others."""
    if not 0 < fraction <= 1:
        raise ArgumentError(f"fraction: expected a part of Nyquist's frequency in (0, 1], given {fraction}; 0.25 is usual")
    return (_cycles(height, width) > fraction / 2 - 1e-9).long()


def _cycles(height: int, width: int) -> Float[Tensor, "height width"]:
    """Radial frequency of each mode of a Fourier transform, in cycles per pixel."""
    down, across = (torch.fft.fftfreq(side, dtype=torch.float64, device="cpu") for side in (height, width))
    return torch.hypot(down[:, None], across)


def _sizes(groups: Groups, count: int) -> Bins:
    """Number of modes in each of the first `count` groups."""
    return torch.bincount(groups.flatten(), minlength=count)[:count].double()


def _group_power(x: Batch, groups: Groups, count: int) -> BinsPerImage:
    """Mean power of each image in the first `count` groups of modes, over channels: [B, count], float64 on the CPU."""
    index = groups.flatten().clamp_max(count)
    parts = (_squares(torch.fft.fft2(wide(x[part]))) for part in blocks(len(x), 4 * x[0].numel()))
    means = (part.mean(1).flatten(1).cpu() for part in parts)
    sums = [mean.new_zeros(len(mean), count + 1).index_add_(1, index, mean)[:, :count] for mean in means]
    return torch.cat(sums) / (_sizes(groups, count) * groups.numel())


def _squares(x: Complex[Tensor, "batch channels height width"]) -> Batch:
    return x.real.square() + x.imag.square()  # a third of the time of abs, which takes roots


def _chi_square_interval(freedom: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Ends of the central interval of a chi-square variable over its degrees of freedom."""
    from scipy.special import gammaincinv  # half a second, which `import unsample` should not cost

    check_fraction(level, "level", 0.95)
    half = freedom.numpy() / 2
    low, high = (torch.as_tensor(gammaincinv(half, p) / half, device="cpu") for p in ((1 - level) / 2, (1 + level) / 2))
    return low, high
