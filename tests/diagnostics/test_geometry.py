import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import geometry, null, true_noise
from unsample.diagnostics.geometry import (
    Triangle,
    independent_angles,
    line_distances,
    line_position,
    line_products,
    most_probable_triangle,
    products_to_distances,
    triangle,
)

from .conftest import naive_distances

SHAPE = (12, 3, 5, 4)


def points(shape=SHAPE, mix=0.6):
    """An image, a noise, and a latent that shares part of both."""
    image, noise = 0.5 * true_noise(shape) + 0.2, true_noise(shape, draw=1)
    return image, noise, mix * noise + 0.3 * image + 0.4 * true_noise(shape, draw=2)


def flat(*corners):
    """Points of a plane, each as a batch of one item with two values, in float64."""
    return [torch.tensor(corner, dtype=torch.float64).reshape(1, 1, 1, 2) for corner in corners]


def with_angles(rows):
    """A Triangle with the given angles; its sides do not matter."""
    angles = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return Triangle(*angles, *[torch.ones(len(rows), dtype=torch.float64)] * 3)


def test_triangle_against_a_loop_of_arc_cosines():
    image, noise, latent = points()
    found = triangle(image, noise, latent)
    for i in range(len(image)):
        x, n, z = (t[i].double().numpy().ravel() for t in (image, noise, latent))
        sides = [np.linalg.norm(d) for d in (n - z, x - z, x - n)]
        cosines = [
            np.dot(p - v, q - v) / np.linalg.norm(p - v) / np.linalg.norm(q - v)
            for v, p, q in ((x, n, z), (n, x, z), (z, x, n))
        ]
        assert found.angles[i].tolist() == pytest.approx(np.degrees(np.arccos(cosines)), rel=1e-9)
        assert [t[i].item() for t in (found.noise_latent, found.image_latent, found.image_noise)] == pytest.approx(
            sides, rel=1e-12
        )
    assert found.angles.sum(1).tolist() == pytest.approx([180] * len(image), abs=1e-9)


@pytest.mark.parametrize("tiny", [1e-3, 1e-9, 1e-14])
def test_pitfall_small_angles_are_not_rounded_away(tiny):
    """Closed form: two vectors at a known small angle. The arc cosine of their product gives 0 below 1e-8 radians."""
    found = triangle(*flat((0, 0), (1, 0), (math.cos(tiny), math.sin(tiny))))
    assert math.radians(found.at_image.item()) == pytest.approx(tiny, rel=1e-2 if tiny < 1e-13 else 1e-6)
    flipped = triangle(*flat((0, 0), (1, 0), (-math.cos(tiny), math.sin(tiny))))
    assert math.radians(180 - flipped.at_image.item()) == pytest.approx(tiny, rel=1e-6, abs=1e-15)


def test_equal_points_have_no_angle_and_the_third_has_zero():
    image, noise, _ = points()
    found = triangle(image, noise, noise)
    assert found.at_noise.isnan().all()
    assert found.at_latent.isnan().all()
    assert found.at_image.tolist() == [0] * len(image)
    assert found.noise_latent.tolist() == [0] * len(image)


def test_pitfall_neither_blocks_nor_batches_nor_order_matter_and_the_last_items_count(monkeypatch):
    given = points()
    whole = triangle(*given), line_products(*given)
    monkeypatch.setattr(geometry, "IN_CACHE", 5 * 60)  # five items at a time leave two over
    assert torch.equal(triangle(*given).angles, whole[0].angles)
    assert torch.equal(line_products(*given), whole[1])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = [t[order] for t in given]
    assert torch.equal(triangle(*shuffled).angles, whole[0].angles[order])
    parts = [triangle(*(t[part] for t in given)).angles for part in (slice(0, 7), slice(7, 12))]
    assert torch.equal(torch.cat(parts), whole[0].angles)


@pytest.mark.parametrize(("rms", "angles"), [(0.0, (90, 45, 45)), (1.0, (60, 60, 60)), (1e6, (0, 90, 90))])
def test_independent_angles_in_closed_form(rms, angles):
    assert [angle.mean for angle in independent_angles(rms, 3072)] == pytest.approx(angles, abs=1e-3)


@pytest.mark.parametrize("rms", [0.0, 0.5, 1.0, 3.0])
def test_independent_angles_are_where_95_percent_of_true_noise_falls(rms):
    shape = (3000, 1, 16, 16)
    image = torch.sign(true_noise(shape)) * rms  # any image of that root mean square
    found = triangle(image, true_noise(shape, draw=1), true_noise(shape, draw=2))
    for values, expected in zip(found.angles.T.numpy(), independent_angles(rms, 256), strict=True):
        assert values.mean() == pytest.approx(expected.mean, abs=0.1 * expected.std)
        assert values.std() == pytest.approx(expected.std, rel=0.06)
        inside = np.mean((values > expected.low) & (values < expected.high))
        assert 0.935 < inside < 0.965  # 3.8 standard errors


def test_independent_mean_angle_lies_in_the_simulated_null():
    """Images of differing contrast: the null of the mean is simulated, and holds true noise about 95 times in 100."""
    image = 0.4 * true_noise((20, 1, 8, 8), seed=1) * torch.linspace(0.2, 2, 20)[:, None, None, None]
    noise = true_noise(image.shape, seed=1, draw=1)

    def mean_angle(latent):
        return float(triangle(image, noise, latent).at_latent.mean())

    found = null(mean_angle, image.shape, draws=30)
    values = [mean_angle(true_noise(image.shape, seed=2, draw=i)) for i in range(100)]
    assert np.mean([found.low < v < found.high for v in values]) >= 0.87
    assert not found.low < mean_angle(0.8 * noise + 0.6 * true_noise(image.shape, seed=2)) < found.high


