"""Methods that solve the implicit inverse of a sampling move: solutions, rates and residuals with a closed form."""

import numpy as np
import pytest
import torch

import unsample as us
from unsample.methods.contraction import ContractionAware
from unsample.methods.fixed_point import Anderson, AveragedFixedPoint, DampedFixedPoint, FixedPoint
from unsample.methods.optimised import GradientDescent, GradientThenFixedPoint
from unsample.methods.renoise import ReNoise
from unsample.models.analytic import bench_field, gaussian, mixture

from .exact import LONG, USUAL, draw

VARIANCES = [0.01, 0.3, 1.0, 3.0]

METHODS = [
    FixedPoint(iterations=3),
    AveragedFixedPoint(iterations=3),
    DampedFixedPoint(iterations=3, patience=2),
    Anderson(iterations=4, window=2),
    ContractionAware(maximum=4),
    ContractionAware(maximum=4, window=2),
    ReNoise(iterations=3, average=(2, 4)),
    ReNoise(iterations=2, average=(0, 2), divergence=0.065, correlation=20.0),
    GradientDescent(iterations=3),
    GradientThenFixedPoint(first_iterations=3, iterations=2),
]
ids = [str(method) for method in METHODS]


@pytest.fixture(scope="module")
def toy_model():
    """A mixture of three Gaussians in 1x8x8 pixels."""
    means = torch.randn((3, 64), generator=torch.Generator().manual_seed(3), dtype=torch.float64) / 2
    return mixture(USUAL, means, [0.02, 0.2, 0.5], shape=(1, 8, 8))


def walk_up(denoiser, x, steps, method):
    """All moves of a walk."""
    return list(us.walk(denoiser, x, steps, method))


def rms(x):
    return x.flatten(1).square().mean(1).sqrt()


def back(denoiser, moved):
    """The state that sampling leads to from where a move went."""
    return us.DDIM().step(denoiser, moved.x, us.Step(moved.step.dst, moved.step.src)).x


