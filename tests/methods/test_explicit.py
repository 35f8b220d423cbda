"""Heun, Midpoint and EasyInv: measured orders, what they ask, and where they fall back."""

import numpy as np
import pytest
import torch

import unsample as us
from unsample.methods.explicit import EasyInv, Heun, Midpoint
from unsample.models.analytic import gaussian, mixture

LONG = us.Schedule.from_betas(us.Schedule.linear_betas(1e-6, 2e-4, 100_000))
USUAL = us.Schedule.from_betas(us.Schedule.linear_betas())
METHODS = [Heun(), Midpoint(), EasyInv(length=2), EasyInv(start=1, length=3, eval_at="source")]

MEANS, VARIANCES, WEIGHTS = (torch.tensor(v, dtype=torch.float64) for v in ([-1, 0.2, 0.9], [0.1, 0.3, 0.2], [0.3, 0.5, 0.2]))


def quantile(x, level):
    scale = (level.alpha**2 * VARIANCES + level.sigma**2).sqrt()
    return (WEIGHTS * torch.special.ndtr((x[:, None] - level.alpha * MEANS) / scale)).sum(1)


def flow(x, src, dst):
    """The exact flow of a mixture in one dimension: it keeps quantiles; by bisection."""
    low, high, wanted = torch.full_like(x, -10), torch.full_like(x, 10), quantile(x, src)
    for _ in range(60):
        middle = (low + high) / 2
        below = quantile(middle, dst) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