def naive_most_probable(angles):
    """Every pair of whole degrees, by loops over histograms whose bins are centred on whole degrees."""
    counts = [np.histogram(column, bins=np.arange(182) - 0.5)[0] for column in angles.T]
    best, where = 0, (math.nan,) * 3
    for a in range(181):
        for b in range(181 - a):
            product = counts[0][a] * counts[1][b] * counts[2][180 - a - b]
            if product > best:
                best, where = product, (a, b, 180 - a - b)
    return where


def test_most_probable_triangle_against_loops():
    rng = np.random.default_rng(0)
    first, second = rng.normal(50, 4, 500), rng.normal(60, 6, 500)
    angles = np.stack([first, second, 180 - first - second], axis=1)
    assert most_probable_triangle(with_angles(angles)) == naive_most_probable(angles)


def test_most_probable_triangle_is_the_mode_and_not_the_mean():
    rows = [[44.6, 88.0, 47.4]] * 6 + [[10.1, 80.2, 89.7]] * 5
    assert most_probable_triangle(with_angles(rows)) == (45, 88, 47)
    assert most_probable_triangle(with_angles(rows), bins=18) == (40, 90, 50)


def test_most_probable_triangle_leaves_out_items_without_one():
    nothing = [math.nan, math.nan, 0.0]
    assert most_probable_triangle(with_angles([[60.0, 60.0, 60.0], nothing])) == (60, 60, 60)
    assert all(map(math.isnan, most_probable_triangle(with_angles([nothing]))))
    # 60.4 three times rounds to a sum of 180 only in wider bins.
    assert all(map(math.isnan, most_probable_triangle(with_angles([[60.4, 60.4, 59.2]]))))
    assert most_probable_triangle(with_angles([[60.4, 60.4, 59.2]]), bins=18) == (60, 60, 60)


@pytest.mark.parametrize("count", [2, 25])
def test_line_distances_against_a_loop_over_items_and_points(count):
    states, noise, latent = points()
    found = line_distances(states, noise, latent, points=count)
    assert found.shape == (12, count)
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(np.array(naive_distances(states, noise, latent, count)), rel=1e-9)


def test_line_products_of_parts_of_an_item_add_up():
    given = points()
    parts = [line_products(*(t[:, channel] for t in given)) for channel in (slice(0, 1), slice(1, 3))]
    assert torch.allclose(products_to_distances(parts[0] + parts[1]), line_distances(*given), rtol=1e-12)


def test_line_distances_of_states_on_the_line_are_zero_there():
    _, noise, latent = points()
    found = line_distances(noise.double() + 0.25 * (latent.double() - noise.double()), noise, latent, points=5)
    whole = (latent.double() - noise.double()).flatten(1).norm(dim=1)
    expected = torch.tensor([0.25, 0, 0.25, 0.5, 0.75], dtype=torch.float64) * whole[:, None]
    assert torch.allclose(found, expected, atol=1e-7 * float(whole.max()))


def test_line_position_is_where_the_distance_is_least():
    """Against a search: scipy's bounded minimiser of the distance along the line."""
    from scipy.optimize import minimize_scalar

    states, noise, latent = (t.double() for t in points())
    found = line_position(states, noise, latent)
    for i in range(12):
        search = minimize_scalar(lambda a, i=i: (states[i] - noise[i] - a * (latent[i] - noise[i])).square().sum().item())
        assert found[i].item() == pytest.approx(search.x, abs=1e-6)
    assert line_position(noise, noise, latent).tolist() == [0] * 12
    assert line_position(latent, noise, latent).tolist() == pytest.approx([1] * 12)
    assert line_position(states, noise, noise).isnan().all()


@pytest.mark.parametrize("rms", [0.0, 0.7, 2.0])
def test_line_position_of_unrelated_states_is_half_way_with_the_stated_spread(rms):
    shape = (3000, 1, 16, 16)
    state = torch.sign(true_noise(shape)) * rms
    found = line_position(state, true_noise(shape, draw=1), true_noise(shape, draw=2))
    std = math.sqrt((1 + 2 * rms**2) / (4 * 256))
    assert found.std().item() == pytest.approx(std, rel=0.06)
    assert 0.935 < float(((found - 0.5).abs() < 1.96 * std).double().mean()) < 0.965


def test_half_precision_is_taken_and_nothing_is_changed():
    given = [t.half() for t in points()]
    before = [t.clone() for t in given]
    wide = [t.double() for t in given]
    assert torch.equal(triangle(*given).angles, triangle(*wide).angles)
    assert torch.equal(line_distances(*given), line_distances(*wide))
    assert all(map(torch.equal, given, before))


IMAGE, NOISE, LATENT = points()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: triangle(IMAGE, NOISE[:3], LATENT), "image and noise of one shape"),
        (lambda: triangle(IMAGE[0], NOISE[0], LATENT[0]), r"image: expected 4 dimensions"),
        (lambda: triangle(IMAGE, NOISE, LATENT * math.nan), "latent: expected finite"),
        (lambda: line_products(IMAGE, NOISE, LATENT[:, :1]), "x and latent of one shape"),
        (lambda: line_distances(IMAGE, NOISE, LATENT, points=1), "points: expected at least 2"),
        (lambda: products_to_distances(torch.ones(3, 4)), r"expected \[B, 3\]"),
        (lambda: products_to_distances(torch.full((1, 3), math.inf)), "products: expected finite"),
        (lambda: most_probable_triangle(triangle(IMAGE, NOISE, LATENT), bins=0), "bins: expected at least 1"),
        (lambda: independent_angles(-1.0, 10), "rms"),
        (lambda: independent_angles(1.0, 0), "dimension"),
    ],
)
def test_refusals(call, says, refuses):
    refuses(call, says)