# What every method promises


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_evaluations_are_counted_and_a_move_down_is_ddim_sampling(method, toy_model):
    grid, counted = toy_model.grid(6), us.Counted(toy_model.denoiser())
    assert isinstance(method, us.Stepper)
    for k in (0, 2, 5):
        counted.nfe = 0
        moves = walk_up(counted, draw(2, 1, 8, 8), grid.up(k), method)
        exact = method.evaluations_on(grid.up(k)) if isinstance(method, ContractionAware) else method.evaluations(6 - k)
        assert counted.nfe == exact <= method.evaluations(6 - k)
        assert [moved.step for moved in moves] == list(grid.up(k))
    counted.nfe = 0
    down = walk_up(counted, draw(2, 1, 8, 8), grid.down(), method)
    plain = walk_up(toy_model.denoiser(), draw(2, 1, 8, 8), grid.down(), us.DDIM())
    assert counted.nfe == 6
    assert all(torch.equal(a.x, b.x) and a.residual is None for a, b in zip(down, plain, strict=True))


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_residual_is_that_of_the_last_state_the_network_saw(method, toy_model):
    """Reference: root mean square of u - f(u) recomputed from a record of what the network was asked and said."""
    for step in toy_model.grid(8).up():
        x, asked = draw(3, 1, 8, 8, seed=step.dst.index), []

        def recording(u, level, asked=asked):
            eps = toy_model.denoiser()(u, level)
            asked.append((u.detach(), level, eps.detach()))
            return eps

        with torch.no_grad():
            moved = method.step(recording, x, step, method.init(x))
        torch.testing.assert_close(moved.x, us.transfer(x, moved.eps, step), rtol=1e-12, atol=1e-12)
        u, level, eps = asked[-1]
        if isinstance(method, (GradientDescent, GradientThenFixedPoint)):  # theirs is that of the state returned
            u, level, eps = moved.x, step.dst, toy_model.denoiser()(moved.x, step.dst)
        assert level == step.dst
        assert moved.residual.shape == (3,)
        torch.testing.assert_close(moved.residual, rms(u - us.transfer(x, eps, step)), rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_an_item_depends_on_itself_alone_and_runs_repeat(method, toy_model):
    grid, x = toy_model.grid(5), draw(4, 1, 8, 8) * torch.tensor([0.1, 1.0, 3.0, 0.0])[:, None, None, None]
    denoiser = toy_model.denoiser()
    together = walk_up(denoiser, x, grid.up(), method)
    again = walk_up(denoiser, x, grid.up(), method)
    for i in range(4):
        alone = walk_up(denoiser, x[i : i + 1], grid.up(), method)
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one.x[0], all_.x[i], rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(one.residual[0], all_.residual[i], rtol=1e-5, atol=1e-8)
    assert all(torch.equal(a.x, b.x) for a, b in zip(together, again, strict=True))


@pytest.mark.parametrize("method", METHODS, ids=ids)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_those_of_the_state(method, dtype, toy_model):
    x = draw(2, 1, 8, 8).to(dtype)
    for moved in walk_up(toy_model.denoiser(), x, toy_model.grid(4).up(), method):
        for tensor in (moved.x, moved.eps):
            assert (tensor.shape, tensor.dtype, tensor.requires_grad) == (x.shape, dtype, False)
        assert (moved.residual.shape, moved.residual.dtype, moved.residual.requires_grad) == ((2,), dtype, False)
        assert bool(torch.isfinite(moved.x).all())


@pytest.mark.parametrize(
    "method",
    [
        FixedPoint(iterations=10),
        AveragedFixedPoint(),
        DampedFixedPoint(),
        Anderson(),
        ContractionAware(),
        ReNoise(iterations=4, average=(3, 5)),
        GradientThenFixedPoint(first_iterations=40),
    ],
    ids=str,
)
def test_order_of_convergence_is_the_one_the_method_states(method):
    """Reference: the probability flow scales a mode of variance v by the ratio of sqrt(a^2 v + s^2)."""
    model, counts, errors = gaussian(LONG, VARIANCES, shape=(1, 1, 4)), [40, 80, 160], []
    for steps in counts:
        grid = us.Grid.from_timesteps(LONG, np.linspace(2_000, 80_000, steps + 1).round().astype(int).tolist())
        low, high = (
            torch.tensor([(level.alpha**2 * v + level.sigma**2) ** 0.5 for v in VARIANCES], dtype=torch.float64)
            for level in (grid[1], grid[steps + 1])
        )
        last = walk_up(model.denoiser(), low.reshape(1, 1, 1, 4), grid.up(1), method)[-1]
        errors.append(float((last.x.flatten() / high - 1).abs().max()))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(method.order, abs=0.15), errors


# Rates


def test_fixed_point_contracts_by_one_minus_one_over_r_in_plain_modes():
    """Reference: v = 0 is inverted by u = x s_dst/s_src, and n iterations leave (1 - 1/r)^(n+1) of what x is off by."""
    model, x = gaussian(USUAL, [0.0], shape=(1, 1, 1)), torch.ones((1, 1, 1, 1), dtype=torch.float64)
    measured = {}
    for step in us.Grid.of(USUAL, 50).up(1):
        r, solution = step.dst.ratio / step.src.ratio, step.dst.sigma / step.src.sigma
        off = [float(FixedPoint(n).step(model.denoiser(), x, step).x) - solution for n in (1, 2, 3)]
        assert off[1] / off[0] == pytest.approx(1 - 1 / r, rel=1e-6)
        assert off[2] / off[1] == pytest.approx(1 - 1 / r, rel=1e-6)
        assert off[0] == pytest.approx((1 - solution) * (1 - 1 / r) ** 2, rel=1e-6)
        measured[step.dst.index] = off[1] / off[0]
    assert [round(measured[i], 3) for i in (2, 3, 4, 5)] == [0.874, 0.447, 0.311, 0.24]


@pytest.mark.parametrize("method", METHODS[:7], ids=ids[:7])
def test_plain_modes_do_not_converge_out_of_a_level_without_noise_and_the_residual_says_so(method):
    """Reference: f(u) = a x + u, so that ||u - f(u)|| is a |x| whatever the iterations."""
    model, x = gaussian(USUAL, torch.zeros(4), shape=(1, 2, 2)), torch.ones((1, 1, 2, 2), dtype=torch.float64)
    x = torch.cat([x, 0 * x])
    first = next(us.Grid.of(USUAL, 50).up())
    assert first.src.sigma == 0
    moved = method.step(model.denoiser(), x, first, method.init(x))
    torch.testing.assert_close(
        moved.residual, torch.tensor([first.dst.alpha, 0.0], dtype=torch.float64), rtol=1e-6, atol=1e-12
    )
    assert bool(torch.isfinite(moved.x).all())
    assert not moved.x[1].any()


def iterations_needed(make, step, denoiser, x, accuracy):
    """Fewest iterations after which sampling leads back to x."""
    for n in range(1, 200):
        if float((back(denoiser, make(n).step(denoiser, x, step)) - x).abs().max()) < accuracy:
            return n
    raise AssertionError("not in 200 iterations")


def test_anderson_needs_fewer_evaluations_than_the_fixed_point():
    """Measured on the bench (256 modes) from level 1, where r is 4.4, and 10: 48, 72, 99, 14, 11 and 4, 7, 14, 3, 3."""
    model, _ = bench_field()
    denoiser, grid = model.denoiser(), model.grid(50)
    x = us.sample(model, draw(2, 1, 16, 16), index=50).images
    needed = {}
    for k in (1, 10):
        step = us.Step(grid[k], grid[k + 1])
        there = grid[k].alpha * x + grid[k].sigma * draw(*x.shape, seed=k)
        for make in (FixedPoint, AveragedFixedPoint, DampedFixedPoint, Anderson, lambda n: Anderson(n, window=6)):
            needed.setdefault(k, []).append(iterations_needed(make, step, denoiser, there, 1e-6))
    for plain, averaged, damped, anderson, wide in needed.values():
        assert wide <= anderson < plain < averaged < damped
    assert needed[1][3] < needed[1][0] / 3


def test_answers_that_swing_are_damped():
    """Reference: with f' = -1.5 the error grows plainly, and shrinks by sqrt(3)/2 averaged and 1/4 damped."""
    step = us.Step(us.Level(1, 0, 1.0, 0.2), us.Level(2, 9, 1.0, 0.6))

    def swinging(x, level):
        return -1.5 * x / (step.dst.sigma - step.src.sigma)

    x = torch.ones((1, 1, 1, 1), dtype=torch.float64)
    exact = 1 / 2.5  # u = x - 1.5 u
    off = {make: [abs(float(make(n).step(swinging, x, step).x) - exact) for n in (20, 40)] for make in
           (FixedPoint, AveragedFixedPoint, DampedFixedPoint, Anderson)}  # fmt: skip
    assert off[FixedPoint][1] / off[FixedPoint][0] == pytest.approx(1.5**20, rel=1e-6)
    assert off[AveragedFixedPoint][1] / off[AveragedFixedPoint][0] < 2 * 0.75**10
    assert off[DampedFixedPoint][0] < 1e-11
    assert off[Anderson][0] < 1e-11


def test_patience_halves_the_step_of_the_items_that_need_it():
    """Reference: items with f' = 0.5 and -6; relaxed by 0.5 the second is multiplied by -2.5, by 0.25 it is by -0.75."""
    step = us.Step(us.Level(1, 0, 1.0, 0.2), us.Level(2, 9, 1.0, 0.6))
    slopes = torch.tensor([0.5, -6.0], dtype=torch.float64)[:, None, None, None]

    def denoiser(x, level):
        return slopes * x / (step.dst.sigma - step.src.sigma)

    x = torch.ones((2, 1, 1, 1), dtype=torch.float64)
    stubborn = DampedFixedPoint(iterations=60).step(denoiser, x, step)
    patient = DampedFixedPoint(iterations=60, patience=2).step(denoiser, x, step)
    assert stubborn.residual[1] > 1e6
    torch.testing.assert_close(patient.x.flatten(), torch.tensor([2.0, 1 / 7], dtype=torch.float64), rtol=1e-5, atol=0)
    assert torch.equal(patient.x[0], stubborn.x[0])


# Solutions


@pytest.mark.parametrize("method", [FixedPoint(60), AveragedFixedPoint(110), DampedFixedPoint(140), Anderson(12)], ids=str)
@pytest.mark.parametrize("k", [2, 10])
def test_converged_methods_invert_a_sampling_move(method, k, toy_model):
    """Reference: DDIM sampling leads back; r is 1.8 and 1.1 there."""
    grid, denoiser = toy_model.grid(50), toy_model.denoiser()
    step = us.Step(grid[k], grid[k + 1])
    x = grid[k].alpha * us.sample(toy_model, draw(4, 1, 8, 8)).images + grid[k].sigma * draw(4, 1, 8, 8, seed=1)
    moved = method.step(denoiser, x, step)
    assert float((back(denoiser, moved) - x).abs().max()) < 1e-9
    assert float(moved.residual.max()) < 1e-9


def test_levels_need_not_preserve_variance():
    """Reference: alpha = 1 - t, sigma = t, Gaussian eps in closed form; sampling leads back."""
    levels = [us.Level(i, 100 * t, 1 - t, t, is_flow=True) for i, t in enumerate((0.2, 0.3, 0.45, 0.7))]
    variances = torch.tensor(VARIANCES, dtype=torch.float64).reshape(1, 2, 2)

    def denoiser(x, level):
        return level.sigma * x / (level.alpha**2 * variances + level.sigma**2)

    grid, x = us.Grid(tuple(levels)), draw(3, 1, 2, 2)
    for method in (FixedPoint(80), DampedFixedPoint(200), Anderson(12), ContractionAware(1e-12, 100)):
        up = walk_up(denoiser, x, grid.up(), method)[-1].x
        down = walk_up(denoiser, up, grid.down(), us.DDIM())[-1].x
        torch.testing.assert_close(down, x, rtol=0, atol=1e-9)


def test_there_and_back_on_the_mixture_beats_ddim_inversion_at_every_cost(toy_model):
    """From a forward start of one step, N = 20: root mean square of what a round trip changes."""
    images = us.sample(toy_model, draw(6, 1, 8, 8)).images
    start, off = us.ForwardNoise(steps=1), {}
    grid = toy_model.grid(20)
    begin = start.place(images, grid, us.ItemNoise(0, range(6)))
    for method in (us.DDIM(), FixedPoint(1), FixedPoint(3), Anderson(3), FixedPoint(30), Anderson(8)):
        latent = us.invert(toy_model, images, steps=20, start=start, method=method).latent
        last = walk_up(toy_model.denoiser(), latent, grid.down(stop=1), us.DDIM())[-1].x
        off[str(method)] = float((last - begin).square().mean().sqrt())
    values = list(off.values())
    assert values == sorted(values, reverse=True), off
    assert values[-1] < 1e-9


def test_invert_reports_the_residuals_and_the_evaluations(toy_model):
    images = us.sample(toy_model, draw(3, 1, 8, 8)).images
    trajectory = us.invert(toy_model, images, steps=10, start=us.ForwardNoise(steps=2), method=Anderson(), batch_size=2)
    assert trajectory.nfe == Anderson().evaluations(8) == 48
    assert sorted(trajectory.residuals) == list(range(3, 11))
    assert all(residual.shape == (3,) for residual in trajectory.residuals.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedPoint(iterations=0), "iterations must be at least 1, given 0"),
        (lambda: Anderson(window=0), "window must be at least 1"),
        (lambda: Anderson(ridge=0.0), "ridge must be positive"),
        (lambda: DampedFixedPoint(rho=0.0), "rho must be positive"),
        (lambda: DampedFixedPoint(patience=0), "patience must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(us.ArgumentError, match=message):
        make()