def error_of(moves, method, *, up):
    timesteps = np.linspace(2_000, 80_000, moves + 1).round().astype(int).tolist()
    grid = us.Grid.from_timesteps(LONG, timesteps)
    steps = list(grid.up(1) if up else grid.down(stop=1))
    x = torch.linspace(-1.8, 1.8, 31, dtype=torch.float64)
    denoiser = mixture(LONG, MEANS[:, None], VARIANCES, shape=(1, 1, 1), weights=WEIGHTS).denoiser()
    *_, last = us.walk(denoiser, x.reshape(-1, 1, 1, 1), steps, method)
    return float((last.x.flatten() - flow(x, steps[0].src, steps[-1].dst)).abs().max())


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_order_of_convergence_is_the_one_the_method_states(method, up):
    """Reference: the exact flow of a mixture, which keeps quantiles. Midpoint reads S between the levels of the table."""
    counts = [160, 320, 640]
    errors = [error_of(n, method, up=up) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(method.order, abs=0.2), errors
    assert errors[-1] < (3e-2 if method.order == 1 else 2e-4)


def test_easyinv_with_a_window_that_grows_with_the_grid_does_not_converge():
    """As its docstring warns: a fifth of the moves averaged."""
    errors = [error_of(n, EasyInv(start=n // 20, length=n // 5), up=True) for n in (80, 640)]
    assert errors[1] > 0.8 * errors[0] > 0.05


@pytest.mark.parametrize("start", [0, 1, 5, 10])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_evaluations_are_those_counted_on_the_way_up(method, start, toy):
    model = toy()
    counted = us.Counted(model.denoiser())
    for _ in us.walk(counted, torch.ones((2, 1, 4, 4)), model.grid(10).up(start), method):
        pass
    assert counted.nfe == method.evaluations(10 - start)


def test_heun_is_the_trapezium_rule_in_the_ratio():
    """Reference: by hand, x / alpha plus h times the mean of both ends' eps, with no eps at a level without noise."""

    def denoiser(x, level):
        return torch.tanh(x + level.sigma)

    grid = us.Grid.of(USUAL, 10)
    for step in (*grid.up(), *grid.down()):
        x = torch.linspace(-2, 2, 5, dtype=torch.float64)
        h = step.dst.ratio - step.src.ratio
        eps = denoiser(x, step.src)
        if step.dst.index > 0:
            eps = (eps + denoiser(step.dst.alpha * (x / step.src.alpha + h * eps), step.dst)) / 2
        moved = Heun().step(denoiser, x, step)
        torch.testing.assert_close(moved.x, step.dst.alpha * (x / step.src.alpha + h * eps), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(moved.eps, eps)


def test_midpoint_asks_at_the_timestep_halfway_close_to_its_trained_ratio():
    """Reference: the trained table. Worst reading of S in the moves of 50 steps, but for the first, which is Heun's."""
    grid, asked = us.Grid.of(USUAL, 50), []

    def denoiser(x, level):
        asked.append(level)
        return torch.zeros_like(x)

    for _ in us.walk(denoiser, torch.ones((1, 1)), grid.up(), Midpoint()):
        pass
    assert [level.index for level in asked[:4]] == [0, 1, 1, -1]
    middles = [level for level in asked if level.index == -1]
    assert [level.t for level in middles] == list(range(10, 980, 20))
    gaps = [abs(level.ratio / USUAL.level(level.t).ratio - 1) for level in middles]
    assert gaps[0] < 0.25
    assert max(gaps[1:]) < 0.05
    assert max(gaps[5:]) < 0.01
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1) for level in middles)


def test_midpoint_falls_back_to_heun_where_no_timestep_is_between():
    grid = us.Grid.from_timesteps(USUAL, [100, 101, 102])
    x = torch.ones((1, 1, 1, 1), dtype=torch.float64)
    denoiser = gaussian(USUAL, [0.3], shape=(1, 1, 1)).denoiser()
    for step in (*grid.up(1), *grid.down(stop=1)):
        assert torch.equal(Midpoint().step(denoiser, x, step).x, Heun().step(denoiser, x, step).x)


def test_easyinv_averages_in_its_window_and_only_upwards(toy):
    model = toy()
    grid, x = model.grid(10), torch.ones((1, 1, 4, 4), dtype=torch.float64)
    method, plain = EasyInv(start=2, length=3), us.DDIM()
    for step in (*grid.up(), *grid.down()):
        moved, reference = (m.step(model.denoiser(), x, step, None).x for m in (method, plain))
        inside = step.is_up and step.src.index in (2, 3, 4)
        torch.testing.assert_close(moved, (reference + x) / 2 if inside else reference, rtol=0, atol=0)
    assert (
        EasyInv(length=0)
        .step(model.denoiser(), x, grid_step := next(grid.up(3)))
        .x.equal(plain.step(model.denoiser(), x, grid_step, None).x)
    )


def test_easyinv_refuses_what_is_not_a_window(untyped):
    with pytest.raises(us.ArgumentError, match="at least 0, given -1 and 10"):
        EasyInv(start=-1)
    with pytest.raises(us.UnknownNameError, match="did you mean 'source'"):
        EasyInv(eval_at="sorce")


@pytest.mark.parametrize("clean", ["one", "first"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_equal_and_noise_free_levels_give_finite_numbers(method, clean, toy):
    """clean='first' makes levels 0 and 1 equal: that move stays where it is."""
    model = toy()
    grid = us.Grid.of(USUAL, 10, clean=clean)
    x = torch.randn((3, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for steps in (grid.up(), grid.down()):
        moves = list(us.walk(model.denoiser(), x, steps, method))
        assert all(torch.isfinite(move.x).all() for move in moves)
    if clean == "first" and not isinstance(method, EasyInv):
        torch.testing.assert_close(moves[-1].x, moves[-2].x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_batch_is_its_items_and_a_walk_repeats(method, toy):
    model = toy()
    x = torch.randn((4, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def end(x):
        return [m.x for m in us.walk(model.denoiser(), x, model.grid(10).up(), method)][-1]

    assert torch.equal(end(x), end(x))
    torch.testing.assert_close(end(x), torch.cat([end(x[i : i + 1]) for i in range(4)]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS[:3], ids=str)
def test_nothing_assumes_that_alpha_and_sigma_make_one(method):
    """Reference: Gaussian data under alpha = 1 - t, sigma = t, scaled by sqrt(alpha^2 v + sigma^2)."""
    variance = 0.3

    def denoiser(x, level):
        return level.sigma * x / (level.alpha**2 * variance + level.sigma**2)

    def error(moves):
        times = np.linspace(100, 900, moves + 1)
        levels = (us.Level(i, float(t), 1 - t / 1000, t / 1000, is_flow=True) for i, t in enumerate([0, *times]))
        x = torch.ones((1, 1), dtype=torch.float64)
        *_, last = us.walk(denoiser, x, (grid := us.Grid(tuple(levels))).up(1), method)
        scales = [level.alpha**2 * variance + level.sigma**2 for level in (grid[1], grid[-1])]
        return abs(float(last.x) / (scales[1] / scales[0]) ** 0.5 - 1)

    assert np.log2(error(100) / error(200)) > method.order - 0.2
    assert error(200) < (1e-2 if method.order == 1 else 1e-4)
