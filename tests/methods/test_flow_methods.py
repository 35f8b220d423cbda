"""RF-Solver, FireFlow, Uni-Inv, the control of RF-Inversion, Adams-Bashforth in other variables: loops and gains."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import unsample as us
from unsample.methods.flow import Controlled, FireFlow, RFSolver
from unsample.methods.look_ahead import UniInv
from unsample.methods.multistep import AdamsBashforth, _exponential_moments
from unsample.methods.registry import METHODS as METHODS_BY_NAME
from unsample.models.analytic import gaussian

from .exact import FLOW, USUAL, draw, states

METHODS = [RFSolver(), FireFlow(), UniInv(), UniInv(first="zero")]
MULTISTEP = [AdamsBashforth(order, variable) for variable in ("flow", "log-snr") for order in (2, 3)]


# The papers' loops, written in velocities


def velocity(x, t):
    """Any smooth, bounded, nonlinear function of state and time in 0..1."""
    return torch.tanh(x * (0.5 + t / 2)) + 0.3 * torch.sin(3 * x + 10 * t) - 0.4


def rf_solver(x, times):
    """Wang et al. 2025: x + dt v + dt^2/2 v', v' the difference quotient over half a move."""
    for t, to in pairwise(times):
        dt = to - t
        v = velocity(x, t)
        ahead = velocity(x + dt / 2 * v, t + dt / 2)
        x = x + dt * v + dt**2 / 2 * (ahead - v) / (dt / 2)
        yield x


def fireflow(x, times):
    """Deng et al. 2025: the midpoint method with the last midpoint's velocity in place of the first."""
    v = velocity(x, times[0])
    for t, to in pairwise(times):
        v = velocity(x + (to - t) / 2 * v, (t + to) / 2)
        x = x + (to - t) * v
        yield x


def uni_inv(x, times, v):
    """Jiao et al. 2026: correct, then step."""
    for t, to in pairwise(times):
        v = velocity(x + (to - t) * v, to)
        x = x + (to - t) * v
        yield x


LOOPS = {
    "rf-solver": (RFSolver(), rf_solver),
    "fireflow": (FireFlow(), fireflow),
    "uni-inv": (UniInv(), lambda x, times: uni_inv(x, times, velocity(x, times[0]))),
    "uni-inv from zero": (UniInv(first="zero"), lambda x, times: uni_inv(x, times, torch.zeros_like(x))),
}

WALKS = [*((name, True) for name in LOOPS), ("rf-solver", False), ("fireflow", False)]
"""Uni-Inv is for the way up."""


def flow_model(schedule=FLOW):
    def network(x, t, condition):
        return velocity(x, t.reshape(-1, 1, 1, 1) / 1000)

    return us.Model(network, schedule, (1, 4, 4), prediction="flow")


@pytest.mark.parametrize(("name", "up"), WALKS)
def test_on_a_flow_model_methods_are_the_loops_of_their_papers(name, up):
    method, loop = LOOPS[name]
    times = [0.0, *np.geomspace(0.03, 0.9, 12)]
    grid = us.Grid.from_sigmas(FLOW, times[1:])
    steps = grid.up() if up else grid.down()
    expected = torch.stack(list(loop(draw(3, 1, 4, 4), times if up else times[::-1])))
    torch.testing.assert_close(
        states(method, steps, flow_model().denoiser(), draw(3, 1, 4, 4)), expected, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("name", "up"), WALKS)
