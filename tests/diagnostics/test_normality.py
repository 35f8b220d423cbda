import math

import numpy as np
import pytest
import scipy.stats
import torch

from unsample.diagnostics import true_noise
from unsample.diagnostics.intervals import proportion
from unsample.diagnostics.normality import normality_rejection, quantile_quantile, rejection_null, shapiro_wilk


@pytest.mark.parametrize("n", [12, 13, 40, 301, 3072, 5000])
def test_shapiro_wilk_against_scipy(n):
    noise = true_noise((12, n))
    x = torch.cat([noise[:4], noise[4:8] + 0.1 * noise[4:8] ** 2, noise[8:].exp() * 5 + 100])
    found = shapiro_wilk(x)
    expected = [scipy.stats.shapiro(row.numpy()) for row in x]
    assert found.w.numpy() == pytest.approx([each.statistic for each in expected], abs=1e-6)
    # scipy's normal quantiles are good to 1e-7, which is a few 1e-6 in p.
    assert found.p.numpy() == pytest.approx([each.pvalue for each in expected], abs=5e-6)


def test_shapiro_wilk_of_a_large_image_is_that_of_some_5000_of_its_values():
    x = true_noise((3, 3, 48, 48))
    found = shapiro_wilk(x)
    assert torch.equal(found.w, shapiro_wilk(x).w)
    assert torch.allclose(shapiro_wilk(x[1:2]).w, found.w[1:2])
    # The places do not depend on the values: those whose change changes W.
    moved = x[:1].flatten(1).repeat(600, 1)
    moved[torch.arange(600), torch.arange(0, 6900, 11.5).long()] = 50.0
    tested = (shapiro_wilk(moved).w - found.w[0]).abs() > 1e-9
    assert float(tested.double().mean()) == pytest.approx(5000 / 6912, abs=0.06)


def test_shapiro_wilk_of_a_constant_is_rejected_without_a_warning():
    found = shapiro_wilk(torch.stack([torch.full((20,), 0.1), torch.linspace(-1, 1, 20)]))
    assert found.w.isnan().tolist() == [True, False]
    assert float(found.p[0]) == 0 < float(found.p[1])
    assert normality_rejection(torch.ones(4, 20)).estimate == 1


def test_shapiro_wilk_ignores_mean_spread_and_precision():
    x = true_noise((8, 3, 8, 8)).double()
    w = shapiro_wilk(x).w
    assert torch.allclose(shapiro_wilk(x * 1e-3 + 1).w, w, atol=1e-9)
    assert torch.allclose(shapiro_wilk(x.float()).w, w, atol=1e-6)
    assert shapiro_wilk(x.bfloat16()).w.dtype == torch.float64


def test_blocks_do_not_change_the_values_nor_the_input(smallest_blocks):
    x = true_noise((5, 30))
    before, whole = x.clone(), shapiro_wilk(x).w
    quantile_quantile(x)
    smallest_blocks()
    assert torch.allclose(shapiro_wilk(x).w, whole)
    assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(400, 12), (400, 1, 16, 16), (400, 3, 32, 32)])
def test_noise_is_rejected_at_the_level_of_the_test(shape):
    found = normality_rejection(true_noise(shape, seed=1))
    null = rejection_null(400)
    assert null.low <= found.estimate <= null.high
    assert found.low <= 0.05 <= found.high
    p = shapiro_wilk(true_noise(shape, seed=2)).p
    assert scipy.stats.kstest(p.numpy(), "uniform").pvalue > 1e-3


def test_what_is_not_normal_is_rejected():
    uniform = torch.special.ndtr(true_noise((50, 3, 16, 16)))
    assert normality_rejection(uniform).estimate == 1


@pytest.mark.parametrize("level", [0.3, 0.01, 1e-9])
def test_rejections_are_counted_as_scipy_does(level):
    x = true_noise((30, 50))
    count = sum(bool(scipy.stats.shapiro(row.numpy()).pvalue < level) for row in x)
    assert normality_rejection(x, level) == proportion(count, 30, "exact")


def test_rejection_null_holds_at_least_95_percent_and_little_more():
    null, binomial = rejection_null(200, 0.1), scipy.stats.binom(200, 0.1)
    counts = np.arange(201)
    inside = (counts / 200 >= null.low) & (counts / 200 <= null.high)
    assert 0.95 <= binomial.pmf(counts)[inside].sum() < 0.97
    assert (null.mean, null.std) == pytest.approx((binomial.mean() / 200, binomial.std() / 200))


@pytest.mark.parametrize("shape", [(7,), (5, 3, 4, 4), (1001,)])
@pytest.mark.parametrize("points", [2, 5, 101])
def test_quantiles_against_numpy_and_scipy(shape, points):
    x = true_noise(shape).double().exp()
    found = quantile_quantile(x, points)
    p = (np.arange(points) + 0.5) / points
    normal = scipy.stats.norm.ppf(p)
    assert found.values.numpy() == pytest.approx(np.quantile(x.numpy(), p, method="hazen"))
    assert found.normal.numpy() == pytest.approx(normal, abs=1e-12)
    assert found.null_std.numpy() == pytest.approx(np.sqrt(p * (1 - p) / x.numel()) / scipy.stats.norm.pdf(normal))


def test_quantiles_of_noise_scatter_by_their_null_std():
    found = [quantile_quantile(true_noise((4, 1, 16, 16), seed=seed), points=11) for seed in range(400)]
    scores = torch.stack([(each.values - each.normal) / each.null_std for each in found])
    assert scores.std(0).numpy() == pytest.approx(1, abs=0.15)
    assert float((scores.abs() < 1.96).double().mean()) == pytest.approx(0.95, abs=0.02)


def test_quantiles_of_more_values_than_torch_takes():
    x = true_noise((17 * 2**20,))
    found = quantile_quantile(x)
    assert float(((found.values - found.normal) / found.null_std).abs().max()) < 4
    assert quantile_quantile(x[:1000].bfloat16()).values.dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: shapiro_wilk(true_noise((4, 11))), "at least 12 values"),
        (lambda: shapiro_wilk(true_noise((4, 3, 4, 4)) * math.nan), "NaN"),
        (lambda: normality_rejection(true_noise((4, 20)), level=5), "level"),
        (lambda: rejection_null(0), "images"),
        (lambda: rejection_null(4, 0), "level"),
        (lambda: quantile_quantile(true_noise((4, 20)), points=1), "points"),
        (lambda: quantile_quantile(torch.arange(4)), "floating-point"),
    ],
)
def test_refusals(call, says, refuses):
    refuses(call, says)
