"""Gradient descent on the implicit equation."""

import pytest
import torch

import unsample as us
from unsample.methods.fixed_point import FixedPoint, residual_of
from unsample.methods.optimised import GradientDescent, GradientThenFixedPoint
from unsample.models.analytic import gaussian, mixture

from .exact import USUAL, draw

GRID = us.Grid.of(USUAL, 20)


def test_gradient_descent_is_adam_on_the_residual_and_keeps_the_best():
    """Reference: for a Gaussian the gradient by hand, Adam from its formulas, the best iterate by comparison."""
    variances = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64).reshape(1, 2, 2)
    denoiser = gaussian(USUAL, variances.flatten(), shape=(1, 2, 2)).denoiser()
    step, x = us.Step(GRID[3], GRID[4]), draw(3, 1, 2, 2)
    weight = step.dst.sigma - step.dst.alpha / step.src.alpha * step.src.sigma
    gain = step.dst.sigma / (step.dst.alpha**2 * variances + step.dst.sigma**2)
    eps, first, second = denoiser(x, step.dst), 0.0, 0.0
    tried = []
    for n in range(1, 13):
        gap = eps - denoiser(us.transfer(x, eps, step), step.dst)
        tried.append((gap.square().mean((1, 2, 3)).sqrt() * abs(weight), eps))
        slope = 2 * gap * (1 - gain * weight) / 4
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        eps = eps - 0.05 * (first / (1 - 0.9**n)) / ((second / (1 - 0.999**n)).sqrt() + 1e-8)
    moved = GradientDescent(iterations=12).step(denoiser, x, step)
    residuals = torch.stack([residual for residual, _ in tried])
    torch.testing.assert_close(moved.residual, residuals.min(0).values, rtol=1e-6, atol=1e-10)
    for i, best in enumerate(residuals.argmin(0)):
        torch.testing.assert_close(moved.eps[i], tried[best][1][i], rtol=1e-6, atol=1e-8)


def test_more_descent_never_leaves_a_larger_residual_and_falls_below_that_of_the_guess():
    means = draw(3, 16, seed=3) / 2
    denoiser = mixture(USUAL, means, [0.02, 0.2, 0.5], shape=(1, 4, 4)).denoiser()
    step, x = us.Step(GRID[1], GRID[2]), draw(4, 1, 4, 4) / 2
    residuals = [GradientDescent(n).step(denoiser, x, step).residual for n in (1, 5, 20, 60)]
    for more, fewer in zip(residuals[1:], residuals, strict=False):
        assert bool((more <= fewer).all())
    guess = denoiser(x, step.dst)
    torch.testing.assert_close(residuals[0], residual_of(guess, denoiser(us.transfer(x, guess, step), step.dst), step))
    assert bool((residuals[-1] < 0.25 * residuals[0]).all())


def test_descent_leaves_no_gradient_on_a_network_and_works_where_grad_is_off():
    weight = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    with torch.no_grad():
        moved = GradientDescent(5).step(lambda x, level: weight * x, draw(2, 1, 2, 2), us.Step(GRID[1], GRID[2]))
    assert weight.grad is None
    assert not moved.x.requires_grad


def test_only_the_first_move_up_of_a_walk_is_descended():
    means = draw(3, 16, seed=3) / 2
    denoiser = mixture(USUAL, means, [0.02, 0.2, 0.5], shape=(1, 4, 4)).denoiser()
    hybrid, x = GradientThenFixedPoint(first_iterations=8, iterations=2), draw(2, 1, 4, 4)
    for k in (0, 4):
        moves = list(us.walk(denoiser, x, GRID.up(k, 8), hybrid))
        first = GradientDescent(8).step(denoiser, x, moves[0].step)
        torch.testing.assert_close(moves[0].x, first.x, rtol=1e-12, atol=1e-12)
        rest = list(us.walk(denoiser, moves[0].x, GRID.up(k + 1, 8), FixedPoint(2)))
        assert all(torch.equal(a.x, b.x) for a, b in zip(moves[1:], rest, strict=True))
    assert (hybrid.evaluations(0), hybrid.evaluations(1), hybrid.evaluations(8)) == (0, 9, 9 + 21)


@pytest.mark.parametrize("make", [lambda: GradientDescent(0), lambda: GradientDescent(rate=0.0),
                                  lambda: GradientThenFixedPoint(iterations=0)])  # fmt: skip
def test_options_out_of_range_are_refused(make):
    with pytest.raises(us.ArgumentError):
        make()
