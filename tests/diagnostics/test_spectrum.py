import math

import numpy as np
import pytest
import scipy.stats
import torch

from unsample.diagnostics import true_noise
from unsample.diagnostics.spectrum import (
    Autocorrelation,
    RadialSpectrum,
    autocorrelation,
    autocorrelation_sums,
    low_frequency_null,
    low_frequency_power,
    radial_spectrum,
    spectrum_sums,
)


def smooth(n=5, shape=(2, 9, 12), draw=0):
    x = true_noise((n, *shape), draw=draw).double()
    return x + 0.7 * x.roll(1, 3) + 0.5 * x.roll((1, 2), (2, 3)) + 3


def loop_autocorrelation(x, reach_y, reach_x):
    """The definition, pair by pair of the image."""
    x = x.double().numpy() - x.double().numpy().mean()
    height, width = x.shape[2:]
    value, pairs = (np.zeros((2 * reach_y + 1, 2 * reach_x + 1)) for _ in range(2))
    for dy in range(-reach_y, reach_y + 1):
        for dx in range(-reach_x, reach_x + 1):
            products = [
                x[:, :, i, j] * x[:, :, i + dy, j + dx]
                for i in range(height)
                for j in range(width)
                if 0 <= i + dy < height and 0 <= j + dx < width
            ]
            value[dy + reach_y, dx + reach_x] = np.mean(products) / x.var()
            pairs[dy + reach_y, dx + reach_x] = np.size(products)
    return value, pairs


