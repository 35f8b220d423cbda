"""Mistakes of existing code that change numbers without a word (the list is in docs/deviations.md), one test each.

A test shows what the mistake would give, and that we do not give it. References: the definitions, written out.
"""

from __future__ import annotations

import math
import weakref

import numpy as np
import pytest
import torch

import unsample as us
from unsample import diagnostics as d
from unsample.core.walk import walk

from .conftest import naive_distances


def images(count: int = 6, side: int = 16) -> torch.Tensor:
    return (0.5 * d.true_noise((count, 3, side, side), seed=3)).clamp(-1, 1)


def test_an_angle_is_averaged_not_its_cosine():
    """Angles of 0 and 90 degrees: their mean is 45, the arc cosine of their mean cosine 60."""
    image = torch.zeros(2, 1, 1, 2)
    noise = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    latent = torch.tensor([[[[2.0, 0.0]]], [[[0.0, 1.0]]]])
    angles = d.triangle(image, noise, latent).at_image
    assert float(angles.mean()) == pytest.approx(45.0)
    assert math.degrees(math.acos(float(angles.deg2rad().cos().mean()))) == pytest.approx(60.0)


def test_psnr_has_the_range_of_the_images():
    """A peak of 255 on images of range 2 would give 42.1 dB more, and on [0, 1] images 48.1 dB more."""
    x = images()
    error = (0.1 * d.true_noise(tuple(x.shape), seed=4)).double()
    by_hand = 10 * torch.log10(4 / error.square().mean((1, 2, 3)))
    assert torch.allclose(d.psnr(x, x + error.float()), by_hand, atol=1e-4)


def test_ssim_has_the_range_of_the_images():
    """SSIM does not depend on the units if its range is theirs: images in [-1, 1] and their mistaken range of 1 disagree."""
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    x = images()
    y = (x + 0.3 * d.true_noise(tuple(x.shape), seed=4)).clamp(-1, 1)
    right = reference(y / 2 + 0.5, x / 2 + 0.5, data_range=1.0, reduction="none")
    wrong = reference(y, x, data_range=1.0, reduction="none")
    assert torch.allclose(d.ssim(x, y).float(), right, atol=1e-4)
    assert float((wrong - right).abs().min()) > 1e-3


def test_a_frechet_distance_sees_the_scale_of_images():
    """Images normalised one by one would make a set and its half-contrast copy the same."""
    x = images(60, 4)
    each = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
    halved = (x / 2 - (x / 2).mean((1, 2, 3), keepdim=True)) / (x / 2).std((1, 2, 3), keepdim=True)
    assert d.frechet(each, halved, features="pixels").value == pytest.approx(0.0, abs=1e-6)
    variance = float(x.flatten(1).var(0).sum())
    assert d.frechet(x, x / 2, features="pixels").value > 0.2 * variance


def test_the_corner_is_not_plain_by_itself():
    """With half a gradient at the last row and column the last corner is plain in every image."""
    checker = torch.ones(1, 1, 8, 8)
    checker[..., ::2, 1::2] = checker[..., 1::2, ::2] = -1
    assert not d.plain_mask(checker).any()


def test_the_last_items_are_not_dropped():
    """7 images in batches of 3; and 11 items of an assignment in divisions of 4."""
    from unsample.models.analytic import gaussian

    model = gaussian(us.Schedule.from_betas(us.Schedule.linear_betas()), torch.full((48,), 0.3), shape=(3, 4, 4))
    x = images(7, 4).double()
    whole = us.invert(model, x, steps=3).latent
    assert torch.allclose(us.invert(model, x, steps=3, batch_size=3).latent, whole)
    assert len(whole) == 7
    noise = d.true_noise((11, 1, 2, 2))
    assert d.assignment_accuracy(noise, noise, division=4).to_images.estimate == 1.0
    spoiled = noise.clone()
    spoiled[-1] += 100.0  # the last item is far from its own
    assert d.assignment_accuracy(noise, spoiled, division=4).to_noise.estimate < 1.0


def test_noise_belongs_to_the_item():
    """Not to the batch, its size, its order, or the number of processes."""
    together = us.ItemNoise(0, range(8)).draw((8, 3))
    for part in (range(3), range(3, 8), [7, 2]):
        alone = us.ItemNoise(0, list(part)).draw((len(part), 3))
        assert torch.equal(alone, together[list(part)])


def test_a_walk_holds_one_state():
    """Not the whole trajectory: of 30 states at most a few are alive at a time."""
    grid = us.Grid.of(us.Schedule.from_betas(us.Schedule.linear_betas()), 30)
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    for moved in walk(lambda x, level: 0.1 * x, torch.ones(1, 3, 4, 4), grid.up(), us.DDIM()):
        alive.append(weakref.ref(moved.x))
        most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == 30
    assert most <= 3


def test_line_distances_need_three_products_not_three_loops():
    """|x - n - a(l - n)| over all points at once is what the loop over items and points gives."""
    x, noise, latent = (d.true_noise((5, 3, 4, 4), seed=s).double() for s in range(3))
    found = d.line_distances(x, noise, latent, points=7)
    assert found.numpy() == pytest.approx(np.array(naive_distances(x, noise, latent, 7)), rel=1e-9)


def test_top_k_is_read_beside_its_floor():
    """True noise is not 0: at 32 images its top-20 r is .59, at 128 it is .31. Two counts cannot be compared."""
    few, many = (d.top_k_correlation(d.true_noise((n, 3, 16, 16), seed=n)) for n in (32, 128))
    assert few > 1.7 * many > 0.5
    assert d.correlation_floor(32, (3, 16, 16)).mean == pytest.approx(few, rel=0.05)
