"""Medians over photos, against naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import true_noise
from unsample.diagnostics.medians import MIN_PLAIN, medians, plain_stds
from unsample.diagnostics.regions import plain_mask


def photos(count=6, side=16, seed=0):
    """Grey pictures with a noisy part of another height each; the first is noisy all over, the second has a sliver left."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 3, side, side)
    for i, rows in enumerate([side, side - 2, 10, 8, 5, 0][:count]):
        images[i, :, :rows] = torch.rand(3, rows, side, generator=generator) * 2 - 1
    return images


def naive_std(latent, mask):
    values = [float(channel[y, x]) for channel in latent for y, x in mask.nonzero().tolist()]
    if len(values) < MIN_PLAIN:
        return math.nan
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def test_plain_stds_against_a_loop():
    images, latent = photos(), true_noise((6, 3, 16, 16), draw=5) * 0.7 + 0.2
    expected = [naive_std(x, mask) for x, mask in zip(latent, plain_mask(images), strict=True)]
    assert math.isnan(expected[0])
    assert sum(map(math.isnan, expected)) < 3
    np.testing.assert_allclose(plain_stds(latent, images).numpy(), expected, rtol=1e-6)


def test_the_threshold_counts_values_not_pixels():
    """A plain area of 10 pixels has 30 values in 3 channels, too few; one of 12 has 36."""
    images = torch.ones(2, 3, 16, 16)
    images[:, :, ::2, ::2] = images[:, :, 1::2, 1::2] = -1
    for image, width in zip(images, (6, 7), strict=True):
        image[:, 14:, :width] = 0
    assert plain_mask(images).sum((1, 2)).tolist() == [10, 12]
    assert plain_stds(true_noise((2, 3, 16, 16)), images).isnan().tolist() == [True, False]


def test_medians_and_their_intervals_against_a_loop():
    """Reference: the same resamples one by one, the median by sorting, the order statistics that the interval names."""
    images, latent = photos().repeat(2, 1, 1, 1), true_noise((12, 3, 16, 16), draw=5) * 0.7
    back = (images + 0.1 * torch.arange(1, 13)[:, None, None, None]).clamp(-8, 8)
    std, psnr = medians(latent, images, back)
    for row, values in (
        (std, [v for v in plain_stds(latent, images).tolist() if not math.isnan(v)]),
        (psnr, [10 * math.log10(4 / float(((a - b).double() ** 2).mean())) for a, b in zip(images, back, strict=True)]),
    ):

        def middle(sample):
            ordered, half = sorted(sample), len(sample) // 2
            return ordered[half] if len(sample) % 2 else (ordered[half - 1] + ordered[half]) / 2

        drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
        resampled = sorted(middle([values[i] for i in row_of]) for row_of in drawn.tolist())
        assert row.value == pytest.approx(middle(values), rel=1e-6)
        assert row.low == pytest.approx(resampled[math.ceil(0.025 * 2000) - 1], rel=1e-6)
        assert row.high == pytest.approx(resampled[math.ceil(0.975 * 2000) - 1], rel=1e-6)
    assert std.note == f"{len([v for v in plain_stds(latent, images).tolist() if not math.isnan(v)])} of 12 photos"


def test_the_null_is_the_median_on_true_noise_in_the_same_areas():
    images = photos()
    (row, _) = medians(true_noise((6, 3, 16, 16), draw=50), images, images, null_draws=4)
    drawn = [plain_stds(true_noise((6, 3, 16, 16), draw=draw), images) for draw in range(4)]
    medians_of_noise = [float(np.median(stds[~stds.isnan()])) for stds in drawn]
    assert row.null.mean == pytest.approx(np.mean(medians_of_noise))
    assert row.null.std == pytest.approx(np.std(medians_of_noise, ddof=1))
    assert row.is_noise


def test_photos_without_plain_areas_and_exact_reconstructions():
    noisy = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    std, psnr = medians(true_noise((6, 3, 16, 16)), noisy, noisy)
    assert math.isnan(std.value)
    assert std.null is None
    assert std.note == "0 of 6 photos"
    assert (psnr.value, psnr.low, psnr.high) == (math.inf, math.inf, math.inf)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_of_few_photos_there_is_no_interval(count):
    grey = torch.zeros(count, 3, 16, 16)
    for row in medians(true_noise((count, 3, 16, 16)), grey, grey):
        assert (row.low, row.high) == (None, None)
        assert not math.isnan(row.value)