def test_the_loops_from_and_to_pure_noise(name, up):
    """At the noisy end alpha is not quite zero: 1.5e-8 of the velocity."""
    method, loop = LOOPS[name]
    schedule = us.FlowSchedule(shift=3.0)
    grid = us.Grid.of(schedule, 10)
    times = [level.t / 1000 for level in grid.levels]
    steps = grid.up() if up else grid.down()
    expected = torch.stack(list(loop(draw(3, 1, 4, 4), times if up else times[::-1])))
    torch.testing.assert_close(states(method, steps, flow_model().denoiser(), draw(3, 1, 4, 4)), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_euler_in_flow_is_ddim_asked_at_the_source(up):
    times = [0.0, *np.geomspace(0.03, 0.9, 12)]
    grid, x = us.Grid.from_sigmas(FLOW, times[1:]), draw(3, 1, 4, 4)
    found = states(us.DDIM(eval_at="source"), grid.up() if up else grid.down(), flow_model().denoiser(), x)
    for got, (t, to) in zip(
        found, zip(*((times, times[1:]) if up else (times[::-1], times[-2::-1])), strict=False), strict=True
    ):
        x = x + (to - t) * velocity(x, t)
        torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_control_towards_noise_is_the_controlled_ode_of_rf_inversion(gamma):
    """Reference: Rout et al. 2025: v + gamma (v_1 - v), v_1 = (noise - x) / (1 - t), by Euler's method."""
    times = [0.0, *np.geomspace(0.03, 0.9, 12)]
    x, noise = draw(3, 1, 4, 4), us.ItemNoise(0, range(3)).draw((3, 1, 4, 4), dtype=torch.float64)
    controlled = us.Counted(Controlled(flow_model().denoiser(), noise, gamma))
    found = states(us.DDIM(eval_at="source"), us.Grid.from_sigmas(FLOW, times[1:]).up(), controlled, x)
    for got, t, to in zip(found, times, times[1:], strict=False):
        v = velocity(x, t)
        x = x + (to - t) * (v + gamma * ((noise - x) / (1 - t) - v))
        torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)
    assert controlled.nfe == 12
    if gamma == 1:
        torch.testing.assert_close(x, 0.1 * draw(3, 1, 4, 4) + 0.9 * noise)


# Convergence


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize(
    ("method", "order"),  # over the whole path of a Gaussian, RF-Solver converges faster than it states
    [(us.DDIM(eval_at="source"), 1), (UniInv(), 1), (RFSolver(), 3), (FireFlow(), 2), (AdamsBashforth(2, "flow"), 2)],
    ids=str,
)
def test_inversion_between_image_and_pure_noise_converges_to_the_gain_of_a_gaussian(method, order, up):
    """Reference: modes of variance v end with variance 1: a gain of 1 / sqrt(v), over the whole grid, both ends included."""
    variances = torch.tensor([0.05, 0.3, 1.0, 2.0], dtype=torch.float64)
    model = gaussian(FLOW, variances, shape=(1, 2, 2))
    x = torch.ones((1, 1, 2, 2), dtype=torch.float64)

    def error(steps):
        grid = us.Grid.from_sigmas(FLOW, np.linspace(0, 1, steps + 1)[1:].tolist())
        *_, last = us.walk(model.denoiser(), x, grid.up() if up else grid.down(), method)
        gain = variances.rsqrt() if up else variances.sqrt()
        return float((last.x.flatten() / gain - 1).abs().max())

    assert np.log2(error(50) / error(100)) == pytest.approx(order, abs=0.2)
    assert error(400) < {1: 1e-2, 2: 5e-5, 3: 1e-7}[order]


def test_in_the_ratio_adams_bashforth_cannot_be_extrapolated_into_pure_noise():
    """As its docstring warns: the last level is 2^26 away in S; in tau it is a move like any other."""
    model = gaussian(FLOW, [0.3], shape=(1, 1, 1))
    x, grid = torch.ones((1, 1, 1, 1), dtype=torch.float64), model.grid(28)

    def latent(variable):
        return [float(move.x) for move in us.walk(model.denoiser(), x, grid.up(), AdamsBashforth(2, variable))][-1]

    assert latent("flow") == pytest.approx(0.3**-0.5, rel=0.01)
    assert abs(latent("ratio")) > 100


