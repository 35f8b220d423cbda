"""DPM-Solver++ against diffusers' DPMSolverMultistepScheduler (down) and DPMSolverMultistepInverseScheduler (up), in float64.

Their noise levels are float32: they are checked against ours on their own, then replaced by ours. The inverse scheduler asks
the network at the level where x is ("matched"), unlike DDIMInverseScheduler; it takes the image for a state at its first
timestep, so a walk of ours that it equals begins at grid[1]. The scheduler down casts states to float32; here it is given
float64 under that name.
"""

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepInverseScheduler, DPMSolverMultistepScheduler

import unsample as us
from unsample.methods.multistep import DPMSolverPP

from .exact import DENOISER, TIGHT, USUAL, network, worst

KINDS = [(1, "midpoint"), (2, "midpoint"), (2, "heun")]
pytestmark = pytest.mark.usefixtures("double")


def start():
    return torch.randn((2, 1, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def prepared(kind, steps, **config):
    """Their scheduler with its timesteps, our levels and our ratios in place of theirs; and our moves."""
    theirs = kind(algorithm_type="dpmsolver++", lower_order_final=False, **config)
    theirs.set_timesteps(steps)
    timesteps = theirs.timesteps.tolist()
    if kind is DPMSolverMultistepInverseScheduler:
        grid = us.Grid.from_timesteps(USUAL, [*timesteps, 999])
        moves, levels = list(grid.up(1)), grid.levels[1:]
    else:
        clean = "one" if theirs.config.final_sigmas_type == "zero" else "first"
        grid = us.Grid.from_timesteps(USUAL, timesteps[::-1], clean=clean)
        moves, levels = list(grid.down()), grid.levels[::-1]
    ratios = np.array([level.ratio for level in levels])
    np.testing.assert_allclose(theirs.sigmas.numpy(), ratios, rtol=1e-3)
    theirs.sigmas = torch.from_numpy(ratios)
    return theirs, moves


def their_walk(theirs, x):
    states = []
    for t in theirs.timesteps:
        x = theirs.step(network(x, t), t, x).prev_sample
        states.append(x)
    return torch.stack(states)


def our_walk(moves, method):
    return torch.stack([moved.x for moved in us.walk(DENOISER, start(), moves, method)])


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("steps", [7, 20])
@pytest.mark.parametrize(("order", "solver"), KINDS)
def test_up_equals_the_inverse_scheduler(order, solver, steps, spacing):
    """Reference: DPMSolverMultistepInverseScheduler, every state of the walk."""
    kind = DPMSolverMultistepInverseScheduler
    theirs, moves = prepared(kind, steps, timestep_spacing=spacing, solver_order=order, solver_type=solver)
    assert worst(our_walk(moves, DPMSolverPP(order, solver)), their_walk(theirs, start())) < TIGHT


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize(("order", "solver"), KINDS)
def test_down_equals_the_scheduler(order, solver, spacing, final):
    """Reference: DPMSolverMultistepScheduler, every state of the walk; both last moves."""
    kind = DPMSolverMultistepScheduler
    config = {"timestep_spacing": spacing, "final_sigmas_type": final, "solver_order": order, "solver_type": solver}
    theirs, moves = prepared(kind, 20, **config)
    assert worst(our_walk(moves, DPMSolverPP(order, solver)), their_walk(theirs, start())) < TIGHT


# Order 3: diffusers weighs the second derivative by half of what Taylor's formula gives it


def by_hand(moves, weight):
    """x_dst = (s_dst/s_src) x - a_dst phi_1 m + a_dst phi_2 h m' - weight a_dst phi_3 h^2 m'', from divided differences."""
    x, known, states = start(), [], []
    for move in moves:
        src, dst = move.src, move.dst
        x0 = (x - src.sigma * network(x, torch.tensor(src.t))) / src.alpha
        known = [(-np.log(src.ratio), x0), *known][:3]
        if dst.sigma == 0:
            known = known[:1]
        h = -np.log(dst.ratio) - known[0][0] if dst.sigma > 0 else np.inf
        phi1 = np.expm1(-h)
        total = dst.sigma / src.sigma * x - dst.alpha * phi1 * x0
        if len(known) == 2:
            slope = (known[0][1] - known[1][1]) / (known[0][0] - known[1][0])
            total = total - dst.alpha * phi1 / 2 * h * slope
        elif len(known) == 3:
            (l0, m0), (l1, m1), (l2, m2) = known
            slope, earlier = (m0 - m1) / (l0 - l1), (m1 - m2) / (l1 - l2)
            bend = 2 * (slope - earlier) / (l0 - l2)
            phi2 = phi1 / h + 1
            first = slope + (l0 - l1) / 2 * bend
            total = total + dst.alpha * phi2 * h * first - weight * dst.alpha * (phi2 / h - 0.5) * h * h * bend
        x = total
        states.append(x)
    return torch.stack(states)


@pytest.mark.parametrize("kind", [DPMSolverMultistepInverseScheduler, DPMSolverMultistepScheduler])
def test_order_3_differs_by_half_the_weight_of_the_second_derivative(kind):
    """Known deviation: ours is the exact integral of the quadratic (weight 1), diffusers' has weight 1/2."""
    theirs, moves = prepared(kind, 20, timestep_spacing="linspace", solver_order=3)
    assert worst(our_walk(moves, DPMSolverPP(3)), by_hand(moves, 1.0)) < TIGHT
    assert worst(by_hand(moves, 0.5), their_walk(theirs, start())) < TIGHT
    assert worst(our_walk(moves, DPMSolverPP(3)), by_hand(moves, 0.5)) > 1e-4


def test_order_3_of_diffusers_converges_with_order_2():
    """Reference: Gaussian data in closed form, walked down by their scheduler and by ours on a long table."""
    betas = us.Schedule.linear_betas(1e-6, 2e-4, 100_000)
    schedule = us.Schedule.from_betas(betas)
    variance, theirs_slope, ours_slope = 0.3, [], []

    def denoiser(x, level):
        return level.sigma * x / (level.alpha**2 * variance + level.sigma**2)

    counts = [320, 640, 1280]
    for steps in counts:
        grid = us.Grid.from_timesteps(schedule, np.linspace(2_000, 80_000, steps + 1).round().astype(int).tolist())
        moves = list(grid.down(stop=1))
        exact = (
            (grid[1].alpha ** 2 * variance + grid[1].sigma ** 2) / (grid[-1].alpha ** 2 * variance + grid[-1].sigma ** 2)
        ) ** 0.5
        x = torch.ones((1, 1), dtype=torch.float64)
        *_, last = us.walk(denoiser, x, moves, DPMSolverPP(3))
        ours_slope.append(abs(float(last.x) - exact))
        theirs = DPMSolverMultistepScheduler(solver_order=3, lower_order_final=False, final_sigmas_type="sigma_min")
        theirs.set_timesteps(timesteps=[move.src.t // 101 for move in moves])  # only looked up once, for the first index
        theirs.sigmas = torch.tensor([move.src.ratio for move in moves] + [moves[-1].dst.ratio], dtype=torch.float64)
        for i, move in enumerate(moves):
            theirs._step_index = i
            x = theirs.step(denoiser(x, move.src), 0, x).prev_sample
        theirs_slope.append(abs(float(x) - exact))
    slopes = [-np.polyfit(np.log(counts), np.log(errors), 1)[0] for errors in (ours_slope, theirs_slope)]
    assert slopes[0] == pytest.approx(3, abs=0.2), ours_slope
    assert slopes[1] == pytest.approx(2, abs=0.2), theirs_slope


# Where diffusers' two schedulers do not meet


def test_leading_inverse_ends_at_a_noisier_level_than_its_scheduler_starts_from():
    """Known defect of diffusers: 20 steps end at timestep 999 (S = 157), but sampling starts at 940 (S = 88)."""
    up, down = (
        DPMSolverMultistepInverseScheduler(timestep_spacing="leading"),
        DPMSolverMultistepScheduler(timestep_spacing="leading"),
    )
    up.set_timesteps(20)
    down.set_timesteps(20)
    assert float(up.sigmas[-1]) == pytest.approx(USUAL.level(999).ratio, rel=1e-3)
    assert float(down.sigmas[0]) == pytest.approx(USUAL.level(940).ratio, rel=1e-3)
    assert float(up.sigmas[-1] / down.sigmas[0]) > 1.7


@pytest.mark.parametrize(("order", "solver"), [(2, "heun"), (3, "midpoint")])
def test_trailing_inverse_ends_in_a_move_between_equal_levels_that_is_not_a_number(order, solver):
    """Known defect of diffusers: h = 0 in a division; order 2 midpoint wastes an evaluation. Ours stays put."""
    theirs = DPMSolverMultistepInverseScheduler(timestep_spacing="trailing", solver_order=order, solver_type=solver)
    theirs.set_timesteps(20)
    states = their_walk(theirs, start())
    assert float(theirs.sigmas[-1]) == float(theirs.sigmas[-2])
    assert torch.isfinite(states[:-1]).all()
    assert torch.isnan(states[-1]).any()
    top = USUAL.level(999, 20)
    grid = us.Grid((*us.Grid.from_timesteps(USUAL, theirs.timesteps.tolist()).levels, us.Level(21, 999, top.alpha, top.sigma)))
    ours = our_walk(list(grid.up(1)), DPMSolverPP(order, solver))
    torch.testing.assert_close(ours[-1], ours[-2], rtol=1e-12, atol=1e-12)
