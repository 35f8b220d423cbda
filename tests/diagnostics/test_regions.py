import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import area_sums, plain_mask, resize_mask, true_noise
from unsample.errors import ArgumentError


def naive_plain(images, tau):
    b, c, h, w = images.shape
    u = (images.double() + 1) / 2
    mask = torch.zeros(b, h, w, dtype=torch.bool)
    for n in range(b):
        for i in range(h):
            for j in range(w):
                slopes = []
                for k in range(c):
                    dh = u[n, k, i + 1, j] - u[n, k, i, j] if i + 1 < h else u[n, k, i, j] - u[n, k, i - 1, j]
                    dw = u[n, k, i, j + 1] - u[n, k, i, j] if j + 1 < w else u[n, k, i, j] - u[n, k, i, j - 1]
                    slopes.append((dh.abs() + dw.abs()) / 2)
                mask[n, i, j] = max(slopes) < tau
    return mask


def naive_area(x, mask):
    values, pairs = [], []
    b, c, h, w = x.shape
    for n in range(b):
        for k in range(c):
            for i in range(h):
                for j in range(w):
                    if not mask[n, i, j]:
                        continue
                    values.append(float(x[n, k, i, j]))
                    if i + 1 < h and mask[n, i + 1, j]:
                        pairs.append((float(x[n, k, i, j]), float(x[n, k, i + 1, j])))
                    if j + 1 < w and mask[n, i, j + 1]:
                        pairs.append((float(x[n, k, i, j]), float(x[n, k, i, j + 1])))
    mean, var = np.mean(values), np.var(values)
    return mean, math.sqrt(var), np.mean([(a - mean) * (b - mean) for a, b in pairs]) / var


@pytest.fixture
def images():
    return (true_noise((3, 3, 7, 5)) * 0.05).cumsum(-1).clamp(-1, 1)


def test_plain_mask_against_a_loop(images):
    mask = plain_mask(images, tau=0.03)
    assert 0 < mask.float().mean() < 1
    assert torch.equal(mask, naive_plain(images, 0.03))


def test_pitfall_corner_and_edges_are_not_always_plain():
    busy = true_noise((64, 3, 8, 8)).clamp(-1, 1)
    mask = plain_mask(busy)
    assert not mask[:, -1, -1].any()
    inner, edge = mask[:, :-1, :-1].float().mean(), mask[:, -1].float().mean()
    assert edge <= inner + 0.01


def test_pitfall_edges_get_a_full_gradient():
    ramp = torch.linspace(-1, 1, 8).expand(1, 3, 8, 8)
    slope = 1 / 7 / 2  # of [0, 1] values, along one direction only
    assert not plain_mask(ramp, tau=slope * 0.99).any()
    assert plain_mask(ramp, tau=slope * 1.01).all()


def test_plain_is_in_all_channels():
    images = torch.zeros(1, 3, 4, 4)
    images[:, 1] = true_noise((4, 4)).clamp(-1, 1)
    assert not plain_mask(images).all()
    assert plain_mask(images[:, [0, 2]]).all()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.zeros(3, 4, 4), "x\\[None\\]"),
        (torch.zeros(1, 3, 1, 4), "at least 2"),
        (torch.full((1, 3, 4, 4), 255.0), "127.5"),
        (torch.full((1, 3, 4, 4), math.nan), "finite"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "floating-point"),
        (torch.zeros(0, 3, 4, 4), "at least one"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_plain_mask_refuses(bad, says):
    with pytest.raises(ArgumentError, match=says):
        plain_mask(bad)


@pytest.mark.parametrize(("old", "new"), [((8, 8), (4, 2)), ((7, 5), (3, 4)), ((4, 6), (8, 12)), ((5, 5), (5, 5))])
def test_resize_mask_against_areas_counted_on_a_common_grid(old, new):
    mask = true_noise((6, *old)) > 0
    fine = mask.repeat_interleave(new[0], 1).repeat_interleave(new[1], 2)  # each axis old * new long
    share = fine.double().reshape(6, new[0], old[0], new[1], old[1]).mean((2, 4))
    assert torch.equal(resize_mask(mask, new), share >= 0.5 - 1e-9)


@pytest.mark.usefixtures("untyped")
def test_resize_mask_refuses():
    with pytest.raises(ArgumentError, match="plain_mask"):
        resize_mask(torch.zeros(1, 4, 4), (2, 2))


def test_area_sums_against_a_loop(images):
    x = true_noise(tuple(images.shape), seed=3) * 1.7 + 0.4
    mask = plain_mask(images, tau=0.03)
    sums = area_sums(x, mask)
    assert (sums.mean, sums.std, sums.lag1) == pytest.approx(naive_area(x, mask), abs=1e-9)


def test_lag1_of_an_autoregressive_field_is_its_coefficient():
    rho, x = 0.6, true_noise((64, 1, 32, 32))
    steps = [x[..., 0]]
    for j in range(1, 32):
        steps.append(rho * steps[-1] + math.sqrt(1 - rho**2) * x[..., j])
    field = torch.stack(steps, -1)  # correlated along rows, white along columns: pooled, rho / 2
    assert area_sums(field).lag1 == pytest.approx(rho / 2, abs=0.01)


def test_pairs_across_the_border_do_not_count():
    x, mask = torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :, ::2] = True  # columns 0 and 2 never touch
    assert area_sums(x, mask).pairs.tolist() == [6.0]


def test_empty_area_has_no_statistics():
    sums = area_sums(true_noise((2, 3, 4, 4)), torch.zeros(2, 4, 4, dtype=torch.bool))
    assert all(math.isnan(v) for v in (sums.mean, sums.std, sums.lag1))


def test_sums_do_not_depend_on_the_blocks(smallest_blocks):
    x = true_noise((5, 2, 6, 6))
    whole = area_sums(x)
    smallest_blocks()
    assert area_sums(x).products.tolist() == whole.products.tolist()


@pytest.mark.usefixtures("untyped")
def test_area_sums_refuse_a_mask_that_does_not_fit():
    x = true_noise((2, 3, 4, 4))
    with pytest.raises(ArgumentError, match="resize_mask"):
        area_sums(x, torch.ones(2, 8, 8, dtype=torch.bool))
    with pytest.raises(ArgumentError, match="bool"):
        area_sums(x, torch.ones(2, 4, 4))
    with pytest.raises(ArgumentError, match="unknown statistic"):
        area_sums(x).pooled("median")


def test_interval_of_std_resamples_images_not_pixels():
    """Images of different scale: the interval must see that scatter, which pixels alone would hide."""
    scale = torch.linspace(0.5, 1.5, 20)[:, None, None, None]
    found = area_sums(true_noise((20, 3, 16, 16)) * scale).pooled("std").interval()
    assert found.low < found.estimate < found.high
    assert found.high - found.low > 0.15  # of pixels it would be about 0.03
