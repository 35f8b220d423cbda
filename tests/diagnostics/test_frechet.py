import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import true_noise
from unsample.diagnostics.frechet import Frechet, frechet, frechet_distance, frechet_jackknife, frechet_null

from .conftest import jackknife_of


def reference(mean_a, cov_a, mean_b, cov_b):
    """The formula with scipy's square root of the product."""
    from scipy.linalg import sqrtm

    root = sqrtm(cov_a @ cov_b)
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root.real))


def of_data(a, b):
    x, y = (t.double().flatten(1).numpy() for t in (a, b))
    return reference(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))


def sets(n, m, d):
    """Two sets of features with different means and covariances that do not commute."""
    mix = true_noise((2, d, d), draw=9)
    return true_noise((n, d)) @ mix[0] + 3, true_noise((m, d), draw=1) @ mix[1] + 2


@pytest.mark.parametrize("d", [1, 2, 7, 30])
def test_distance_against_scipys_square_root(d):
    a, b = (t.double() for t in sets(80, 60, d))
    arguments = (a.mean(0), torch.cov(a.T).reshape(d, d), b.mean(0), torch.cov(b.T).reshape(d, d))
    assert frechet_distance(*arguments) == pytest.approx(reference(*(t.numpy() for t in arguments)), rel=1e-9)


def test_distance_against_torchmetrics():
    from torchmetrics.image.fid import _compute_fid

    a, b = (t.double() for t in sets(80, 60, 6))
    arguments = (a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))
    assert frechet_distance(*arguments) == pytest.approx(float(_compute_fid(*arguments)), rel=1e-9)


def test_covariances_that_commute_have_a_closed_form():
    """In a common basis it is the sum of (sqrt(v1) - sqrt(v2))^2, whether or not a variance is 0."""
    turn, _ = torch.linalg.qr(true_noise((5, 5)).double())
    v, w = torch.tensor([4.0, 1.0, 0.0, 9.0, 0.0]).double(), torch.tensor([1.0, 16.0, 25.0, 0.0, 0.0]).double()
    a, b = (turn @ torch.diag(values) @ turn.T for values in (v, w))
    expected = float((v.sqrt() - w.sqrt()).square().sum()) + 5 * 4
    assert frechet_distance(torch.zeros(5), a, torch.full((5,), 2.0), b) == pytest.approx(expected, rel=1e-12)


def test_pitfall_singular_covariances_cost_no_digits():
    """The square roots of rounding errors in 300 empty directions would add up to about 1e-6."""
    a = torch.zeros(300, 300, dtype=torch.float64)
    a[:5, :5] = torch.cov(true_noise((50, 5)).double().T)
    turn, _ = torch.linalg.qr(true_noise((300, 300)).double())
    a = turn @ a @ turn.T
    zero = torch.zeros(300)
    assert frechet_distance(zero, a, zero, 4 * a) == pytest.approx(float(a.trace()), rel=1e-12)
    assert frechet_distance(zero, a, zero, a) < 1e-12


@pytest.mark.parametrize(("n", "m", "d"), [(50, 40, 6), (50, 8, 12), (15, 20, 40), (2, 2, 3), (30, 30, 59), (30, 30, 60)])
def test_frechet_of_data_against_scipys_square_root(n, m, d):
    """With more items than dimensions and with fewer, where another way is taken; scipy keeps half the digits there."""
    a, b = sets(n, m, d)
    found = frechet(a, b, features="noise")
    assert found.value == pytest.approx(of_data(a, b), rel=1e-9 if min(n, m) > d else 1e-5)
    assert (found.images, found.dimensions, found.error) == ((n, m), d, None)


def test_images_are_flattened_and_order_does_not_matter():
    a, b = true_noise((20, 3, 4, 4)), 2 * true_noise((30, 3, 4, 4), draw=1)
    found = frechet(a, b, features="pixels")
    assert found.dimensions == 48
    assert found.value == pytest.approx(frechet(b, a, features="pixels").value, rel=1e-9)
    assert found.value == pytest.approx(frechet(a.flip(0) + 5, b + 5, features="pixels").value, rel=1e-5)


def test_blocks_do_not_change_the_value(smallest_blocks):
    a, b = sets(10, 12, 40)
    whole = frechet(a, b, features="x").value
    smallest_blocks(70)
    assert frechet(a, b, features="x").value == pytest.approx(whole, rel=1e-9)


def test_pitfall_items_are_not_normalised_one_by_one():
    """A set at half the scale is no less far away for it."""
    a = true_noise((2000, 3))
    assert frechet(a, a / 2, features="x").value == pytest.approx(3 / 4, rel=0.05)
    assert frechet(a, a, features="x").value < 1e-12


