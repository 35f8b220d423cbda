"""Looking ahead: the formula, what it undoes, and how fast that gets exact."""

import math
from itertools import pairwise

import pytest
import torch

import unsample as us
from unsample.methods.flow import RFInversion
from unsample.methods.look_ahead import LookAhead, UniInv
from unsample.models.analytic import gaussian

SCHEDULE = us.Schedule.from_betas(us.Schedule.linear_betas())


def test_the_formula_against_a_plain_loop(toy):
    """Reference: the update written out in u and tau, as the docstring has it."""
    model = toy()
    grid, denoiser = model.grid(16), model.denoiser()
    x0 = torch.randn((3, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = us.ForwardNoise(steps=1).place(x0, grid, us.ItemNoise(0, range(3)))

    def direction(x, level):
        eps = denoiser(x, level)
        return eps - (x - level.sigma * eps) / level.alpha

    def state(u, level):
        return u * (level.alpha + level.sigma)

    level = grid[1]
    u, tau, known = state(x, level) / (level.alpha + level.sigma) ** 2, level.sigma / (level.alpha + level.sigma), []
    known.append((tau, direction(x, level)))
    bent = 0
    for dst in grid.levels[2:]:
        dtau = dst.sigma / (dst.alpha + dst.sigma) - tau
        guess = known[-1][1]
        if len(known) > 1 and dst.ratio <= 1.8 * grid[dst.index - 1].ratio:
            guess = guess + dtau / (known[-1][0] - known[-2][0]) * (known[-1][1] - known[-2][1])
            bent += 1
        w = direction(state(u + dtau * guess, dst), dst)
        u, tau = u + dtau * w, tau + dtau
        known.append((tau, w))
    found = us.invert(model, x0, grid=grid, method=LookAhead(ratio=1.8), start=us.ForwardNoise(steps=1))
    assert 0 < bent < 14  # both kinds of move are made
    torch.testing.assert_close(found.latent, state(u, grid[16]), rtol=1e-9, atol=1e-9)


def test_without_a_bend_it_is_uni_inv(toy):
    model = toy()
    x0 = torch.randn((2, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = (us.invert(model, x0, steps=9, method=method).latent for method in (LookAhead(ratio=1.0), UniInv()))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("method", "order"), [(us.DDIM(), 1), (UniInv(), 2), (LookAhead(ratio=1.0), 2), (LookAhead(), 3)])
def test_how_fast_the_way_back_by_ddim_gets_exact(method, order):
    """Reference: the image. Grids through every trained timestep of a stride, from a level with noise to another."""
    model = gaussian(SCHEDULE, [0.3], shape=(1, 1, 1))
    image = torch.full((1, 1, 1, 1), 0.8, dtype=torch.float64)
    errors = []
    for stride in (20, 10, 5):
        grid = us.Grid.from_timesteps(SCHEDULE, list(range(200, 901, stride)))
        x = us.ForwardNoise(steps=1).place(image, grid, us.ItemNoise(0, [0]))
        there = us.invert(model, image, grid=grid, method=method, start=us.ForwardNoise(steps=1))
        for moved in us.walk(model.denoiser(), there.latent, grid.down(stop=1), us.DDIM()):
            back = moved.x
        errors.append(float((back - x).abs()))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes[-1] == pytest.approx(order, abs=0.15), slopes


def test_a_grid_with_two_equal_levels_is_walked():
    """The clean level and the first are the same when clean='first'."""
    model = gaussian(SCHEDULE, [0.3], shape=(1, 1, 1))
    grid = us.Grid.of(SCHEDULE, 6, clean="first")
    assert grid[0].ratio == grid[1].ratio
    found = us.invert(model, torch.ones((1, 1, 1, 1)), grid=grid, method=LookAhead(), start=us.FromImage())
    assert bool(found.finite.all())


def test_rf_inversion_between_its_ends(toy):
    """gamma 0 is DDIM asked at the source; gamma 1 from a forward start is that start's noise all the way."""
    model = toy()
    x0 = torch.randn((2, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = us.ForwardNoise(steps=2)
    free = us.invert(model, x0, steps=9, method=RFInversion(gamma=0.0), start=start).latent
    torch.testing.assert_close(free, us.invert(model, x0, steps=9, method=us.DDIM(eval_at="source"), start=start).latent)
    bound = us.invert(model, x0, steps=9, method=RFInversion(gamma=1.0), start=start).latent
    torch.testing.assert_close(bound, us.ForwardNoise(steps=9).place(x0, model.grid(9), us.ItemNoise(0, range(2))))


@pytest.mark.parametrize(
    ("method", "option"), [(LookAhead, {"ratio": 0.5}), (LookAhead, {"ratio": math.nan}), (RFInversion, {"gamma": 2.0})]
)
def test_settings_out_of_range(method, option):
    with pytest.raises(us.ArgumentError):
        method(**option)
