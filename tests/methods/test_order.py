"""Every explicit method converges with the order it states, up and down: measured against an exact flow."""

import numpy as np
import pytest
import torch

import unsample as us
from unsample.core.prediction import to_velocity, to_x0
from unsample.methods.explicit import EasyInv, Heun, Midpoint
from unsample.methods.flow import FireFlow, RFSolver
from unsample.methods.look_ahead import UniInv
from unsample.methods.multistep import AdamsBashforth, DPMSolverPP
from unsample.methods.reversible import BDIA, EDICT, OBELM

from .exact import FLOW, LONG, error_of, slope_of

FLOWS = [RFSolver(), FireFlow(), UniInv(), UniInv(first="zero")]
ONE_STEP = [Heun(), Midpoint(), EasyInv(length=2), EasyInv(start=1, length=3, eval_at="source")]
MULTISTEP = [AdamsBashforth(2), AdamsBashforth(3), *(DPMSolverPP(order) for order in (1, 2, 3)), DPMSolverPP(2, "heun")]
VARIABLES = [AdamsBashforth(order, variable) for variable in ("flow", "log-snr") for order in (2, 3)]
LATE = (DPMSolverPP(3), AdamsBashforth(2, "log-snr"), AdamsBashforth(3, "log-snr"))
"""Moves long in lambda or log S where the walk up begins: slopes of 1.7, 1.9, 1.9, 2.0 and 2.2, 2.4, 2.7, 2.8, 2.9."""


def adapted(moves):
    """EDICT with the p for its number of moves."""
    return EDICT(0.93 ** (50 / moves))


def answer(method, eps, x, level):
    """What a multistep method remembers of a level."""
    if isinstance(method, DPMSolverPP):
        return to_x0(eps, x, level)
    return to_velocity(eps, x, level) if method.variable == "flow" else eps


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize(
    ("method", "schedule", "bounds"),
    [
        *((method, LONG, {1: 3e-2, 2: 2e-4}) for method in (*ONE_STEP, *FLOWS)),
        *((method, FLOW, {1: 3e-2, 2: 2e-4}) for method in FLOWS),
        *((method, LONG, {1: 1e-2, 2: 1e-4}) for method in (adapted, BDIA(), OBELM())),
        *((method, LONG, {1: 2e-2, 2: 3e-4, 3: 1e-5}) for method in (*MULTISTEP, *VARIABLES)),
        *((method, FLOW, {2: 3e-4, 3: 1e-5}) for method in VARIABLES),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_order_of_convergence_is_the_one_the_method_states(method, schedule, bounds, up):
    """Reference: the exact flow of a mixture, which keeps quantiles; the memory of multistep methods is exact, too."""
    counts = [1280, 2560] if up and method in LATE else [160, 320, 640]
    remembers = isinstance(method, (AdamsBashforth, DPMSolverPP))
    slope, errors = slope_of(counts, method, schedule, up=up, answer=answer if remembers else None)
    order = (method(50) if callable(method) else method).order
    assert slope == pytest.approx(order, abs=0.2), errors
    assert errors[-1] < bounds[order]


@pytest.mark.parametrize(
    ("method", "up", "order"),
    [
        (AdamsBashforth(2), True, 2),
        (AdamsBashforth(2), False, 2),
        (AdamsBashforth(3), True, 2),
        (AdamsBashforth(3), False, 3),
        (DPMSolverPP(2), True, 2),
        (DPMSolverPP(2), False, 2),
        (DPMSolverPP(3), True, 2),
        (DPMSolverPP(3), False, 3),
    ],
    ids=str,
)
def test_a_start_up_move_of_ddim_limits_order_3_on_the_way_up(method, up, order):
    """As the docstring says: one move of first order is remembered up and forgotten down."""
    slope, errors = slope_of([160, 320, 640], method, up=up)
    assert slope == pytest.approx(order, abs=0.2), errors


def test_order_of_bdia_below_gamma_1_is_one_down():
    errors = [error_of(n, BDIA(0.9), up=False) for n in (320, 640)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(BDIA(0.9).order, abs=0.15)


def test_easyinv_with_a_window_that_grows_with_the_grid_does_not_converge():
    """As its docstring warns: a fifth of the moves averaged."""
    errors = [error_of(n, EasyInv(start=n // 20, length=n // 5), up=True) for n in (80, 640)]
    assert errors[1] > 0.8 * errors[0] > 0.05


@pytest.mark.parametrize("method", [*ONE_STEP[:3], *MULTISTEP], ids=str)
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

    assert np.log2(error(100) / error(200)) > min(method.order, 2) - 0.2
    assert error(200) < {1: 1e-2, 2: 1e-3 if method in MULTISTEP else 1e-4, 3: 1e-3}[method.order]
