"""Flow schedules: levels, grids, what the network is given, and the noisy end, where alpha is all but zero."""

import math

import numpy as np
import pytest
import torch

import unsample as us
from unsample.core.schedule import MIN_ALPHA, TINY_ALPHA
from unsample.models.analytic import gaussian

FLOW = us.FlowSchedule()


# Levels and grids


@pytest.mark.parametrize("t", [0.0, 0.25, 333.3, 999.0, 1000.0])
def test_a_level_is_on_the_straight_path(t):
    level = FLOW.level(t, 3)
    assert (level.index, level.t) == (3, t)
    assert level.alpha == max(1 - t / 1000, MIN_ALPHA)
    assert level.alpha + level.sigma == 1
    assert level.is_flow
    assert level.tau == pytest.approx(t / 1000, abs=2 * MIN_ALPHA)


def test_the_share_of_noise_of_a_table_is_sigma_over_both():
    level = us.Schedule.from_betas(us.Schedule.linear_betas()).level(500)
    assert level.tau == pytest.approx(level.ratio / (1 + level.ratio), rel=1e-12)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_a_grid_has_its_levels_from_clean_to_pure_noise(shift, steps):
    grid = us.Grid.of(us.FlowSchedule(shift=shift), steps)
    assert grid.steps == steps
    assert (grid[0].t, grid[0].alpha, grid[0].sigma) == (0.0, 1.0, 0.0)
    assert (grid[steps].t, grid[steps].alpha) == (1000.0, MIN_ALPHA)
    assert gaussian(us.FlowSchedule(shift=shift), [1.0], shape=(1, 1, 1)).grid(steps) == grid


def test_a_grid_of_given_sigmas_is_not_shifted_again():
    grid = us.Grid.from_sigmas(us.FlowSchedule(shift=3.0), [0.125, 0.5, 1.0])
    assert [level.sigma for level in grid.levels] == [0.0, 0.125, 0.5, 1 - MIN_ALPHA]
    assert grid == us.Grid.from_timesteps(us.FlowSchedule(), [125.0, 500.0, 1000.0])


def test_dynamic_shifting_is_a_shift_of_exp_mu():
    """Reference: diffusers' exponential time shift, exp(mu) / (exp(mu) + 1 / t - 1)."""
    mu = 0.8
    for t in (0.02, 0.5, 1.0):
        assert us.FlowSchedule(shift=math.exp(mu)).shifted(t) == pytest.approx(math.exp(mu) / (math.exp(mu) + 1 / t - 1))


@pytest.mark.parametrize(("least", "cleanest"), [("shifted", 3 / 1002), ("trained", 1 / 1000), ("even", 1 / 5)])
def test_times_are_even_down_to_the_least_and_then_shifted(least, cleanest):
    even = [1 - (1 - cleanest) * i / 4 for i in (4, 3, 2, 1, 0)]
    found = us.FlowSchedule(shift=3.0, least=least).timesteps(5)
    assert found == pytest.approx([3000 * t / (1 + 2 * t) for t in even], rel=1e-12)


def test_schedules_are_named_by_their_settings():
    others = [{"shift": 3.0}, {"trained": 500}, {"least": "trained"}, {"least": "even"}, {"shift": 3.0, "least": "even"}]
    assert len({FLOW.digest, *(us.FlowSchedule(**settings).digest for settings in others)}) == 6
    assert us.FlowSchedule(shift=1).digest == FLOW.digest
    assert len(us.FlowSchedule(500)) == 500


def test_what_does_not_fit_is_refused(untyped):
    for settings in ({"trained": 0}, {"shift": 0.0}, {"shift": -1.0}, {"shift": math.inf}, {"shift": math.nan}):
        with pytest.raises(us.ArgumentError, match=r"positive shift|finite number|trained"):
            us.FlowSchedule(**settings)
    with pytest.raises(us.UnknownNameError, match=r"unknown least time 'evn': did you mean 'even'"):
        us.FlowSchedule(least="evn")
    for t in (-1.0, 1000.5):
        with pytest.raises(us.ArgumentError, match=r"outside the trained range 0\.\.1000"):
            FLOW.level(t)
    for steps in (0, True, 2.5):
        with pytest.raises(us.ArgumentError, match="whole number from 1 on"):
            us.Grid.of(FLOW, steps)
    for more in ({"spacing": "trailing"}, {"steps_offset": 1}):
        with pytest.raises(us.ArgumentError, match="leave out spacing"):
            us.Grid.of(FLOW, 4, **more)
    with pytest.raises(us.ArgumentError, match="leave out clean"):
        us.Grid.of(FLOW, 4, clean="first")
    with pytest.raises(us.ArgumentError, match="strictly rising"):
        us.Grid.from_sigmas(FLOW, [1.0, 0.5])
    with pytest.raises(us.ArgumentError, match="leave out spacing 'karras'"):
        gaussian(FLOW, [1.0], shape=(1, 1, 1)).grid(4, "karras")


@pytest.mark.parametrize(
    ("dtype", "given"), [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.float16, torch.float32)]
)
def test_a_flow_network_is_given_a_float_and_a_table_network_a_whole_number(dtype, given, untyped):
    seen = []

    def network(x, t, condition):
        seen.append(t)
        return torch.zeros_like(x)

    x = torch.ones((2, 1, 1, 1), dtype=dtype)
    us.NetworkDenoiser(network, "flow")(x, FLOW.level(333.25))
    us.NetworkDenoiser(network, "flow")(x, us.Level(1, 250, 0.75, 0.25, is_flow=True))
    for whole in (333, np.int64(333)):
        us.NetworkDenoiser(network, "epsilon")(x, us.Schedule.from_betas(us.Schedule.linear_betas()).level(whole))
    floats, longs = [(given, [333.25] * 2), (given, [250.0] * 2)], [(torch.long, [333] * 2)] * 2
    assert [(t.dtype, t.tolist()) for t in seen] == floats + longs


