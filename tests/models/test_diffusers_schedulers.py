"""Step by step against diffusers' DDIMScheduler (down) and DDIMInverseScheduler (up), in float64.

Our table is computed in float64, theirs in float32: the tables are compared on their own, then theirs is replaced by ours, so
that the arithmetic can be compared tightly.
"""

import itertools

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

import unsample as us
from unsample.core.betas import MIN_ALPHA_BAR
from unsample.core.schedule import Level
from unsample.models.scheduler_config import schedule_of

from ..pairs import cover_pairs

BETAS = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
    "trained_betas": {"trained_betas": np.geomspace(1e-4, 0.03, 1000).tolist()},
    "linear, zero snr": {"rescale_betas_zero_snr": True},
    "scaled_linear, zero snr": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_betas_zero_snr": True,
    },
    "squaredcos_cap_v2, zero snr": {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True},
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
UP = [
    (prediction, to_one) for prediction in PREDICTIONS for to_one in (True, False) if (prediction, to_one) != ("sample", True)
]
"""From a clean level without noise, x0 predictions have no eps: test_up_from_a_noise_free_level_..."""

TIGHT = 1e-10
"""Relative to the largest value on the way."""


def network(x, t):
    """Any smooth, bounded, nonlinear function of state and time."""
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(x * (0.5 + t / 2000)) + 0.3 * torch.sin(3 * x + t / 100)


def denoiser(prediction):
    return us.NetworkDenoiser(lambda x, t, _condition: network(x, t), prediction)


def state():
    return torch.randn((2, 1, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def scheduler(kind, betas, **config):
    """Their scheduler with our table, and ours."""
    theirs = kind(**BETAS[betas], clip_sample=False, **config)
    schedule = schedule_of(theirs.config)
    theirs.alphas_cumprod = torch.tensor(schedule.alpha_bar, dtype=torch.float64)
    end = torch.ones((), dtype=torch.float64) if theirs.config.set_alpha_to_one else theirs.alphas_cumprod[0]
    theirs.final_alpha_cumprod = theirs.initial_alpha_cumprod = end
    return theirs, schedule


def grid_of(theirs, schedule, n):
    config = theirs.config
    return us.Grid.of(
        schedule,
        n,
        spacing=config.timestep_spacing,
        steps_offset=config.steps_offset,
        clean="one" if config.set_alpha_to_one else "first",
    )


def their_walk(theirs, x, n):
    theirs.set_timesteps(n)
    states = []
    for t in theirs.timesteps:
        x = theirs.step(network(x, t), t, x).prev_sample
        states.append(x)
    return states


def our_walk(x, steps, prediction, method):
    return [moved.x for moved in us.walk(denoiser(prediction), x, steps, method)]


def worst(ours, theirs):
    """Largest difference over a whole walk, relative to its largest value."""
    ours, theirs = torch.stack(ours), torch.stack(theirs)
    assert torch.isfinite(theirs).all()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))


# The table


@pytest.mark.parametrize("kind", [DDIMScheduler, DDIMInverseScheduler])
@pytest.mark.parametrize("betas", BETAS)
def test_table_equals_diffusers_within_float32_rounding(betas, kind):
    """Reference: alphas_cumprod. Measured worst: 8e-7 absolute, 1.8e-6 relative where alpha_bar > 1e-5."""
    theirs = kind(**BETAS[betas])
    ours = np.array(schedule_of(theirs.config).alpha_bar)
    table = theirs.alphas_cumprod.double().numpy()
    assert np.abs(ours - table).max() < 1e-6
    visible = table > 1e-5  # below, float32 rounding of 1 - beta near beta = 1 shows: 4e-5 at the very end
    assert np.abs(ours[visible] / table[visible] - 1).max() < 3e-6


