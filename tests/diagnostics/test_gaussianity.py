import math

import numpy as np
import pytest
import scipy.stats
import torch

from unsample.diagnostics import kl_per_coordinate, kl_to_normal, moments, null, pooled_moments, true_noise
from unsample.errors import ArgumentError


@pytest.mark.parametrize("shape", [(50,), (6, 40), (3, 2, 8, 8)])
@pytest.mark.parametrize("offset", [0.3, 1000.0])
def test_moments_against_scipy(shape, offset):
    x = true_noise(shape).double().exp() + offset
    found, flat = moments(x), x.numpy().ravel()
    assert found.mean == pytest.approx(flat.mean())
    assert found.std == pytest.approx(flat.std())
    assert found.kurtosis == pytest.approx(scipy.stats.kurtosis(flat), rel=1e-6)


def test_kl_against_torch_distributions():
    x = true_noise((4, 3, 8, 8)).double() * 0.7 + 0.2
    fitted = torch.distributions.Normal(x.mean(), x.std(correction=0))
    expected = torch.distributions.kl_divergence(fitted, torch.distributions.Normal(0.0, 1.0))
    assert kl_to_normal(x) == pytest.approx(float(expected))


def test_kl_per_coordinate_against_torch_distributions():
    x = true_noise((64, 2, 3, 4)).double() * 0.7 + 0.2
    fitted = torch.distributions.Normal(x.mean(0), x.std(0, correction=0))
    expected = torch.distributions.kl_divergence(fitted, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(kl_per_coordinate(x), expected)


def test_kl_per_coordinate_is_about_one_over_n_on_true_noise():
    spread = null(lambda x: float(kl_per_coordinate(x).mean()), (200, 1, 16, 16), draws=4)
    assert spread.mean == pytest.approx(1 / 200, rel=0.1)


def test_constants():
    assert math.isnan(moments(torch.ones(10)).kurtosis)
    assert kl_to_normal(torch.ones(10)) == math.inf
    assert kl_per_coordinate(torch.ones(10, 2)).tolist() == [math.inf, math.inf]


def test_pooled_moments_do_not_depend_on_the_blocks(smallest_blocks):
    x = true_noise((7, 2, 4, 4))
    whole = {name: found.value for name, found in pooled_moments(x).items()}
    smallest_blocks()
    assert {name: found.value for name, found in pooled_moments(x).items()} == pytest.approx(whole)
    assert np.isfinite(list(whole.values())).all()


@pytest.mark.usefixtures("untyped")
def test_refusals():
    with pytest.raises(ArgumentError, match="1 NaN"):
        moments(torch.tensor([0.0, math.nan]))
    with pytest.raises(ArgumentError, match="floating-point"):
        moments(torch.arange(3))
    with pytest.raises(ArgumentError, match="at least 2 images"):
        kl_per_coordinate(torch.zeros(1, 3))