# The noisy end


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_move_from_the_noisy_end_is_eulers(steps, dtype):
    """Reference: x + (t' - 1) v, for which eps alone says nothing."""
    x, v = torch.randn((2, 64, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    move = next(us.Grid.of(us.FlowSchedule(shift=3.0), steps).down())
    denoiser = us.NetworkDenoiser(lambda x, t, condition: v, "flow")
    moved = next(us.walk(denoiser, x, [move], us.DDIM()))
    expected = x.double() + (move.dst.t / 1000 - 1) * v.double()
    assert moved.x.dtype == dtype
    assert moved.eps.dtype == torch.float64
    assert float((moved.x - expected).abs().max()) < (1e-6 if dtype == torch.float32 else 2e-7)


def test_the_floor_of_alpha_leaves_less_than_float32_rounding():
    """Of the velocity: half from the floor, half from float64; in float32 eps the same move would be off by ten per cent."""
    x, v = torch.randn((2, 1000), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end, mid = FLOW.level(1000.0), FLOW.level(500.0)
    found = us.transfer(x, us.to_eps(v, x, end, "flow"), us.Step(end, mid))
    assert float((found - (x - 0.5 * v)).abs().max()) < 2.0**-23
    rough = us.transfer(x.float(), us.to_eps(v, x, end, "flow").float(), us.Step(end, mid))
    assert float((rough - (x - 0.5 * v)).abs().max()) > 0.1


def test_zero_terminal_snr_is_left_in_float32_as_in_float64():
    schedule = us.Schedule.from_betas(us.Schedule.scaled_linear_betas(), zero_terminal_snr=True)
    grid = us.Grid.of(schedule, 10, spacing="trailing")
    assert grid[10].alpha < TINY_ALPHA < grid[9].alpha
    denoiser = us.NetworkDenoiser(lambda x, t, condition: torch.tanh(2 * x), "v_prediction")
    x = torch.randn((8, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    wide, narrow = (next(us.walk(denoiser, x.to(dtype), grid.down(), us.DDIM())).x for dtype in (torch.float64, torch.float32))
    assert narrow.dtype == torch.float32
    assert float((narrow - wide).abs().max()) < 1e-6


def test_ordinary_levels_are_moved_in_their_own_precision():
    """Bit by bit the equation in float32; only an eps in float64 is moved in float64, and the result is still float32."""
    src, dst = us.Schedule.from_betas(us.Schedule.linear_betas()).level(999), us.Level(0, 0, 1.0, 0.0)
    x, eps = torch.randn((2, 50), generator=torch.Generator().manual_seed(0))
    scale = dst.alpha / src.alpha
    assert src.alpha > TINY_ALPHA
    assert torch.equal(us.transfer(x, eps, us.Step(src, dst)), scale * x + (dst.sigma - scale * src.sigma) * eps)
    wide = us.transfer(x, eps.double(), us.Step(src, dst))
    assert torch.equal(wide, us.transfer(x.double(), eps.double(), us.Step(src, dst)).float())
    torch.testing.assert_close(us.transfer(x, eps.double(), us.Step(src, dst), 0.5), torch.clamp(wide, -0.5, 0.5))


# Inversion


GAINS = {  # of a plain area (x0 = 0, variance 0, velocity x / t) over a move from s to t
    "source": lambda s, t: t / s,
    "target_time": lambda s, t: 2 - s / t,
    "target": lambda s, t: 2 - s / t,
}


@pytest.mark.parametrize("eval_at", GAINS)
@pytest.mark.parametrize("k", [1, 2, 5, 27])
def test_std_of_a_plain_area_after_a_forward_start_of_k(eval_at, k):
    """Closed form: t_k times the gains of the moves; evaluated at the source it is 1 for every k but 0."""
    model = gaussian(us.FlowSchedule(shift=3.0), [0.0] * 4, shape=(1, 2, 2))
    x0 = torch.zeros((3, 1, 2, 2), dtype=torch.float64)
    noise = us.ItemNoise(0, range(3)).draw(x0.shape, dtype=x0.dtype)
    found = us.invert(model, x0, steps=28, start=us.ForwardNoise(steps=k), method=us.DDIM(eval_at=eval_at))
    times = [level.t / 1000 for level in model.grid(28).levels]
    std = times[k] * math.prod(GAINS[eval_at](s, t) for s, t in zip(times[k:], times[k + 1 :], strict=False))
    assert std == pytest.approx(1) if eval_at == "source" else std < 1
    torch.testing.assert_close(found.latent, std * noise, rtol=1e-6, atol=1e-6)


def test_without_a_forward_start_a_plain_area_stays_without_noise():
    model = gaussian(us.FlowSchedule(shift=3.0), [0.0] * 4, shape=(1, 2, 2))
    found = us.invert(model, torch.zeros((2, 1, 2, 2)), steps=28, start=us.FromImage(), method=us.DDIM(eval_at="source"))
    assert float(found.latent.abs().max()) == 0


def test_a_shift_that_rounds_above_one_still_ends_at_pure_noise():
    schedule = us.FlowSchedule(shift=0.35490215858383595)
    assert schedule.shift / (1 + (schedule.shift - 1)) > 1
    assert us.Grid.of(schedule, 4)[4].t == 1000
