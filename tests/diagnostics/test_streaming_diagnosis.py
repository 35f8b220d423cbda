"""Sums of all diagnostics: their values are those of `diagnose` on all latents at once, however they are cut and stored."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import unsample as us
from unsample.diagnostics import true_noise
from unsample.diagnostics.streaming import DiagnosisSums


def latents(count, shape=(3, 16, 16)):
    """Noise that is too weak where its picture is plain, the picture, and what is sampled back."""
    images = torch.rand((count, *shape), generator=torch.Generator().manual_seed(1)) * 2 - 1
    images[:, :, : shape[1] // 2] = 0.1
    latent = true_noise((count, *shape), draw=5) + 0.02
    latent[:, :, : shape[1] // 2] *= 0.7
    return latent, images, (images + 0.05 * true_noise(images.shape, draw=6)).clamp(-1, 1)


def summed(parts, size=40):
    sums = DiagnosisSums()
    for first in range(0, len(parts[0]), size):
        rows = [part[first : first + size] for part in parts]
        sums.update(*rows, noise=true_noise(rows[0].shape, draw=100 + first))
    return sums


@pytest.mark.parametrize("size", [7, 40, 200])
def test_values_are_those_of_all_at_once(size):
    """Reference: `diagnose` in double precision."""
    parts = latents(200)
    whole = us.diagnose(parts[0].double(), images=parts[1], reconstruction=parts[2])
    made = DiagnosisSums.of(summed(parts, size).tensors()).diagnosis()
    assert [row.name for row in made.rows] == [row.name for row in whole.rows]
    for row in whole.rows:
        np.testing.assert_allclose(made[row.name].value, row.value, rtol=0, atol=1e-9, err_msg=row.name)


def test_sums_add_up_in_any_order():
    parts = latents(120)
    pieces = [summed([part[first : first + 40] for part in parts]) for first in (80, 0, 40)]
    joined = DiagnosisSums()
    for piece in pieces:
        joined.merge(piece)
    joined.merge(DiagnosisSums())
    for row in us.diagnose(parts[0].double(), images=parts[1], reconstruction=parts[2]).rows:
        np.testing.assert_allclose(joined.diagnosis()[row.name].value, row.value, rtol=0, atol=1e-9, err_msg=row.name)
    groups = [summed([part[first : first + 20] for part in parts]) for first in range(0, 120, 20)]
    patch = joined.diagnosis(groups)["top-20 patch correlation"]
    assert patch.low < patch.value < patch.high


def test_intervals_and_nulls_are_those_of_the_bootstrap_and_of_simulation():
    """Reference: `diagnose`, which resamples images and draws batches of noise; half a width apart at most."""
    parts = latents(200)
    whole, made = us.diagnose(parts[0], images=parts[1], reconstruction=parts[2]), summed(parts).diagnosis()
    for row in whole.rows:
        one = made[row.name]
        if row.low is not None and row.low < row.high and "patch" not in row.name:
            assert max(abs(one.low - row.low), abs(one.high - row.high)) < 0.5 * (row.high - row.low), row.name
        if row.null is not None:
            assert abs(one.null.mean - row.null.mean) <= 0.5 * (row.null.high - row.null.low), row.name


def test_each_image_has_its_own_values():
    latent, images, back = latents(6)
    each = summed((latent, images, back)).update(latent, images, back, noise=true_noise(latent.shape))
    alone = [us.diagnose(latent[i : i + 1], images=images[i : i + 1])["std plain"].value for i in range(6)]
    np.testing.assert_allclose(each["std plain"].numpy(), alone, atol=1e-9)


def test_few_images_and_small_or_many_channels_say_so():
    few = DiagnosisSums()
    few.update(true_noise((1, 1, 3, 3)), noise=true_noise((1, 1, 3, 3), draw=1))
    rows = few.diagnosis()
    assert math.isnan(rows["normality rejected"].value)
    assert "at least 2 images" in rows["KL per coordinate"].note
    assert "at least 32 images" in rows["top-20 patch correlation"].note
    assert rows["std"].low is None
    many = DiagnosisSums()
    many.update(true_noise((32, 16, 64, 64)), noise=true_noise((32, 16, 64, 64), draw=1))
    assert "are not kept" in many.diagnosis()["top-20 patch correlation"].note
    assert sum(tensor.nbytes for tensor in many.tensors().values()) < 2e6


def test_what_does_not_fit_is_refused():
    sums = summed(latents(8))
    with pytest.raises(us.ArgumentError, match="as before"):
        sums.update(true_noise((2, 3, 8, 8)), noise=true_noise((2, 3, 8, 8)))
    with pytest.raises(us.ArgumentError, match="with all batches or with none"):
        sums.update(true_noise((2, 3, 16, 16)), noise=true_noise((2, 3, 16, 16)))
    with pytest.raises(us.ArgumentError, match="same statistics"):
        sums.merge(summed(latents(8)[:1]))
    with pytest.raises(us.ArgumentError, match="given none"):
        DiagnosisSums().diagnosis()
    assert sums.images == 8
