import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import (
    MIN_IMAGES,
    correlation,
    correlation_floor,
    patch_correlation,
    top_k_correlation,
    top_k_jackknife,
    top_k_r,
    true_noise,
)

from .conftest import jackknife_of


def reference(window, k):
    """numpy.corrcoef and a sort."""
    r = np.corrcoef(window.double().reshape(len(window), -1).numpy(), rowvar=False)
    return np.sort(np.abs(r[np.triu_indices(len(r), 1)]))[-k:].mean()


def structured(n=60, shape=(2, 12, 20)):
    x = true_noise((n, *shape))
    x[:, :, 2:6, 3:9] += 0.8 * true_noise((n, 1, 1, 1), draw=1)
    return x * 3 + 5


def test_windows_against_numpy_with_the_last_one_moved_to_the_edge():
    x = structured()
    expected = [[reference(x[:, :, i : i + 8, j : j + 8], 20) for j in (0, 8, 12)] for i in (0, 4)]
    assert patch_correlation(x).numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert top_k_correlation(x) == pytest.approx(np.mean(expected), abs=1e-6)


def test_image_smaller_than_the_patch_is_one_window():
    x = structured(shape=(3, 5, 6))
    assert top_k_correlation(x, k=7) == pytest.approx(reference(x, 7), abs=1e-6)


def test_top_k_r_against_numpy():
    x = structured().reshape(60, -1)[:, ::9]
    assert top_k_r(x, k=5) == pytest.approx(reference(x, 5), abs=1e-6)


def test_chunks_do_not_change_the_value(monkeypatch):
    x = structured(shape=(1, 24, 24))
    whole = patch_correlation(x), top_k_jackknife(x)
    monkeypatch.setattr(correlation, "WORKING_BYTES", 1)
    assert torch.allclose(patch_correlation(x), whole[0], atol=1e-6)
    assert top_k_jackknife(x).error == pytest.approx(whole[1].error, rel=1e-3)


def test_pitfall_a_mean_far_above_the_spread_does_not_cancel():
    x = true_noise((64, 1, 8, 8)).double()
    assert top_k_correlation(x + 1e6) == pytest.approx(top_k_correlation(x), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pitfall_constant_variables_count_as_zero_not_as_rounding(dtype):
    x = torch.full((50, 1, 8, 8), 0.1, dtype=dtype)
    assert top_k_correlation(x) == 0
    assert top_k_jackknife(x).value == 0
    x[:, :, 0] = true_noise((50, 1, 8)).to(dtype)
    assert top_k_correlation(x, k=28) == pytest.approx(top_k_correlation(x[:, :, :1], k=28), abs=1e-6)


def test_half_precision_is_taken():
    x = structured(shape=(1, 8, 8))
    assert top_k_correlation(x.half()) == pytest.approx(top_k_correlation(x), abs=0.01)


@pytest.mark.parametrize(("channels", "constant"), [(3, 3.51), (4, 3.64)])
def test_floor_of_true_noise(channels, constant):
    """The paper's noise column: constant / sqrt(N)."""
    floor = correlation_floor(1024, (channels, 16, 16))
    assert floor.mean == pytest.approx(constant / math.sqrt(1024), rel=0.03)


def test_floor_against_whole_batches_of_noise():
    values = [top_k_correlation(true_noise((64, 1, 20, 12), seed=5, draw=i)) for i in range(40)]
    floor = correlation_floor(64, (1, 20, 12), draws=16)
    assert np.mean(values) == pytest.approx(floor.mean, rel=0.01)
    assert np.std(values) == pytest.approx(floor.std, rel=0.4)
    assert np.mean([floor.low < v < floor.high for v in values]) >= 0.85


def test_floor_of_an_image_smaller_than_the_patch():
    assert 0 < correlation_floor(64, (3, 4, 5)).mean < 1


@pytest.mark.parametrize("constant", [False, True])
def test_jackknife_against_leaving_groups_out_one_by_one(constant):
    """Also with a variable that is constant without a group."""
    x = structured(n=66)
    if constant:
        x[:, 0, 0, 0] = 0
        x[::10, 0, 0, 0] = 1  # all in group 0
    found = top_k_jackknife(x)
    expected = top_k_correlation(x), jackknife_of(lambda kept: top_k_correlation(x[kept]), 66, 10)
    assert (found.value, found.error) == pytest.approx(expected, rel=1e-4)


def test_jackknife_covers_the_spread_of_fresh_draws():
    """Where true correlations are strong the error is close to that spread, and not below it by much."""

    def draw(i):
        return true_noise((96, 1, 8, 8), draw=2 * i) + 0.6 * true_noise((96, 1, 1, 1), draw=2 * i + 1)

    found = [top_k_jackknife(draw(i)) for i in range(40)]
    spread = np.std([f.value for f in found])
    error = math.sqrt(np.mean([f.error**2 for f in found]))
    assert 0.7 < error / spread < 1.8


def test_pitfall_a_bootstrap_of_images_inflates_r():
    x = true_noise((64, 1, 8, 8))
    index = torch.randint(64, (64,), generator=torch.Generator().manual_seed(0))
    assert top_k_correlation(x[index]) > 1.1 * top_k_correlation(x)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: top_k_correlation(true_noise((MIN_IMAGES - 1, 3, 8, 8))), "at least 32 images.*given 31"),
        (lambda: top_k_correlation(true_noise((40, 8, 8))), "4 dimensions"),
        (lambda: top_k_correlation(true_noise((40, 1, 2, 2))), "k: expected 1 to 6"),
        (lambda: top_k_correlation(true_noise((40, 1, 8, 8)), k=0), "k: expected"),
        (lambda: top_k_correlation(true_noise((40, 1, 8, 8)), patch=0), "patch"),
        (lambda: top_k_correlation(true_noise((40, 1, 8, 8)) * math.inf), "finite"),
        (lambda: top_k_r(true_noise((40, 1, 8, 8))), "flatten"),
        (lambda: top_k_jackknife(true_noise((40, 1, 8, 8)), groups=30), "groups"),
        (lambda: correlation_floor(16, (3, 8, 8)), "at least 32"),
        (lambda: correlation_floor(64, (2, 3, 8, 8)), "leave the batch out"),
        (lambda: correlation_floor(64, (3, 8, 8), draws=1), "draws"),
    ],
)
def test_refusals(call, says, refuses):
    refuses(call, says)
