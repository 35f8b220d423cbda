import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import true_noise
from unsample.diagnostics.alignment import alignment_null, feature_cosine, linear_cka, svcca
from unsample.errors import ArgumentError


def naive_hsic(x, y):
    """tr(K H L H) / (n - 1)^2 with the centring matrix H = I - 1/n."""
    n = len(x)
    h = np.eye(n) - 1 / n
    return np.trace(x @ x.T @ h @ y @ y.T @ h) / (n - 1) ** 2


def naive_cka(a, b):
    x, y = (t.double().flatten(1).numpy() for t in (a, b))
    return naive_hsic(x, y) / math.sqrt(naive_hsic(x, x) * naive_hsic(y, y))


def related(n, left, right, draw=0):
    """Features of `n` items that share a part, off centre and of different scales."""
    a = true_noise((n, left), draw=draw) + 3
    b = a[:, :1] * 2 + 5 * true_noise((n, right), draw=draw + 1)
    return a, b


@pytest.mark.parametrize(("n", "left", "right"), [(40, 7, 5), (12, 30, 20), (20, 3, 60), (20, 20, 4), (2, 3, 3)])
def test_cka_against_hsic_with_the_centring_matrix(n, left, right):
    a, b = related(n, left, right)
    assert linear_cka(a, b) == pytest.approx(naive_cka(a, b), rel=1e-9)
    assert linear_cka(b, a) == pytest.approx(linear_cka(a, b), rel=1e-12)


def test_cka_of_images_flattens_them():
    a, b = true_noise((10, 3, 4, 4)), true_noise((10, 1, 5, 5), draw=1)
    assert linear_cka(a, b) == pytest.approx(naive_cka(a, b), rel=1e-9)


@pytest.mark.parametrize("n", [50, 6])
def test_cka_does_not_see_rotations_shifts_and_scale(n):
    a, b = related(n, 8, 8)
    turn, _ = torch.linalg.qr(true_noise((8, 8), draw=5).double())
    assert linear_cka(a, a.double() @ turn * 3 + 7) == pytest.approx(1)
    assert linear_cka(a.double() @ turn, b) == pytest.approx(linear_cka(a, b))
    assert linear_cka(a.double() @ torch.diag(torch.arange(1.0, 9).double()), a) < 0.99  # an invertible map is no rotation


@pytest.mark.parametrize(("n", "left", "right"), [(200, 20, 50), (64, 64, 64), (50, 300, 300)])
def test_cka_of_independent_noise_is_the_closed_form_and_not_zero(n, left, right):
    found = [linear_cka(true_noise((n, left), draw=2 * i), true_noise((n, right), draw=2 * i + 1)) for i in range(12)]
    assert np.mean(found) == pytest.approx(math.sqrt(left * right / ((n + left) * (n + right))), rel=0.04)


@pytest.mark.parametrize("n", [28, 7])
def test_pitfall_a_constant_side_has_no_alignment(n):
    """In float64 less its mean, 0.1 would leave rounding, and rounding a random alignment."""
    constant, other = torch.full((n, 10), 0.1, dtype=torch.float64), true_noise((n, 10))
    assert math.isnan(linear_cka(constant, other))
    assert math.isnan(svcca(constant, other[:, :2]))
    assert linear_cka(torch.cat([constant, other.double()], 1), other) == pytest.approx(1)


def test_a_mean_far_above_the_spread_does_not_cancel():
    a, b = related(40, 6, 6)
    assert linear_cka(a.double() + 1e6, b) == pytest.approx(linear_cka(a, b), rel=1e-6)


def test_blocks_do_not_change_the_value(smallest_blocks):
    cases = [related(40, 7, 5), related(12, 30, 20)]
    whole = [(linear_cka(a, b), feature_cosine(a[:, :5], b[:, :5]).tolist()) for a, b in cases]
    smallest_blocks(24)
    for (a, b), (cka, cosine) in zip(cases, whole, strict=True):
        assert linear_cka(a, b) == pytest.approx(cka, rel=1e-9)
        assert feature_cosine(a[:, :5], b[:, :5]).tolist() == pytest.approx(cosine)


def naive_svcca(a, b, kept):
    """The mean cosine of scipy's principal angles between the leading left singular vectors."""
    from scipy.linalg import subspace_angles, svd

    spaces = []
    for t in (a, b):
        x = t.double().flatten(1).numpy()
        u, s, _ = svd(x - x.mean(0), full_matrices=False)
        share = np.cumsum(s**2) / np.sum(s**2)
        spaces.append(u[:, : np.argmax(share >= kept) + 1])
    return np.cos(subspace_angles(*spaces)).mean(), [u.shape[1] for u in spaces]


