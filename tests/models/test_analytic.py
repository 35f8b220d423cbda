"""The analytic models: their eps in closed form, and what they refuse."""

import math

import pytest
import torch

import unsample as us
from unsample.models.analytic import bench_field, gaussian, mixture

SCHEDULE = us.Schedule.from_betas(us.Schedule.linear_betas())
FLOW = us.FlowSchedule()


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


def test_gaussian_eps_equals_dense_linear_algebra():
    """Reference: sigma (a^2 C + s^2 I)^-1 (x - a mean), with C built from a random basis."""
    rng = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn((12, 12), generator=rng, dtype=torch.float64))
    variances = torch.rand(12, generator=rng, dtype=torch.float64) * 2
    mean = torch.randn(12, generator=rng, dtype=torch.float64)
    model = gaussian(SCHEDULE, variances, shape=(3, 2, 2), basis=basis, mean=mean)
    x = torch.randn((5, 3, 2, 2), generator=rng, dtype=torch.float64)
    covariance = basis @ torch.diag(variances) @ basis.T
    for level in model.grid(7).levels[1:]:
        system = level.alpha**2 * covariance + level.sigma**2 * torch.eye(12, dtype=torch.float64)
        expected = level.sigma * torch.linalg.solve(system, (x.flatten(1) - level.alpha * mean).T).T
        torch.testing.assert_close(model.denoiser()(x, level).flatten(1), expected, rtol=1e-9, atol=1e-9)


MEANS = torch.tensor([[-1.0, 0.5], [0.8, 0.8], [0.0, -1.2]], dtype=torch.float64)
SPREADS, WEIGHTS = [0.05, 0.4, 0.2], [0.2, 0.5, 0.3]


def log_density(x, level, components=(0, 1, 2)):
    """log p_t of the mixture, from torch.distributions."""
    chosen = list(components)
    scale = torch.tensor([math.sqrt(level.alpha**2 * SPREADS[i] + level.sigma**2) for i in chosen], dtype=torch.float64)
    normal = torch.distributions.Normal(level.alpha * MEANS[chosen], scale[:, None].expand(-1, 2))
    parts = torch.distributions.Independent(normal, 1)
    shares = torch.distributions.Categorical(torch.tensor([WEIGHTS[i] for i in chosen], dtype=torch.float64))
    return torch.distributions.MixtureSameFamily(shares, parts).log_prob(x)


@pytest.mark.parametrize("condition", [None, 0, 1, 2])
def test_mixture_eps_equals_minus_sigma_times_the_score(condition):
    """Reference: autograd of the log density of the whole mixture, or of one component given a class."""
    model = mixture(SCHEDULE, MEANS, SPREADS, shape=(1, 1, 2), weights=WEIGHTS)
    for level in model.grid(5).levels[1:]:
        x = torch.randn((64, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
        density = log_density(x, level, (0, 1, 2) if condition is None else (condition,))
        (score,) = torch.autograd.grad(density.sum(), x)
        eps = model.denoiser([condition] * 64)(x.detach().reshape(64, 1, 1, 2), level).reshape(64, 2)
        torch.testing.assert_close(eps, -level.sigma * score, rtol=1e-9, atol=1e-9)


def test_conditions_of_a_batch_are_its_items_own():
    """A batch with mixed conditions equals its items one by one."""
    model = mixture(SCHEDULE, MEANS, SPREADS, shape=(1, 1, 2), weights=WEIGHTS)
    x, conditions = torch.ones((4, 1, 1, 2), dtype=torch.float64), [2, None, 0, "1"]
    level = model.grid(10)[4]
    together = model.denoiser(conditions)(x, level)
    for i, condition in enumerate(conditions):
        torch.testing.assert_close(together[i : i + 1], model.denoiser([condition])(x[:1], level), rtol=1e-12, atol=1e-12)
    assert len({tuple(row.flatten().tolist()) for row in together}) == 4


@pytest.mark.parametrize("t", [0.0, 1.0, 400.0, 999.5, 1000.0])
def test_the_analytic_velocities_are_the_posterior_means_of_noise_less_image(t):
    """Reference: regression of noise - x0 on x for one Gaussian, and the mean over the posterior for two."""
    s = t / 1000
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1, 1, 1)
    times = torch.full((9,), t, dtype=torch.float64)
    mean, variance = 0.3, 0.5
    network = gaussian(FLOW, [variance], shape=(1, 1, 1), mean=mean).network
    slope = (s - (1 - s) * variance) / ((1 - s) ** 2 * variance + s**2)
    torch.testing.assert_close(network(x, times, None), slope * (x - (1 - s) * mean) - mean, rtol=1e-12, atol=1e-12)

    parts = [gaussian(FLOW, [v], shape=(1, 1, 1), mean=m).network(x, times, None) for m, v in ((-1.0, 0.2), (0.5, 0.7))]
    logs = [
        math.log(w / total**0.5) - (x - (1 - s) * m) ** 2 / (2 * total)
        for w, m, total in ((0.4, -1.0, (1 - s) ** 2 * 0.2 + s**2), (0.6, 0.5, (1 - s) ** 2 * 0.7 + s**2))
    ]
    share = torch.softmax(torch.stack(logs), dim=0)
    both = mixture(FLOW, torch.tensor([[-1.0], [0.5]]), [0.2, 0.7], shape=(1, 1, 1), weights=[0.4, 0.6])
    found = both.network(x, times, torch.full((9,), 2))
    torch.testing.assert_close(found, share[0] * parts[0] + share[1] * parts[1], rtol=1e-11, atol=1e-11)


def test_data_without_variance_have_an_answer_where_there_is_no_noise():
    model = gaussian(FLOW, [0.0, 1.0], shape=(1, 1, 2), mean=0.25)
    eps = model.denoiser()(torch.full((1, 1, 1, 2), 0.25).double(), FLOW.level(0.0))
    torch.testing.assert_close(eps, torch.zeros_like(eps))
