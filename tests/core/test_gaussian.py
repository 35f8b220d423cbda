"""Walks whose outcome is known in closed form: Gaussian data, one gain per mode (theory.md, eq. 7)."""

import math

import numpy as np
import pytest
import torch

import unsample as us
from unsample.models.analytic import gaussian

LONG = us.Schedule.from_betas(us.Schedule.linear_betas(1e-6, 2e-4, 100_000))
"""The usual linear schedule with a hundred times as many timesteps, so that steps can be made small."""

USUAL = us.Schedule.from_betas(us.Schedule.linear_betas())
VARIANCES = [0.01, 0.3, 1.0, 3.0]


def spread(level, variances):
    """Standard deviation of each mode at a level."""
    return torch.tensor([math.sqrt(level.alpha**2 * v + level.sigma**2) for v in variances], dtype=torch.float64)


def error_of(steps, method, *, up):
    """Largest relative error of a walk between fixed levels, against sqrt(a^2 v + s^2) ratios."""
    model = gaussian(LONG, VARIANCES, shape=(1, 1, len(VARIANCES)))
    timesteps = np.linspace(2_000, 80_000, steps + 1).round().astype(int).tolist()
    grid = us.Grid.from_timesteps(LONG, timesteps)
    low, high = grid[1], grid[steps + 1]
    begin, end = (low, high) if up else (high, low)
    moves = grid.up(1) if up else grid.down(stop=1)
    *_, last = us.walk(model.denoiser(), spread(begin, VARIANCES).reshape(1, 1, 1, -1), moves, method)
    return float((last.x.flatten() / spread(end, VARIANCES) - 1).abs().max())