@pytest.mark.parametrize(
    ("n", "left", "right", "kept"), [(60, 6, 9, 0.99), (60, 6, 9, 0.7), (30, 50, 40, 0.5), (30, 40, 3, 0.6)]
)
def test_svcca_against_scipys_principal_angles(n, left, right, kept):
    a, b = related(n, left, right)
    expected, counts = naive_svcca(a, b, kept)
    assert max(counts) > 1
    assert svcca(a, b, kept) == pytest.approx(expected, abs=1e-7)


def test_svcca_against_scikit_learns_cca():
    """With nearly all of the variance kept, the mean of the canonical correlations that scikit-learn iterates to."""
    decomposition = pytest.importorskip("sklearn.cross_decomposition")
    a, b = related(200, 4, 3)
    u, v = decomposition.CCA(3, scale=False, tol=1e-12, max_iter=10000).fit_transform(a.double().numpy(), b.double().numpy())
    expected = np.mean([np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(3)])
    assert svcca(a, b, kept=0.999999) == pytest.approx(expected, abs=1e-6)


def test_svcca_does_not_see_invertible_maps():
    a = true_noise((60, 5)).double()
    b = a @ (true_noise((5, 5), draw=1).double() + 3 * torch.eye(5)) + 4
    assert svcca(a, b, kept=0.9999999) == pytest.approx(1)
    assert linear_cka(a, b) < 0.999


def test_pitfall_svcca_with_as_many_directions_as_items_is_refused():
    a, b = true_noise((20, 12)), true_noise((20, 12), draw=1)
    with pytest.raises(ArgumentError, match="add items or keep less"):
        svcca(a, b)
    u, v = (torch.linalg.svd(t.double() - t.double().mean(0), full_matrices=False)[0] for t in (a, b))
    assert (torch.linalg.svdvals(u.mT @ v) > 1 - 1e-9).sum() == 12 + 12 - 19  # ones that mean nothing


def test_feature_cosine_against_scipy():
    from scipy.spatial.distance import cosine

    a, b = true_noise((7, 3, 2, 2)) + 1, true_noise((7, 3, 2, 2), draw=1)
    expected = [1 - cosine(x.flatten().double().numpy(), y.flatten().double().numpy()) for x, y in zip(a, b, strict=True)]
    assert feature_cosine(a, b).tolist() == pytest.approx(expected, abs=1e-9)


def test_feature_cosine_of_nothing_and_of_noise():
    assert feature_cosine(torch.zeros(1, 4), torch.ones(1, 4)).isnan().all()
    found = feature_cosine(true_noise((2000, 100)), true_noise((2000, 100), draw=1))
    assert float(found.std()) == pytest.approx(0.1, rel=0.1)  # 1 / sqrt(D)


@pytest.mark.parametrize("statistic", [linear_cka, svcca])
def test_independent_features_lie_within_the_null_at_its_rate(statistic):
    inside = 0
    for i in range(100):
        a, b = true_noise((50, 6), draw=2 * i), true_noise((50, 4), draw=2 * i + 1)
        null = alignment_null(statistic, a, b, seed=i)
        inside += null.low <= statistic(a, b) <= null.high
    assert 0.88 <= inside / 100 <= 0.995


def test_related_features_lie_above_the_null():
    a, b = related(60, 4, 3)
    for statistic in (linear_cka, svcca):
        assert statistic(a, b) > alignment_null(statistic, a, b).high
    assert alignment_null(linear_cka, a, b, seed=1) == alignment_null(linear_cka, a, b, seed=1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: linear_cka(true_noise((4, 3)), true_noise((5, 3))), "same items"),
        (lambda: linear_cka(true_noise((1, 3)), true_noise((1, 3))), "at least 2"),
        (lambda: linear_cka(true_noise((4, 3)) * math.inf, true_noise((4, 3))), "a: expected finite"),
        (lambda: svcca(true_noise((9, 3)), true_noise((9, 3)), kept=1.0), "kept"),
        (lambda: feature_cosine(true_noise((4, 3)), true_noise((4, 2))), "one shape"),
        (lambda: alignment_null(linear_cka, true_noise((4, 3)), true_noise((4, 3)), draws=1), "draws"),
        (lambda: alignment_null(linear_cka, true_noise((4, 3)), true_noise((5, 3))), "same items"),
    ],
)
def test_refusals(call, says, refuses):
    refuses(call, says)
