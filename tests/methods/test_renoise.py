"""ReNoise: its mean of answers, and the two statistics that can regularise it."""

import pytest
import torch

import unsample as us
from unsample.methods.fixed_point import FixedPoint
from unsample.methods.renoise import ReNoise, autocorrelation, patch_divergence, whitened
from unsample.models.analytic import bench_field

from .exact import draw, smooth


@pytest.fixture(scope="module")
def bench():
    model, _ = bench_field()
    grid = model.grid(10)
    return model.denoiser(), us.Step(grid[2], grid[3])


def test_a_window_of_the_last_answer_is_the_fixed_point(bench):
    denoiser, step = bench
    x = draw(2, 1, 16, 16)
    ours, plain = ReNoise(4, (4, 5)).step(denoiser, x, step), FixedPoint(4).step(denoiser, x, step)
    torch.testing.assert_close(ours.x, plain.x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.residual, plain.residual, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("average", [(0, 5), (3, 5), (1, 3), (0, 1)])
def test_the_move_is_made_with_the_mean_of_the_answers_in_the_window(bench, average):
    """Reference: all iterates by hand."""
    denoiser, step = bench
    x = u = draw(2, 1, 16, 16)
    answers = []
    for _ in range(5):
        answers.append(denoiser(u, step.dst))
        u = us.transfer(x, answers[-1], step)
    mean = torch.stack(answers[slice(*average)]).mean(0)
    moved = ReNoise(4, average).step(denoiser, x, step)
    torch.testing.assert_close(moved.eps, mean, rtol=1e-12, atol=1e-12)
    whiter = ReNoise(4, average, divergence=0.01, correlation=10.0).step(denoiser, x, step)
    torch.testing.assert_close(whiter.eps, whitened(mean, 0.01, 10.0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whiter.residual, moved.residual, rtol=0, atol=0)


@pytest.mark.parametrize("average", [(2, 2), (-1, 2), (3, 6)])
def test_windows_outside_the_answers_are_refused(average):
    with pytest.raises(us.ArgumentError, match="0 <= lo < hi <= 5"):
        ReNoise(iterations=4, average=average)


def test_patch_divergence_is_twice_that_of_gaussians():
    """Reference: torch.distributions, patch by patch."""
    eps, reference = draw(2, 3, 9, 13), 0.3 + 2 * draw(2, 3, 9, 13, seed=1)
    for aim in (reference, None):
        total = torch.zeros(2, dtype=torch.float64)
        for b in range(2):
            for c in range(3):
                for i in range(0, 8, 4):
                    for j in range(0, 12, 4):
                        normals = []
                        for field in (eps, aim):
                            if field is None:
                                normals.append(torch.distributions.Normal(0.0, 1.0))
                                continue
                            patch = field[b, c, i : i + 4, j : j + 4]
                            normals.append(torch.distributions.Normal(patch.mean(), (patch.var() + 1e-6).sqrt()))
                        total[b] += 2 * torch.distributions.kl_divergence(*normals)
        torch.testing.assert_close(patch_divergence(eps, aim), total, rtol=1e-6, atol=1e-6)
    with pytest.raises(us.ArgumentError, match="at least 4x4"):
        patch_divergence(draw(1, 1, 3, 8))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 32, 16), (1, 2, 20, 28)])
def test_autocorrelation_is_the_mean_over_all_rolls(shape):
    """Reference: roll, multiply, average, square; on every level of the pyramid."""
    eps = smooth(*shape)
    field, total = eps, torch.zeros(shape[0], dtype=torch.float64)
    while True:
        for axis in (2, 3):
            shifts = range(1, field.shape[axis] // 2)
            squares = torch.stack([(field * field.roll(s, axis)).mean((2, 3)).square() for s in shifts])
            total += squares.mean(0).sum(1)
        if max(field.shape[2:]) <= 8:
            break
        field = torch.nn.functional.avg_pool2d(field, 2)
    torch.testing.assert_close(autocorrelation(eps), total, rtol=1e-10, atol=1e-12)
    assert float(autocorrelation(draw(*shape)).sum()) < float(autocorrelation(eps).sum())


def test_whitening_makes_smooth_fields_rougher_and_leaves_noise_almost_alone():
    """Lag-one correlation of what is smooth falls; noise of standard deviation 1 keeps it, and changes by a few percent."""
    eps, noise = smooth(4, 3, 32, 32), draw(4, 3, 32, 32, seed=5)

    def lag(x):
        return float((x * x.roll(1, 3)).mean() / x.square().mean())

    better, same = whitened(eps, correlation=1000.0), whitened(noise, correlation=1000.0)
    assert lag(better) < 0.7 * lag(eps)
    assert float((same - noise).std()) < 0.1
    assert float(same.std()) == pytest.approx(1, abs=0.05)
    assert 0.4 < float(whitened(0.3 * noise, divergence=0.02, correlation=0.0, rounds=20).std()) < 1


def test_whitening_does_not_mix_items_and_needs_no_grad_mode():
    eps = smooth(3, 2, 16, 16) * torch.tensor([0.2, 1.0, 2.0])[:, None, None, None]
    with torch.no_grad():
        together = whitened(eps)
        for i in range(3):
            torch.testing.assert_close(whitened(eps[i : i + 1])[0], together[i], rtol=1e-9, atol=1e-12)
    assert not together.requires_grad
    assert torch.equal(whitened(eps, divergence=0.0, correlation=0.0), eps)
