import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import true_noise
from unsample.diagnostics.assignment import assignment_accuracy, nearest


def naive_nearest(a, b):
    """A loop over items: the differences, squared and summed in float64; numpy's argmin takes the first of equals."""
    rows, others = a.double().flatten(1).numpy(), b.double().flatten(1).numpy()
    return [int(np.argmin(((others - row) ** 2).sum(1))) for row in rows]


def related(count, strength, shape=(3, 4, 4)):
    """Noises, and images that hold some of their noise."""
    noise = true_noise((count, *shape))
    return noise, strength * noise + 0.5 * true_noise(noise.shape, draw=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_nearest_against_a_float64_loop(dtype, offset):
    noise, images = (t.to(dtype) + offset for t in related(70, 0.1))
    assert nearest(noise, images[:50]).tolist() == naive_nearest(noise, images[:50])
    assert nearest(images[:50], noise).tolist() == naive_nearest(images[:50], noise)


def close_together(offset):
    """Candidates that differ by a millionth, far from the items that look for them."""
    a = true_noise((60, 40)).double() + offset
    return a, 30 + a[:1] + 1e-6 * true_noise((50, 40), draw=1).double()


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_pitfall_float32_products_cannot_decide(offset):
    a, b = close_together(offset)
    expected = naive_nearest(a, b)
    single = b.float().square().sum(1) / 2 - a.float() @ b.float().T
    assert np.mean(single.argmin(1).numpy() == expected) < 0.6
    assert nearest(a, b).tolist() == expected


def test_ties_go_to_the_lowest_index_across_blocks(smallest_blocks):
    a = true_noise((9, 3, 4, 4))
    b = torch.cat([a[[4, 2, 4]], a, a[:3], a])
    expected = [3, 4, 1, 6, 0, 8, 9, 10, 11]
    assert naive_nearest(a, b) == expected
    assert nearest(a, b).tolist() == expected
    for budget in (1, 48 * 2, 48 * 5):
        smallest_blocks(budget)
        assert nearest(a, b).tolist() == expected
    assert nearest(a, torch.zeros(5, 3, 4, 4)).tolist() == [0] * 9


def test_blocks_do_not_change_the_answer_and_the_last_items_count(smallest_blocks):
    noise, images = related(41, 0.1)
    whole = nearest(noise, images).tolist()
    smallest_blocks(48 * 7)
    assert nearest(noise, images).tolist() == whole == naive_nearest(noise, images)


def test_values_beyond_float32_are_compared_all_the_same():
    noise, images = (t.double() * 1e25 for t in related(20, 0.1))
    assert nearest(noise, images).tolist() == naive_nearest(noise, images)


def test_nearest_changes_nothing():
    noise, images = (t.double() for t in related(20, 0.1))
    before = noise.clone(), images.clone()
    nearest(noise, images)
    assert torch.equal(noise, before[0])
    assert torch.equal(images, before[1])


def naive_accuracy(noise, images, sizes):
    """Division by division, item by item, both ways."""
    shares, start = [], 0
    for size in sizes:
        part = slice(start, start := start + size)
        ways = naive_nearest(noise[part], images[part]), naive_nearest(images[part], noise[part])
        shares.append([np.mean(np.array(way) == np.arange(size)) for way in ways])
    return np.array(shares)


@pytest.mark.parametrize(
    ("items", "division", "sizes"),
    [(64, 32, (32, 32)), (47, 32, (47,)), (49, 32, (25, 24)), (20, 32, (20,)), (70, 16, (18, 18, 17, 17)), (3, 1, (1, 1, 1))],
)
def test_accuracy_against_a_loop_with_every_item_kept(items, division, sizes):
    """Pitfall: the last items, which do not fill a division, are not dropped."""
    noise, images = related(items, 0.15)
    found, expected = assignment_accuracy(noise, images, division), naive_accuracy(noise, images, sizes)
    assert found.divisions == sizes
    assert found.to_images_each == pytest.approx(expected[:, 0])
    assert found.to_noise_each == pytest.approx(expected[:, 1])
    assert found.to_images.estimate == pytest.approx(np.average(expected[:, 0], weights=sizes))
    assert found.to_noise.estimate == pytest.approx(np.average(expected[:, 1], weights=sizes))
    assert found.chance == pytest.approx(np.average(1 / np.array(sizes), weights=sizes))


def test_the_two_ways_differ_where_images_differ_in_size():
    """Closed form: a noise n is 1.5 |n| from its image 2.5 n and |n| from a grey one; every image finds its noise."""
    noise = true_noise((16, 3, 8, 8))
    images = 2.5 * noise
    images[15] = 0
    found = assignment_accuracy(noise, images)
    assert found.to_images.estimate == 1 / 16
    assert found.to_noise.estimate >= 15 / 16


def test_order_within_a_division_does_not_matter():
    noise, images = related(40, 0.15)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert assignment_accuracy(noise[order], images[order]) == assignment_accuracy(noise, images)


def test_unrelated_noise_and_images_reach_chance_with_intervals_that_hold_it():
    found = [
        assignment_accuracy(true_noise((256, 1, 8, 8), draw=i), 0.4 * true_noise((256, 1, 8, 8), seed=1, draw=i), 16)
        for i in range(60)
    ]
    for way in ("to_images", "to_noise"):
        intervals = [getattr(f, way) for f in found]
        assert np.mean([i.estimate for i in intervals]) == pytest.approx(1 / 16, abs=0.006)  # three standard errors
        assert np.mean([i.low < 1 / 16 < i.high for i in intervals]) >= 0.88


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: nearest(torch.ones(3, 4), torch.ones(3, 5)), "items .* of one shape"),
        (lambda: nearest(torch.ones(3), torch.ones(3)), "items .* of one shape"),
        (lambda: nearest(torch.ones(3, 4), torch.ones(0, 4)), "b: expected at least one value"),
        (lambda: nearest(torch.full((3, 4), math.nan), torch.ones(3, 4)), "a: expected finite"),
        (lambda: assignment_accuracy(torch.ones(3, 1, 2, 2), torch.ones(2, 1, 2, 2)), "noise and images of one shape"),
        (lambda: assignment_accuracy(torch.ones(3, 2, 2), torch.ones(3, 2, 2)), "noise: expected 4 dimensions"),
        (lambda: assignment_accuracy(torch.ones(3, 1, 2, 2), torch.ones(3, 1, 2, 2), 0), "division: expected at least 1"),
    ],
)
def test_refusals(call, says, refuses):
    refuses(call, says)