# Adams-Bashforth in other variables


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("order", [2, 3])
def test_in_flow_it_integrates_polynomials_in_tau_exactly(order, up):
    """Reference: the antiderivative of w = tau^(order - 1) in every move but those of the start-up."""
    grid = us.Grid.of(USUAL, 10)
    steps = list(grid.up(1) if up else grid.down(stop=1))

    def denoiser(x, level):
        return us.to_eps(torch.full_like(x, level.tau ** (order - 1)), x, level, "flow")

    moves = list(us.walk(denoiser, torch.zeros((1, 1)).double(), steps, AdamsBashforth(order, "flow")))
    for step, before, move in zip(steps[order - 1 :], moves[order - 2 :], moves[order - 1 :], strict=False):
        norms = step.src.alpha + step.src.sigma, step.dst.alpha + step.dst.sigma
        change = float(move.x) / norms[1] - float(before.x) / norms[0]
        assert change == pytest.approx((step.dst.tau**order - step.src.tau**order) / order, rel=1e-9)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("order", [2, 3])
def test_in_log_snr_it_integrates_polynomials_in_log_s_exactly(order, up):
    """Reference: quadrature of eps = log(S)^(order - 1) over S."""
    grid = us.Grid.of(USUAL, 10)
    steps = list(grid.up(1) if up else grid.down(stop=1))

    def denoiser(x, level):
        return torch.full_like(x, math.log(level.ratio) ** (order - 1))

    moves = list(us.walk(denoiser, torch.zeros((1, 1)).double(), steps, AdamsBashforth(order, "log-snr")))
    for step, before, move in zip(steps[order - 1 :], moves[order - 2 :], moves[order - 1 :], strict=False):
        change = float(move.x) / step.dst.alpha - float(before.x) / step.src.alpha
        expected = quad(lambda s: math.log(s) ** (order - 1), step.src.ratio, step.dst.ratio, epsabs=1e-13, epsrel=1e-12)[0]
        assert change == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("h", [-20.0, -3.0, -0.1, -1e-3, 1e-3, 0.5, 4.0, 18.0])
def test_moments_under_an_exponential_weight(h):
    """Reference: quadrature."""
    whole = quad(math.exp, 0, h)[0]
    expected = [quad(lambda u, p=p: u**p * math.exp(u), 0, h, epsabs=1e-14)[0] / whole for p in (1, 2)]
    assert _exponential_moments(h) == pytest.approx(expected, rel=1e-7)
    assert _exponential_moments(0.0) == (0, 0)


@pytest.mark.parametrize("method", MULTISTEP, ids=str)
def test_first_moves_are_those_of_ddim_and_levels_without_noise_too(method, toy):
    model, x = toy(), draw(3, 1, 4, 4)
    grid = us.Grid.of(USUAL, 10)
    for steps in (list(grid.up()), list(grid.up(3)), list(grid.down())):
        ddim = states(us.DDIM(eval_at="source"), steps[:1], model.denoiser(), x)
        assert torch.equal(states(method, steps[:1], model.denoiser(), x), ddim)
    if method.variable == "log-snr":
        up = list(us.walk(model.denoiser(), x, grid.up(), method))
        assert torch.equal(up[1].eps, model.denoiser()(up[0].x, grid[1]))  # nothing is remembered from level 0
        down = list(us.walk(model.denoiser(), x, grid.down(), method))
        assert torch.equal(down[-1].eps, model.denoiser()(down[-2].x, grid[1]))


# Evaluations


def test_evaluations_as_published():
    counts = {method: method.evaluations(28) for method in (*METHODS, *MULTISTEP)}
    assert counts == {
        RFSolver(): 56,
        FireFlow(): 29,
        UniInv(): 29,
        UniInv(first="zero"): 28,
        **dict.fromkeys(MULTISTEP, 28),
    }


