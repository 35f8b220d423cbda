import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import plain_mask, true_noise
from unsample.diagnostics.diversity import complexity, group_diversity, pairwise_distance


def noise_distance(d):
    """Closed form: the mean of |x - y| / sqrt(d) for white noise, sqrt(2) times the mean of a chi distribution."""
    return 2 * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2)) / math.sqrt(d)


def naive_distances(x):
    flat = x.double().flatten(1).numpy()
    return np.array([np.sqrt(((a - b) ** 2).mean()) for i, a in enumerate(flat) for b in flat[i + 1 :]])


@pytest.mark.parametrize("shape", [(3, 4), (9, 5), (6, 3, 4, 4)])
def test_pairwise_distance_against_a_loop(shape):
    x = true_noise(shape) * 2 + 30
    assert pairwise_distance(x).value == pytest.approx(naive_distances(x).mean(), rel=1e-9)


def test_pairwise_distance_against_scipy():
    from scipy.spatial.distance import pdist

    x = true_noise((50, 12))
    assert pairwise_distance(x).value == pytest.approx(pdist(x.double().numpy()).mean() / math.sqrt(12), rel=1e-9)


def test_pseudo_values_against_leaving_items_out_one_by_one():
    """N U - (N - 1) U without item i, the definition of the jackknife's pseudo-value."""
    x = true_noise((8, 5))
    found = pairwise_distance(x)
    left = [naive_distances(x[torch.arange(8) != i]).mean() for i in range(8)]
    assert found.sums[:, 0] == pytest.approx(8 * found.value - 7 * np.array(left), rel=1e-9)


def test_interval_covers_the_closed_form_at_its_rate():
    found = [pairwise_distance(true_noise((40, 4), draw=i)).interval(draws=400) for i in range(150)]
    assert 0.88 <= np.mean([f.low < noise_distance(4) < f.high for f in found]) <= 0.99
    half = [abs(f.estimate - noise_distance(4)) < (f.high - f.low) / 4 for f in found]
    assert np.mean(half) < 0.85  # distances averaged per item, not pseudo-values, would be this narrow


@pytest.mark.parametrize("d", [1, 3, 48])
def test_distance_of_white_noise_is_the_closed_form(d):
    assert pairwise_distance(true_noise((800, d))).value == pytest.approx(noise_distance(d), rel=0.02)


def test_equal_items_are_at_no_distance():
    x = true_noise((1, 50)).expand(4, 50) * 10 + 7
    assert pairwise_distance(x).value < 1e-6
    assert group_diversity(x[None]).item() < 1e-6


def test_group_diversity_against_a_loop():
    x = true_noise((5, 3, 2, 4, 4)) * torch.arange(1, 6)[:, None, None, None, None] + 9
    expected = [naive_distances(group).mean() for group in x]
    assert group_diversity(x).tolist() == pytest.approx(expected, rel=1e-9)


def test_group_of_all_is_the_pairwise_distance():
    x = true_noise((12, 7))
    assert group_diversity(x[None]).item() == pytest.approx(pairwise_distance(x).value, rel=1e-12)


def test_blocks_do_not_change_the_value(smallest_blocks):
    x, images = true_noise((9, 2, 4, 4)), true_noise((5, 3, 6, 6)).clamp(-1, 1)

    def all_of_it():
        found = complexity(images)
        groups = group_diversity(x.reshape(3, 3, 2, 4, 4)).tolist()
        return [pairwise_distance(x).value, *groups, *found.slopes, *found.deviations]

    whole = all_of_it()
    smallest_blocks(40)
    assert all_of_it() == pytest.approx(whole, rel=1e-12)


def naive_complexity(images, mask, window):
    """Slope and local deviation by loops over pixels, (sum, count) image by image."""
    u, (b, c, h, w) = (images.double().numpy() + 1) / 2, images.shape
    slopes, variances = np.zeros((b, 2)), np.zeros((b, 2))
    for n in range(b):
        for i in range(h):
            for j in range(w):
                down, right = (i + 1 if i + 1 < h else i - 1), (j + 1 if j + 1 < w else j - 1)
                if mask[n, i, j] and mask[n, down, j] and mask[n, i, right]:
                    for k in range(c):
                        step = abs(u[n, k, down, j] - u[n, k, i, j]) + abs(u[n, k, i, right] - u[n, k, i, j])
                        slopes[n] += step / 2, 1
                if i + window <= h and j + window <= w and mask[n, i : i + window, j : j + window].all():
                    for k in range(c):
                        variances[n] += u[n, k, i : i + window, j : j + window].var(ddof=1), 1
    return slopes, variances