@pytest.mark.parametrize(
    ("method", "up"),
    [
        (us.DDIM(), False),
        (us.DDIM(), True),
        (us.DDIM(eval_at="source"), True),
        (us.DDIM(eval_at="target_time"), True),
    ],
    ids=str,
)
def test_order_of_convergence_is_the_one_the_method_states(method, up):
    """Reference: the probability flow scales a mode of variance v by the ratio of sqrt(a^2 v + s^2)."""
    counts = [40, 80, 160, 320, 640]
    errors = [error_of(n, method, up=up) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(method.order, abs=0.15), errors
    assert errors[-1] < 0.03
    assert errors == sorted(errors, reverse=True)


# Plain areas: v = 0 (theory.md, "Two DDIM inversions are in circulation")


def one_move_up(step, method, variance=0.0):
    """The factor by which one move up multiplies x / alpha."""
    model = gaussian(USUAL, [variance], shape=(1, 1, 1))
    x = torch.ones((1, 1, 1, 1), dtype=torch.float64)
    moved = method.step(model.denoiser(), x, step, None)
    return float(moved.x) / step.dst.alpha * step.src.alpha


def test_plain_mode_is_scaled_by_r_when_matched_and_by_less_when_shifted():
    """Reference: matched r; shifted 1 + (a_src/a_dst) (1 - 1/r), close to 2 - 1/r where alpha hardly changes."""
    for step in us.Grid.of(USUAL, 50).up(start=1):
        r = step.dst.ratio / step.src.ratio
        shifted = one_move_up(step, us.DDIM(eval_at="target"))
        assert one_move_up(step, us.DDIM(eval_at="source")) == pytest.approx(r, rel=1e-12)
        assert shifted == pytest.approx(1 + step.src.alpha / step.dst.alpha * (1 - 1 / r), rel=1e-9)
        assert shifted < r
        if step.dst.index <= 5:
            assert shifted == pytest.approx(2 - 1 / r, rel=0.01)


def test_variance_of_plain_modes_is_lost_mostly_in_the_first_moves():
    """Reference: r is 7.9 in the first move of a 50-step linear grid, 1.8 in the second, and falls towards 1."""
    losses = [one_move_up(s, us.DDIM()) / (s.dst.ratio / s.src.ratio) for s in us.Grid.of(USUAL, 50).up(start=1)]
    ratios = [s.dst.ratio / s.src.ratio for s in us.Grid.of(USUAL, 50).up(start=1)]
    assert ratios[:2] == pytest.approx([7.94, 1.81], abs=0.01)
    assert losses[:10] == sorted(losses[:10])
    assert math.prod(losses[:3]) < math.prod(losses[3:])


@pytest.mark.parametrize(("k", "measured"), [(1, 0.14), (2, 0.58), (5, 0.85)])
def test_noise_of_a_forward_start_survives_in_plain_areas_as_the_products_say(k, measured):
    """Reference: the factors above, multiplied; matched keeps all of it, sigma_N, from the first level on."""
    model = gaussian(USUAL, torch.zeros(4), shape=(1, 2, 2))
    images, grid = torch.zeros((2000, 1, 2, 2), dtype=torch.float64), model.grid(50)
    assert us.invert(model, images, method=us.DDIM(), start=us.FromImage()).latent.abs().max() == 0
    start, expected = us.ForwardNoise(steps=k), grid[k].ratio * grid[50].alpha
    for step in grid.up(k):
        expected *= 1 + step.src.alpha / step.dst.alpha * (1 - step.src.ratio / step.dst.ratio)
    rounding = 5 / math.sqrt(2 * images.numel())
    assert float(us.invert(model, images, method=us.DDIM(), start=start).latent.std()) == pytest.approx(expected, rel=rounding)
    assert expected == pytest.approx(measured, abs=0.01)
    matched = us.invert(model, images, start=start, method=us.DDIM(eval_at="source")).latent
    assert float(matched.std()) == pytest.approx(grid[50].sigma, rel=rounding)


# The forward start ends exactly where the walk begins


@pytest.mark.parametrize("schedule", [USUAL, us.FlowSchedule(shift=3.0)], ids=["table", "flow"])
@pytest.mark.parametrize("k", [1, 2, 7, 50])
def test_forward_start_lands_on_the_level_the_walk_leaves(schedule, k):
    """Reference: x = a_k x0 + s_k n (eq. 6), with the very level that is the source of the first move."""
    model = gaussian(schedule, [0.5] * 4, shape=(1, 2, 2))
    grid, start, noise = model.grid(50), us.ForwardNoise(steps=k), us.ItemNoise(3, ["a", "b"])
    x0 = torch.full((2, 1, 2, 2), 0.7, dtype=torch.float64)
    level = grid[k] if k == 50 else next(grid.up(k)).src
    drawn = noise.draw((2, 1, 2, 2), dtype=torch.float64)
    assert torch.equal(start.place(x0, grid, noise), level.alpha * x0 + level.sigma * drawn)
    assert level is start.level(grid)
    stopped = us.invert(model, x0, grid=grid, start=start, until=k, seed=3, items=["a", "b"])
    assert torch.equal(stopped.latent, start.place(x0, grid, noise))


def test_forward_start_at_the_next_level_is_the_slip_and_nothing_else():
    """Reference: noised with the scales of level k + 1, walked from level k."""
    grid = us.Grid.of(USUAL, 50)
    slip, right = us.ForwardNoise(steps=2, at_next_level=True), us.ForwardNoise(steps=3)
    noise, x0 = us.ItemNoise(0, [0]), torch.ones((1, 1, 2, 2), dtype=torch.float64)
    assert torch.equal(slip.place(x0, grid, noise), right.place(x0, grid, noise))
    assert (slip.level(grid).index, right.level(grid).index) == (2, 3)


def test_forward_start_has_the_moments_of_forward_diffusion():
    """Reference: mean a_k mean, variance a_k^2 v + s_k^2, over 20,000 items."""
    grid, count = us.Grid.of(USUAL, 50), 20_000
    x0 = 0.4 + 0.5 * torch.randn((count, 1, 1, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = us.ForwardNoise(steps=10).place(x0, grid, us.ItemNoise(0, range(count)))
    variance = grid[10].alpha ** 2 * 0.25 + grid[10].sigma ** 2
    assert float(x.mean()) == pytest.approx(grid[10].alpha * 0.4, abs=5 * math.sqrt(variance / count))
    assert float(x.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / count))


def test_invert_with_a_forward_start_walks_only_the_moves_that_are_left():
    """Reference: by hand, from the placed state with eq. 2."""
    model = gaussian(USUAL, VARIANCES, shape=(1, 2, 2))
    grid, images = model.grid(10), torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64)
    start = us.ForwardNoise(steps=3)
    x = start.place(images, grid, us.ItemNoise(0, [0]))
    for i in range(3, 10):
        a, b = grid[i], grid[i + 1]
        eps = b.sigma * x.flatten() / (b.alpha**2 * torch.tensor(VARIANCES, dtype=torch.float64) + b.sigma**2)
        x = b.alpha * (x - a.sigma * eps.reshape(x.shape)) / a.alpha + b.sigma * eps.reshape(x.shape)
    trajectory = us.invert(model, images, steps=10, method=us.DDIM(), start=start)
    torch.testing.assert_close(trajectory.latent, x, rtol=1e-12, atol=1e-12)
    assert (trajectory.start, trajectory.index, trajectory.nfe) == (3, 10, 7)