@pytest.mark.parametrize("betas", [name for name in BETAS if "zero snr" in name])
def test_zero_terminal_snr_ends_at_our_floor_where_diffusers_has_zero(betas):
    """Known deviation: alpha_bar is at most 2^-24 at the last timestep, and still below the one before."""
    theirs = DDIMScheduler(**BETAS[betas])
    ours = schedule_of(theirs.config).alpha_bar
    assert float(theirs.alphas_cumprod[-1]) == 0
    assert 0 < ours[-1] <= MIN_ALPHA_BAR
    assert ours[-1] < ours[-2]


def test_zero_terminal_snr_floor_is_that_of_diffusers_euler():
    """Reference: EulerDiscreteScheduler, which sets alphas_cumprod[-1] = 2^-24."""
    from diffusers import EulerDiscreteScheduler

    config = BETAS["squaredcos_cap_v2, zero snr"]
    euler = EulerDiscreteScheduler(**config)
    assert float(euler.alphas_cumprod[-1]) == schedule_of(config).alpha_bar[-1] == MIN_ALPHA_BAR


@pytest.mark.parametrize("betas", [name for name in BETAS if "zero snr" in name])
def test_zero_terminal_snr_walk_stays_close_to_diffusers_exact_zero(betas):
    """Known deviation: with v-prediction, a whole walk differs by the order of the floor's alpha, 2^-12."""
    theirs, schedule = scheduler(DDIMScheduler, betas, prediction_type="v_prediction", timestep_spacing="trailing")
    theirs.alphas_cumprod[-1] = 0
    gap = worst(
        our_walk(state(), grid_of(theirs, schedule, 10).down(), "v_prediction", us.DDIM()), their_walk(theirs, state(), 10)
    )
    assert 1e-9 < gap < 2**-11


# Whole trajectories on a shared grid: leading with any N, trailing where N divides


SHARED = [
    ("leading", 0, 10),
    ("leading", 1, 10),
    ("leading", 0, 50),
    ("leading", 1, 30),
    ("trailing", 0, 10),
    ("trailing", 0, 50),
]


@pytest.mark.parametrize(("betas", "grid", "to_one", "prediction"), cover_pairs(BETAS, SHARED, (True, False), PREDICTIONS))
def test_down_equals_ddim_scheduler(betas, grid, to_one, prediction):
    """Reference: DDIMScheduler, eta = 0, no clipping."""
    spacing, offset, n = grid
    config = {"timestep_spacing": spacing, "steps_offset": offset, "set_alpha_to_one": to_one, "prediction_type": prediction}
    theirs, schedule = scheduler(DDIMScheduler, betas, **config)
    grid = grid_of(theirs, schedule, n)
    ours = our_walk(state(), grid.down(), prediction, us.DDIM())
    reference = their_walk(theirs, state(), n)
    assert [level.t for level in grid.levels[:0:-1]] == theirs.timesteps.tolist()
    assert worst(ours, reference) < TIGHT


@pytest.mark.parametrize(("betas", "grid", "up"), cover_pairs(BETAS, SHARED, UP))
def test_up_equals_ddim_inverse_scheduler(betas, grid, up):
    """Reference: DDIMInverseScheduler, whose v and x0 predictions convert with the source's scales (eval_at="target_time")."""
    (spacing, offset, n), (prediction, to_one) = grid, up
    config = {"timestep_spacing": spacing, "steps_offset": offset, "set_alpha_to_one": to_one, "prediction_type": prediction}
    theirs, schedule = scheduler(DDIMInverseScheduler, betas, **config)
    grid = grid_of(theirs, schedule, n)
    reference = their_walk(theirs, state(), n)
    assert [level.t for level in grid.levels[1:]] == theirs.timesteps.tolist()
    assert worst(our_walk(state(), grid.up(), prediction, us.DDIM(eval_at="target_time")), reference) < TIGHT
    if prediction == "epsilon":
        assert worst(our_walk(state(), grid.up(), prediction, us.DDIM()), reference) < TIGHT


