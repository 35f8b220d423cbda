"""Heun, Midpoint and EasyInv: their formulas, what they ask, and where they fall back."""

import pytest
import torch

import unsample as us
from unsample.methods.explicit import EasyInv, Heun, Midpoint
from unsample.models.analytic import gaussian

from .exact import USUAL


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


@pytest.mark.parametrize(
    ("method", "weight", "window"),
    [(EasyInv(), 0.5, range(3, 13)), (EasyInv(start=43, length=5, weight=0.8), 0.8, range(43, 48))],
)
def test_easyinv_is_its_authors_code(method, weight, window):
    """Reference: EasyInv/example.py and EasyInv_SDXL/utils.py written down, around their next_step: eta 0.5, 0.8 for SDXL."""
    schedule = us.Schedule.from_betas(us.Schedule.scaled_linear_betas())
    bars, x0 = schedule.alpha_bar, torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 1, 8, 8)

    def eps(x, t):
        return torch.tanh(x + bars[t])

    theirs = x0
    for i, t in enumerate(range(0, 1000, 20)):
        now, then, last = bars[t - 20] if t >= 20 else bars[0], bars[t], theirs
        answer = eps(theirs, t)
        theirs = then**0.5 * (theirs - (1 - now) ** 0.5 * answer) / now**0.5 + (1 - then) ** 0.5 * answer
        if i in window:
            theirs = weight * theirs + (1 - weight) * last
    ours = x0
    for moved in us.walk(lambda x, level: eps(x, level.t), ours, us.Grid.of(schedule, 50, clean="first").up(), method):
        ours = moved.x
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_easyinv_refuses_what_is_not_a_window(untyped):
    with pytest.raises(us.ArgumentError, match=r"lies in \(0, 1\], given 1.5"):
        EasyInv(weight=1.5)
    with pytest.raises(us.ArgumentError, match="at least 0, given -1 and 10"):
        EasyInv(start=-1)
    with pytest.raises(us.UnknownNameError, match="did you mean 'source'"):
        EasyInv(eval_at="sorce")