@pytest.mark.parametrize(("n", "m", "d"), [(400, 400, 5), (1000, 500, 12)])
def test_bias_on_white_noise_is_the_closed_form(n, m, d):
    """D (D + 5) / 4 (1/N + 1/M): D for the means, D (D + 1) / 4 for the covariances."""
    found = [
        frechet(true_noise((n, d), draw=2 * i), true_noise((m, d), draw=2 * i + 1), features="x").value for i in range(40)
    ]
    expected = d * (d + 5) / 4 * (1 / n + 1 / m)
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / math.sqrt(40))
    assert np.mean(found) == pytest.approx(expected, rel=0.2)


def test_two_sets_of_noise_lie_within_the_null_at_its_rate():
    inside = 0
    for i in range(80):
        a, b = true_noise((60, 6), draw=3 * i), true_noise((60, 6), draw=3 * i + 1)
        null = frechet_null(true_noise((120, 6), draw=3 * i + 2), 60, seed=i)
        inside += null.low <= frechet(a, b, features="x").value <= null.high
    assert 0.86 <= inside / 80 <= 1


def test_null_is_that_of_disjoint_halves_and_falls_with_the_count():
    a = true_noise((200, 6))
    assert frechet_null(a, 25).mean == pytest.approx(4 * frechet_null(a, 100).mean, rel=0.5)
    assert frechet(a, a * 1.5, features="x").value > frechet_null(a, 100).high


def test_null_has_only_the_values_of_disjoint_halves():
    """Four items have three splits in two, with closed forms; the draws take no other value."""
    items = [0.0, 1.0, 10.0, 21.0]

    def split(i, j, k, m):
        return ((i + j) / 2 - (k + m) / 2) ** 2 + (
            abs(i - j) - abs(k - m)
        ) ** 2 / 2  # the std of two items is their gap / sqrt(2)

    known = [split(*items), *(split(0.0, items[i], *(items[j] for j in (1, 2, 3) if j != i)) for i in (2, 3))]
    for seed in range(20):
        null = frechet_null(torch.tensor(items)[:, None], 2, draws=2, seed=seed)
        for value in (null.mean - null.std / math.sqrt(2), null.mean + null.std / math.sqrt(2)):  # the two draws
            assert min(abs(value - k) for k in known) < 1e-6


@pytest.mark.parametrize(("n", "m", "d", "groups"), [(60, 43, 4, 10), (24, 24, 6, 4), (20, 20, 60, 5)])
def test_jackknife_against_leaving_groups_out_one_by_one(n, m, d, groups):
    a, b = sets(n, m, d)
    found = frechet_jackknife(a, b, features="x", groups=groups)
    expected = jackknife_of(lambda kept: of_data(a[kept[kept < n]], b[kept[kept < m]]), max(n, m), groups)
    assert found.error == pytest.approx(expected, rel=1e-3)
    assert found.value == frechet(a, b, features="x").value


def test_error_is_the_spread_of_fresh_draws():
    found = []
    for i in range(40):
        a, b = true_noise((100, 4), draw=2 * i), 2 * true_noise((100, 4), draw=2 * i + 1)
        found.append(frechet_jackknife(a, b, features="x"))
    error = math.sqrt(np.mean([f.error**2 for f in found]))
    assert 0.75 < error / np.std([f.value for f in found]) < 1.6


def test_error_of_pairs_sees_that_they_are_pairs():
    """An image and its own reconstruction scatter together; the error is the smaller for it."""
    a = true_noise((200, 4))
    paired = frechet_jackknife(a, 1.5 * a, features="x").error
    assert paired < 0.8 * frechet_jackknife(a, 1.5 * true_noise((200, 4), draw=1), features="x").error


def test_the_text_says_which_features_and_how_many_images():
    assert str(Frechet(2.0, "DINOv2-small", (500, 400), 384, 0.1)) == (
        "2 +- 0.1 (Frechet distance of DINOv2-small, 384 dimensions, 500 and 400 images)"
    )
    assert "its null" in str(Frechet(2.0, "pixels", (384, 4000), 384))
    assert not Frechet(2.0, "pixels", (385, 4000), 384).singular


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: frechet(true_noise((5, 3)), true_noise((5, 4)), features="x"), "same features"),
        (lambda: frechet(true_noise((1, 3)), true_noise((5, 3)), features="x"), "two items"),
        (lambda: frechet(true_noise((5, 3)), true_noise((5, 3)), features=" "), "expected their name"),
        (lambda: frechet(true_noise((5, 3)), true_noise((5, 3)) * math.nan, features="x"), "b: expected finite"),
        (lambda: frechet_jackknife(true_noise((50, 3)), true_noise((9, 3)), features="x"), "groups: expected 2 to 4"),
        (lambda: frechet_null(true_noise((9, 3)), 5), "count: expected 2 to 4"),
        (lambda: frechet_null(true_noise((9, 3)), 4, draws=1), "draws"),
        (lambda: frechet_distance(torch.zeros(3), torch.eye(3), torch.zeros(2), torch.eye(2)), "means"),
        (lambda: frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(2), -torch.eye(2)), "semidefinite"),
        (lambda: frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(2), torch.ones(2, 2).triu()), "symmetric"),
    ],
)
def test_refusals(call, says, refuses):
    refuses(call, says)