@pytest.mark.parametrize("kind", [DDIMScheduler, DDIMInverseScheduler])
@pytest.mark.parametrize("betas", BETAS)
def test_unmodified_scheduler_differs_by_its_float32_table_only(betas, kind):
    """Reference: the scheduler as it is. Measured over 50 steps: 2e-7 to 7e-7, and 5e-6 up the zero-SNR cosine."""
    theirs = kind(**BETAS[betas], clip_sample=False)
    grid = grid_of(theirs, schedule_of(theirs.config), 50)
    steps = grid.down() if kind is DDIMScheduler else grid.up()
    assert 0 < worst(our_walk(state(), steps, "epsilon", us.DDIM()), their_walk(theirs, state(), 50)) < 1e-5


@pytest.mark.parametrize("kind", [DDIMScheduler, DDIMInverseScheduler])
@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_clip_equals_clip_sample(kind, limit):
    """Reference: clip_sample with clip_sample_range, both ways."""
    theirs = kind(clip_sample=True, clip_sample_range=limit)
    schedule = schedule_of(theirs.config)
    theirs.alphas_cumprod = torch.tensor(schedule.alpha_bar, dtype=torch.float64)
    theirs.final_alpha_cumprod = theirs.initial_alpha_cumprod = torch.ones((), dtype=torch.float64)
    grid = us.Grid.of(schedule, 10)
    steps = grid.down() if kind is DDIMScheduler else grid.up()
    clipped = our_walk(state(), steps, "epsilon", us.DDIM(clip=limit))
    assert worst(clipped, their_walk(theirs, state(), 10)) < TIGHT
    steps = grid.down() if kind is DDIMScheduler else grid.up()
    assert worst(our_walk(state(), steps, "epsilon", us.DDIM()), clipped) > 1e-3


# Known deviations: where diffusers steps to levels that are not on its own grid


def their_moves(theirs, schedule, n, *, up):
    """The moves diffusers makes, which subtract T // N from a timestep whatever the spacing."""
    theirs.set_timesteps(n)
    stride = len(schedule) // n
    clean = 1.0 if theirs.config.set_alpha_to_one else schedule.alpha_bar[0]

    def level(t, index):
        if t >= 0:
            return schedule.level(t, index)
        return Level(index, 0, clean**0.5, (1 - clean) ** 0.5)

    moves = []
    for t in theirs.timesteps.tolist():
        noisy, quiet = level(t, 1), level(t - stride, 0)
        moves.append(us.Step(quiet, noisy) if up else us.Step(noisy, quiet))
    return moves


SOME = ["linear", "scaled_linear", "squaredcos_cap_v2, zero snr"]
OFF_GRID = [("linspace", 10), ("linspace", 50), ("linspace", 30), ("trailing", 30), ("trailing", 7), ("leading", 7)]


@pytest.mark.parametrize(("betas", "grid", "to_one", "prediction"), cover_pairs(SOME, OFF_GRID, (True, False), PREDICTIONS))
def test_down_equals_ddim_scheduler_on_its_own_levels(betas, grid, to_one, prediction):
    """Reference: DDIMScheduler; our arithmetic along the moves diffusers makes, on its grid or not."""
    spacing, n = grid
    config = {"timestep_spacing": spacing, "set_alpha_to_one": to_one, "prediction_type": prediction}
    theirs, schedule = scheduler(DDIMScheduler, betas, **config)
    moves = their_moves(theirs, schedule, n, up=False)
    assert worst(our_walk(state(), moves, prediction, us.DDIM()), their_walk(theirs, state(), n)) < TIGHT


@pytest.mark.parametrize(("betas", "n", "up"), cover_pairs(SOME, (30, 7), UP))
def test_up_equals_ddim_inverse_scheduler_on_its_own_levels(betas, n, up):
    """Reference: DDIMInverseScheduler, as above."""
    prediction, to_one = up
    config = {"timestep_spacing": "trailing", "set_alpha_to_one": to_one, "prediction_type": prediction}
    theirs, schedule = scheduler(DDIMInverseScheduler, betas, **config)
    moves = their_moves(theirs, schedule, n, up=True)
    ours = our_walk(state(), moves, prediction, us.DDIM(eval_at="target_time"))
    assert worst(ours, their_walk(theirs, state(), n)) < TIGHT