@pytest.fixture
def images():
    return (true_noise((4, 3, 7, 6)) * 0.1).cumsum(-1).clamp(-1, 1)


@pytest.mark.parametrize("window", [2, 3, 5])
def test_complexity_against_loops(images, window):
    mask = torch.nn.functional.max_pool2d(true_noise((4, 1, 7, 6), draw=1), 5, 1, 2)[:, 0] > 1.6
    mask[0], mask[1] = True, False
    slopes, variances = naive_complexity(images, mask, window)
    assert 0 < slopes[2:, 1].sum() < 2 * 3 * 42
    found = complexity(images, mask, window)
    assert found.slope.value == pytest.approx(slopes[:, 0].sum() / slopes[:, 1].sum(), rel=1e-9)
    assert found.deviation.value == pytest.approx(np.sqrt(variances[:, 0].sum() / variances[:, 1].sum()), rel=1e-6)
    with np.errstate(invalid="ignore"):
        assert found.slopes == pytest.approx(slopes[:, 0] / slopes[:, 1], rel=1e-9, nan_ok=True)
        assert found.deviations == pytest.approx(np.sqrt(variances[:, 0] / variances[:, 1]), rel=1e-6, nan_ok=True)
    assert math.isnan(found.slopes[1])


def test_slope_is_the_one_that_plain_mask_compares():
    """A threshold just above the slope of a one-pixel difference makes it plain, one just below does not, at the edge too."""
    for i, j in ((1, 1), (3, 3), (3, 1)):
        image = torch.zeros(1, 1, 4, 4)
        image[0, 0, i, j] = 0.4
        area = torch.zeros(1, 4, 4, dtype=torch.bool)
        area[0, i, j] = area[0, i - 1 if i == 3 else i + 1, j] = area[0, i, j - 1 if j == 3 else j + 1] = True
        # Of the three pixels only the middle one has both its neighbours in the area.
        slope = complexity(image, area, window=2).slope.value
        assert slope == pytest.approx(0.2)
        assert plain_mask(image, tau=slope * 1.01)[0, i, j]
        assert not plain_mask(image, tau=slope * 0.99)[0, i, j]


def test_a_constant_has_no_complexity_exactly():
    found = complexity(torch.full((2, 3, 8, 8), 0.2, dtype=torch.float64))
    assert found.slope.value == found.deviation.value == 0


def test_complexity_of_independent_pixels_is_the_closed_form():
    """2 s / sqrt(pi) is the mean |difference| of normal pixels; their s in [0, 1] is half that in [-1, 1]."""
    found = complexity(true_noise((100, 3, 16, 16)) * 0.2)
    for pooled, expected in ((found.slope, 0.2 / math.sqrt(math.pi)), (found.deviation, 0.1)):
        interval = pooled.interval()
        assert pooled.value == pytest.approx(expected, rel=0.01)
        assert interval.low < expected < interval.high


def test_complexity_inside_a_plain_area_does_not_see_its_border():
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = true_noise((1, 3, 8, 4)).clamp(-1, 1)
    left = torch.zeros(1, 8, 8, dtype=torch.bool)
    left[..., :4] = True
    inside, outside = complexity(image, left), complexity(image, ~left)
    assert inside.slope.value == inside.deviation.value == 0
    assert outside.slope.value > 0.2


def test_interval_of_the_complexity_resamples_images():
    images = true_noise((20, 3, 16, 16)) * torch.linspace(0.05, 0.15, 20)[:, None, None, None]
    found = complexity(images).deviation.interval()
    assert found.high - found.low > 0.2 * found.estimate  # of pixels it would be about .03


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pairwise_distance(true_noise((2, 4))), "at least 3 items"),
        (lambda: pairwise_distance(true_noise((5,))), "at least 3 items"),
        (lambda: pairwise_distance(true_noise((5, 4)) * math.nan), "finite"),
        (lambda: group_diversity(true_noise((5, 1, 4))), "at least 2 members"),
        (lambda: group_diversity(true_noise((5, 4))), "at least 2 members"),
        (lambda: complexity(torch.full((1, 3, 8, 8), 255.0)), "127.5"),
        (lambda: complexity(torch.zeros(1, 3, 8, 8), window=1), "window"),
        (lambda: complexity(torch.zeros(1, 3, 8, 2)), "expected 2 to 2"),
        (lambda: complexity(torch.zeros(1, 3, 8, 8), torch.ones(1, 4, 4, dtype=torch.bool)), "mask"),
    ],
)
def test_refusals(call, says, refuses):
    refuses(call, says)
