"""Iterations chosen from the levels of a move."""

import pytest
import torch

import unsample as us
from unsample.methods.contraction import ContractionAware, contraction
from unsample.methods.fixed_point import FixedPoint
from unsample.models.analytic import bench_field, gaussian

USUAL = us.Schedule.from_betas(us.Schedule.linear_betas())
GRID = us.Grid.of(USUAL, 50)


@pytest.mark.parametrize("tolerance", [0.3, 0.05, 1e-4])
def test_iterations_are_the_fewest_that_reach_the_tolerance_in_a_plain_mode(tolerance):
    """Reference: iterate in v = 0 until what is off by has shrunk from that of the DDIM guess to the tolerance."""
    method = ContractionAware(tolerance, maximum=15)
    denoiser = gaussian(USUAL, [0.0], shape=(1, 1, 1)).denoiser()
    x = torch.ones((1, 1, 1, 1), dtype=torch.float64)
    for step in GRID.up(1):
        solution, off, n = step.dst.sigma / step.src.sigma, us.DDIM().step(denoiser, x, step).x, 0
        first = abs(float(off) - solution)
        while n < 15 and abs(float(off) - solution) > tolerance * first:
            n += 1
            off = FixedPoint(n).step(denoiser, x, step).x
        assert method.iterations(step) == max(n, 1)


def test_a_move_without_contraction_gets_the_maximum_and_one_that_stands_still_a_single_iteration():
    clean, noisy = us.Level(0, 0, 1.0, 0.0), us.Level(1, 0, 0.8, 0.6)
    assert contraction(us.Step(clean, noisy)) == 1.0
    assert ContractionAware(maximum=7).iterations(us.Step(clean, noisy)) == 7
    same = us.Level(2, 5, 0.8, 0.6)
    assert contraction(us.Step(noisy, same)) == 0.0
    assert ContractionAware().iterations(us.Step(noisy, same)) == 1
    assert contraction(us.Step(clean, us.Level(1, 0, 1.0, 0.0))) == 0.0


@pytest.mark.parametrize("k", [0, 1, 2])
def test_evaluations_are_known_before_the_walk(k):
    model, counted = gaussian(USUAL, [0.0, 0.1, 1.0], shape=(1, 1, 3)), None
    for method in (ContractionAware(), ContractionAware(0.3, maximum=3), ContractionAware(1e-3, 40, window=2)):
        counted = us.Counted(model.denoiser())
        for _ in us.walk(counted, torch.ones((1, 1, 1, 3), dtype=torch.float64), GRID.up(k), method):
            pass
        assert counted.nfe == method.evaluations_on(GRID.up(k)) <= method.evaluations(50 - k)
    assert ContractionAware().evaluations_on(GRID.down()) == 50


def test_items_stay_where_their_residual_reached_the_tolerance():
    """Reference: each item by itself, iterated by hand until its residual is low enough or the iterations are spent."""
    step = us.Step(GRID[1], GRID[2])
    model, method = gaussian(USUAL, [0.0, 1e-4, 1e-3, 1.0], shape=(1, 2, 2)), ContractionAware(0.05, maximum=10)
    x = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2)
    moved, spent = method.step(model.denoiser(), x, step), []
    for i in range(4):
        u = us.DDIM().step(model.denoiser(), x[i : i + 1], step).x
        first, n = None, 0
        for n in range(11):
            answer = us.transfer(x[i : i + 1], model.denoiser()(u, step.dst), step)
            residual = float((u - answer).square().mean().sqrt())
            first = residual if first is None else first
            if n == 10 or residual <= 0.05 * first:
                break
            u = answer
        spent.append(n)
        torch.testing.assert_close(moved.x[i : i + 1], u, rtol=1e-9, atol=1e-12)
    assert method.iterations(step) == 10 == spent[0]
    assert spent == sorted(spent, reverse=True)
    assert spent[-1] == 1


@pytest.mark.parametrize("k", [1, 2])
def test_it_is_closer_than_a_fixed_point_that_costs_as_much(k):
    """On the bench, N = 50: evaluations, and root mean square of what going up and down again changes."""
    model, _ = bench_field()
    denoiser, grid = model.denoiser(), model.grid(50)
    noise = us.ItemNoise(0, range(4)).draw((4, 1, 16, 16), dtype=torch.float64)
    x = us.ForwardNoise(steps=k).place(us.sample(model, noise).images, grid, us.ItemNoise(1, range(4)))

    def off(method):
        *_, top = us.walk(denoiser, x, grid.up(k), method)
        *_, last = us.walk(denoiser, top.x, grid.down(stop=k), us.DDIM())
        return float((last.x - x).square().mean().sqrt())

    plain, aware, mixing = FixedPoint(3), ContractionAware(), ContractionAware(window=3)
    assert aware.evaluations_on(grid.up(k)) < 0.9 * plain.evaluations(50 - k)
    assert off(mixing) < off(aware)
    assert off(aware) < {1: 0.5, 2: 2.0}[k] * off(plain)


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"maximum": 0}, {"window": -1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(us.ArgumentError, match=next(iter(options))):
        ContractionAware(**options)