def test_rf_solver_asks_in_the_middle_between_whole_timesteps_of_a_table(toy):
    asked = []

    def denoiser(x, level):
        asked.append(level)
        return x

    for _ in us.walk(denoiser, torch.ones((1, 1)), us.Grid.of(USUAL, 10).up(), RFSolver()):
        pass
    assert [level.t for level in asked[:6]] == [0, 0, 0, 50, 100, 150]
    assert [type(level.t) for level in asked] == [int] * 20
    first, middle, second = us.Grid.of(USUAL, 10)[0], asked[1], us.Grid.of(USUAL, 10)[1]
    assert (middle.alpha, middle.sigma) == ((first.alpha + second.alpha) / 2, (first.sigma + second.sigma) / 2)


def test_uni_inv_is_ddim_down_and_refuses_other_first_directions(toy, untyped):
    grid, denoiser = us.Grid.of(USUAL, 10), toy().denoiser()
    assert torch.equal(
        states(UniInv(), grid.down(), denoiser, draw(3, 1, 4, 4)), states(us.DDIM(), grid.down(), denoiser, draw(3, 1, 4, 4))
    )
    with pytest.raises(us.UnknownNameError, match="did you mean 'source'"):
        UniInv(first="sorce")
    with pytest.raises(us.UnknownNameError, match="did you mean 'flow'"):
        AdamsBashforth(variable="flo")
    assert us.parse_method("ab:variable=log-snr:order=3") == AdamsBashforth(3, "log-snr")


# Implicit methods


IMPLICIT = ("fixed-point:iterations=80", "damped:rho=1.0:iterations=80", "anderson:iterations=40", "averaged:iterations=120")


@pytest.mark.parametrize("name", [*IMPLICIT, "contraction-aware:tolerance=1e-6:maximum=80"])
def test_implicit_methods_undo_ddim_on_a_flow_model_to_the_noisy_end(name):
    """Reference: the noise that DDIM sampled, for an exact Gaussian. With eps held any state would do there."""
    model = gaussian(us.FlowSchedule(shift=3.0), np.geomspace(0.01, 1, 16).tolist(), shape=(1, 4, 4))
    noise = us.draw_noise(model, 4, dtype=torch.float64)
    images = us.sample(model, noise, steps=10).images
    there = us.invert(model, images, steps=10, method=us.parse_method(name), start=us.FromImage())
    torch.testing.assert_close(there.latent, noise, rtol=0, atol=1e-4)


def test_ddim_at_the_target_time_moves_to_the_noisy_end():
    """Reference: x + dt v(x, t + dt), written in velocities."""
    times = [0.0, *np.geomspace(0.03, 1.0, 12)]
    grid, x = us.Grid.from_sigmas(FLOW, times[1:]), draw(3, 1, 4, 4)
    for got, (t, to) in zip(states(us.DDIM(), grid.up(), flow_model().denoiser(), x), pairwise(times), strict=True):
        x = x + (to - t) * velocity(x, to)
        torch.testing.assert_close(got, x, rtol=0, atol=1e-6)


AS_FAR = {"edit-friendly": 1.5, "cyclediffusion": 1.5, "ledits++": 1.5, "rf-inversion": 1.5, "easyinv": 0.2}
"""Mean distance to the noise (1.13 between two draws) of methods whose latents are draws, pulled to one, or held back."""


@pytest.mark.parametrize("name", METHODS_BY_NAME)
def test_every_method_reaches_the_noise_of_a_flow_model(name):
    """Reference: the noise that 200 steps sampled, for an exact Gaussian; up to t = 1, where S is 2^26."""
    model = gaussian(us.FlowSchedule(shift=3.0), np.geomspace(0.05, 1, 16).tolist(), shape=(1, 4, 4))
    noise = us.draw_noise(model, 8, dtype=torch.float64)
    images = us.sample(model, noise, steps=200).images
    found = us.invert(model, images, steps=28, method=METHODS_BY_NAME[name](), start=us.FromImage()).latent
    assert float((found - noise).abs().mean()) < AS_FAR.get(name, 0.12)
