"""Border checks of the analytic models; their formulas are tested in tests/exact."""

import pytest
import torch

import unsample as us
from unsample.models.analytic import bench_field, gaussian, mixture

SCHEDULE = us.Schedule.from_betas(us.Schedule.linear_betas())


@pytest.mark.parametrize("variances", [[1.0], [1.0, -0.1, 1.0, 1.0], [[1.0, 1.0, 1.0, 1.0]]])
def test_gaussian_takes_one_variance_per_mode(variances, untyped):
    with pytest.raises(us.ArgumentError, match="expected 4 variances of at least 0"):
        gaussian(SCHEDULE, variances, shape=(1, 2, 2))


@pytest.mark.parametrize(
    ("means", "variances", "weights"),
    [
        (torch.zeros(2, 3), [1.0, 1.0], None),
        (torch.zeros(2, 4), [1.0], None),
        (torch.zeros(2, 4), [1.0, 1.0], [1.0]),
    ],
)
def test_mixture_takes_one_mean_variance_and_weight_per_component(means, variances, weights):
    with pytest.raises(us.ArgumentError, match=r"expected means \(2, 4\) and 2 variances and weights"):
        mixture(SCHEDULE, means, variances, shape=(1, 2, 2), weights=weights)


def test_bench_field_is_two_halves():
    model, plain = bench_field()
    assert plain.shape == (16, 16)
    assert plain[:, :8].all()
    assert not plain[:, 8:].any()
    assert model.shape == (1, 16, 16)
    assert bench_field(SCHEDULE)[0].schedule == SCHEDULE
    assert model.schedule == us.Schedule.from_betas(us.Schedule.scaled_linear_betas(0.0015, 0.0195))