def loop_spectrum(x):
    """The definition, mode by mode: plain Fourier sums, each mode put into the bin of its rounded radius."""
    x = x.double().numpy()
    height, width = x.shape[2:]
    side = min(height, width)
    bins = [[] for _ in range(side // 2 + 1)]
    for ky in range(-(height // 2), (height + 1) // 2):
        for kx in range(-(width // 2), (width + 1) // 2):
            down, across = np.arange(height)[:, None] * ky / height, np.arange(width) * kx / width
            power = np.abs((x * np.exp(-2j * np.pi * (down + across))).sum((2, 3))) ** 2 / (height * width)
            radius = math.hypot(ky * side / height, kx * side / width)
            r = 0 if ky == kx == 0 else max(1, math.floor(radius + 0.5))
            if r < len(bins):
                bins[r].append(power.mean(1))
    return np.stack([np.mean(each, axis=0) for each in bins], axis=1), np.array([len(each) for each in bins])


@pytest.mark.parametrize(("shape", "reach"), [((2, 9, 12), None), ((1, 6, 5), 3), ((3, 4, 7), 20), ((1, 1, 6), 2)])
def test_autocorrelation_against_a_loop_over_pairs(shape, reach):
    x = smooth(shape=shape)
    sides = [side // 2 if reach is None else min(reach, side - 1) for side in shape[1:]]
    value, pairs = loop_autocorrelation(x, *sides)
    found = autocorrelation(x, reach)
    assert found.value.numpy() == pytest.approx(value, abs=1e-10)
    assert found.totals[0].numpy() == pytest.approx(pairs)
    middle = tuple(sides)
    assert (found.value[middle], found.null_std[middle]) == (1, 0)


def test_autocorrelation_of_batches_added_up_is_that_of_all():
    a, b = smooth(), smooth(n=3, draw=1) - 2
    parts = autocorrelation_sums(a).sum(0) + autocorrelation_sums(b).sum(0)
    assert torch.allclose(Autocorrelation(parts).value, autocorrelation(torch.cat([a, b])).value)


def test_autocorrelation_is_precise_far_from_zero_and_none_for_a_constant():
    x = smooth()
    assert torch.allclose(autocorrelation(x + 1000).value, autocorrelation(x).value, atol=1e-7)
    assert autocorrelation(torch.full((2, 1, 5, 5), 0.1)).value.isnan().all()


def test_autocorrelation_of_noise_scatters_by_its_null_std():
    draws = [autocorrelation(true_noise((2, 1, 12, 16), seed=seed), reach=6) for seed in range(200)]
    scores = torch.stack([draw.value / draw.null_std for draw in draws])
    scores = scores[:, :6].flatten()  # the lower half is the same pairs, and the middle row has the middle
    assert float(scores.std()) == pytest.approx(1, abs=0.03)
    assert float((scores.abs() < 1.96).double().mean()) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 9), (2, 9, 12), (1, 14, 5), (1, 4, 32), (1, 2, 3)])
def test_spectrum_against_a_loop_over_modes(shape):
    x = smooth(shape=shape)
    power, modes = loop_spectrum(x)
    assert spectrum_sums(x).numpy() == pytest.approx(power, rel=1e-9)
    found = radial_spectrum(x)
    assert found.power.numpy() == pytest.approx(power.mean(0), rel=1e-9)
    assert found.freedom.numpy() == pytest.approx(modes * shape[0] * len(x))
    assert found.frequencies.numpy() == pytest.approx(np.arange(len(modes)) / min(shape[1:]))


def test_spectrum_of_a_wave_is_in_the_bin_of_its_frequency():
    columns = torch.arange(16).double()
    wave = (2 * math.pi * 3 / 16 * columns).cos().expand(1, 1, 16, 16)
    found = radial_spectrum(wave)
    # Two modes of |FFT|^2 / n = n / 4 each.
    assert found.power.numpy() == pytest.approx(np.eye(9)[3] * 2 * 256 / 4 / float(found.freedom[3]), abs=1e-12)


def test_spectrum_of_noise_is_chi_square_with_the_stated_freedom():
    single = spectrum_sums(true_noise((3000, 1, 6, 8)))
    freedom = RadialSpectrum(single[:1], (1, 6, 8)).freedom
    for power, degrees in zip(single.T, freedom.tolist(), strict=True):
        assert scipy.stats.kstest(power.numpy() * degrees, scipy.stats.chi2(degrees).cdf).pvalue > 1e-3


def test_spectrum_of_noise_lies_in_its_null_interval():
    found = [radial_spectrum(true_noise((3, 2, 8, 12), seed=seed)) for seed in range(400)]
    low, high = found[0].null_interval()
    power = torch.stack([each.power for each in found])
    inside = ((low <= power) & (power <= high)).double().mean(0)
    assert inside.numpy() == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 400))
    assert power.std(0).numpy() == pytest.approx(found[0].null_std.numpy(), rel=0.2)


def test_intervals_over_images_cover_the_mean_power():
    inside = []
    for seed in range(40):
        low, high = radial_spectrum(true_noise((40, 1, 8, 8), seed=seed)).interval(draws=200)
        inside.append((low <= 1) & (high >= 1))
    assert 0.85 < float(torch.stack(inside).double().mean()) < 0.99


def test_blocks_do_not_change_the_values(smallest_blocks):
    x = smooth()
    whole = [f(x) for f in (spectrum_sums, autocorrelation_sums)]
    smallest_blocks()
    for f, expected in zip((spectrum_sums, autocorrelation_sums), whole, strict=True):
        assert torch.allclose(f(x), expected)


@pytest.mark.parametrize(
    ("shape", "fraction"), [((2, 16, 16), 0.25), ((1, 9, 20), 0.3), ((1, 20, 20), 0.1), ((1, 1, 1), 0.25)]
)
def test_low_frequency_power_against_numpy(shape, fraction):
    x = smooth(shape=shape)
    power = np.abs(np.fft.fft2(x.numpy())) ** 2 / math.prod(shape[1:])
    down, across = np.fft.fftfreq(shape[1]), np.fft.fftfreq(shape[2])
    below = np.hypot(down[:, None], across) < fraction * 0.5 * (1 - 1e-9)
    found = low_frequency_power(x, fraction)
    assert found.value == pytest.approx(power[..., below].mean())
    assert found.sums[:, 0] == pytest.approx(power[..., below].mean((1, 2)))
    freedom = below.sum() * math.prod(x.shape[:2])
    null = low_frequency_null(x.shape, fraction)
    expected = scipy.stats.chi2(freedom, scale=1 / freedom)
    assert (null.mean, null.std) == pytest.approx((expected.mean(), expected.std()))
    assert (null.low, null.high) == pytest.approx(expected.interval(0.95))


def test_low_frequency_power_of_noise_lies_in_its_null():
    shape = (4, 1, 8, 8)
    null = low_frequency_null(shape)
    values = [low_frequency_power(true_noise(shape, seed=seed)).value for seed in range(400)]
    outside = sum(not null.low <= value <= null.high for value in values)
    assert scipy.stats.binomtest(outside, 400, 0.05).pvalue > 1e-3
    assert low_frequency_power(smooth(16, (1, 16, 16)) - 3).value > low_frequency_null((16, 1, 16, 16)).high


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: autocorrelation(torch.zeros(3, 4, 4)), "4 dimensions"),
        (lambda: autocorrelation(torch.zeros(1, 3, 4, 4), reach=0), "reach"),
        (lambda: radial_spectrum(true_noise((1, 3, 4, 4)) * math.inf), "finite"),
        (lambda: spectrum_sums(torch.zeros(1, 3, 1, 4)), "at least 2 pixels"),
        (lambda: low_frequency_power(torch.zeros(1, 3, 4, 4), 1.5), "fraction"),
        (lambda: low_frequency_null((3, 4, 4)), "use that of the batch"),
        (lambda: radial_spectrum(torch.zeros(2, 3, 4, 4)).null_interval(95), "level"),
    ],
)
def test_refusals(call, says, refuses):
    refuses(call, says)