DEVIATIONS = {  # (spacing, N, offset): (moves of diffusers that end off its own grid, the timestep its last move ends at)
    ("linspace", 10, 0): (9, "clean"),
    ("linspace", 50, 0): (19, "clean"),
    ("trailing", 30, 0): (10, "clean"),
    ("trailing", 7, 0): (5, 0),
    ("leading", 30, 0): (0, "clean"),
    ("leading", 600, 1): (0, 0),
}


@pytest.mark.parametrize(("spacing", "n", "offset"), DEVIATIONS)
def test_known_deviation_diffusers_leaves_its_own_grid(spacing, n, offset):
    """diffusers moves by T // N; we move to the next level of the grid, and always end at the clean one."""
    theirs, schedule = scheduler(DDIMScheduler, "linear", timestep_spacing=spacing, steps_offset=offset)
    moves = their_moves(theirs, schedule, n, up=False)
    grid = grid_of(theirs, schedule, n)
    assert [move.src.t for move in moves] == [level.t for level in grid.levels[:0:-1]]
    off = sum(a.dst.t != b.src.t for a, b in itertools.pairwise(moves))
    ends_at = "clean" if moves[-1].dst.sigma == 0 else moves[-1].dst.t
    assert (off, ends_at) == DEVIATIONS[spacing, n, offset]


def test_up_from_a_noise_free_level_has_no_eps_for_a_network_that_predicts_x0():
    """Known deviation: diffusers divides 0 by 0 and returns NaN; we refuse, and say what to do."""
    theirs, schedule = scheduler(DDIMInverseScheduler, "linear", prediction_type="sample")
    theirs.set_timesteps(10)
    assert not torch.isfinite(theirs.step(network(state(), 0), theirs.timesteps[0], state()).prev_sample).all()
    with pytest.raises(us.ArgumentError, match="a forward start, or a grid with clean='first'"):
        our_walk(state(), us.Grid.of(schedule, 10).up(), "sample", us.DDIM(eval_at="target_time"))


# The sums diffusers publishes for its inverse scheduler


def published_sample():
    """The deterministic sample of diffusers' scheduler tests: 0, 1, 2, ... over their number, batch last, then first."""
    count = 4 * 3 * 8 * 8
    return (torch.arange(count).reshape(3, 8, 8, 4) / count).permute(3, 0, 1, 2)


PUBLISHED = [
    ({}, 671.6816),
    ({"prediction_type": "v_prediction"}, 1394.2185),
    ({"set_alpha_to_one": True, "beta_start": 0.01}, 539.9622),
    ({"set_alpha_to_one": False, "beta_start": 0.01}, 542.6722),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("config", "total"), PUBLISHED)
def test_published_sums_of_the_inverse_scheduler(config, total, dtype):
    """Reference: the sums in diffusers' tests/schedulers/test_scheduler_ddim_inverse.py, 10 steps, clip_sample=True."""
    clean = "one" if config.get("set_alpha_to_one", True) else "first"
    schedule = us.Schedule.from_betas(us.Schedule.linear_betas(config.get("beta_start", 1e-4), 0.02))
    model = us.NetworkDenoiser(
        lambda x, t, _condition: x * (t / (t + 1)).reshape(-1, 1, 1, 1).to(x.dtype),
        config.get("prediction_type", "epsilon"),
    )
    grid = us.Grid.of(schedule, 10, clean=clean)
    *_, last = us.walk(model, published_sample().to(dtype), grid.up(), us.DDIM(eval_at="target_time", clip=1.0))
    assert float(last.x.abs().sum()) == pytest.approx(total, abs=3e-3)
