import math

import numpy as np
import pytest
import scipy.stats
import torch

from unsample.diagnostics import Null, bootstrap, bootstrap_sums, null, nulls, true_noise
from unsample.diagnostics.intervals import proportion
from unsample.errors import ArgumentError, UnknownNameError


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_bootstrap_against_scipy(statistic):
    values = true_noise((60,)).double().exp().numpy()
    found = bootstrap(values, statistic, draws=4000)
    function = {"mean": np.mean, "median": np.median}[statistic]
    expected = scipy.stats.bootstrap((values,), function, method="percentile", n_resamples=4000, rng=1)
    low, high = expected.confidence_interval
    assert found.estimate == pytest.approx(function(values))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_coverage_of_the_mean():
    """300 experiments of 40 images: about 95 % of intervals hold the truth."""
    data = true_noise((300, 40)).numpy()
    hits = [i.low <= 0 <= i.high for i in (bootstrap(row, draws=300, seed=n) for n, row in enumerate(data))]
    assert 0.90 <= np.mean(hits) <= 0.98


def test_sums_of_one_value_per_image_are_the_mean():
    values = true_noise((30,)).double()
    sums = torch.stack([values, torch.ones(30, dtype=torch.float64)], dim=1)
    found = bootstrap_sums(sums, lambda t: t[..., 0] / t[..., 1])
    expected = bootstrap(values)
    assert (found.estimate, found.low, found.high) == pytest.approx((expected.estimate, expected.low, expected.high))


def test_blocks_of_draws_and_seeds(monkeypatch):
    values = true_noise((30,))
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)
    whole = bootstrap(values)
    monkeypatch.setattr("unsample.diagnostics.intervals.BLOCK", 100)
    assert bootstrap(values) == whole


def test_infinite_values_are_taken():
    found = bootstrap([math.inf, math.inf, math.inf])
    assert (found.estimate, found.low, found.high) == (math.inf, math.inf, math.inf)
    assert bootstrap([30.0, 31.0, 32.0, math.inf], "median").low < math.inf


def test_draws_without_a_value_are_left_out():
    sums = [[0.0, 0.0], [6.0, 3.0]]  # the first image has no pixel of the area
    found = bootstrap_sums(sums, lambda t: t[..., 0] / t[..., 1])
    assert (found.estimate, found.low, found.high) == (2.0, 2.0, 2.0)
    nothing = bootstrap_sums(np.zeros((3, 2)), lambda t: t[..., 0] / t[..., 1])
    assert math.isnan(nothing.low)


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (1, 1), (3, 40), (512, 1024)])
@pytest.mark.parametrize("method", ["exact", "wilson"])
def test_proportions_against_their_definitions(hits, count, method):
    """Clopper and Pearson's ends are quantiles of beta distributions, Wilson's roots of (p - h/n)^2 = z^2 p (1 - p) / n."""
    found = proportion(hits, count, method)
    assert found.estimate == hits / count
    if method == "exact":
        assert found.low == pytest.approx(scipy.stats.beta.ppf(0.025, hits, count - hits + 1) if hits else 0)
        assert found.high == pytest.approx(scipy.stats.beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1)
    else:
        z2, share = scipy.stats.norm.ppf(0.975) ** 2, hits / count
        roots = np.sort(np.roots([1 + z2 / count, -2 * share - z2 / count, share**2]))
        assert (found.low, found.high) == pytest.approx(tuple(roots), abs=1e-9)


@pytest.mark.usefixtures("untyped")
def test_refusals():
    with pytest.raises(ArgumentError, match="at least 2 images"):
        bootstrap([1.0])
    with pytest.raises(ArgumentError, match="1 NaN"):
        bootstrap([1.0, math.nan])
    with pytest.raises(ArgumentError, match="level"):
        bootstrap([1.0, 2.0], level=95)
    with pytest.raises(ArgumentError, match="draws"):
        bootstrap([1.0, 2.0], draws=0)
    with pytest.raises(UnknownNameError, match="median"):
        bootstrap([1.0, 2.0], "medain")
    with pytest.raises(ArgumentError, match="draws"):
        null(lambda x: 0.0, (2, 2), draws=1)


def test_null_interval_holds_fresh_noise_as_often_as_it_says():
    """Student's prediction interval of 4 draws, 400 times."""
    values = true_noise((400, 5)).double()
    nulls_of_4 = [Null.from_values(row[:4].tolist()) for row in values]
    hits = [n.low <= float(row[4]) <= n.high for n, row in zip(nulls_of_4, values, strict=True)]
    assert 0.92 <= np.mean(hits) <= 0.98


def test_null_is_reproducible_and_never_the_callers_noise():
    shape = (4, 3, 8, 8)
    assert torch.equal(true_noise(shape), true_noise(shape))
    assert not torch.equal(true_noise(shape), true_noise(shape, draw=1))
    assert not torch.equal(true_noise(shape, seed=0), torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert null(lambda x: float(x.mean()), shape) == nulls(lambda x: {"a": float(x.mean())}, shape)["a"]
