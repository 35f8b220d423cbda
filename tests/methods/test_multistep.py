"""Adams-Bashforth and DPM-Solver++: formulas, start-up, memory, and the levels where a formula would divide by zero."""

import math

import numpy as np
import pytest
import torch

import unsample as us
from unsample.methods.multistep import AdamsBashforth, DPMSolverPP

from .exact import USUAL

METHODS = [
    AdamsBashforth(2),
    AdamsBashforth(3),
    DPMSolverPP(1),
    DPMSolverPP(2),
    DPMSolverPP(2, solver="heun"),
    DPMSolverPP(3),
]


def states(method, steps, model, dtype=torch.float64, count=3):
    x = torch.randn((count, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    return [move.x for move in us.walk(model.denoiser(), x, steps, method)]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_first_move_is_that_of_ddim_asked_at_the_source(method, toy):
    model = toy()
    source, grid = us.DDIM(eval_at="source"), model.grid(10)
    for steps in (grid.up(), grid.up(3), grid.down(), grid.down(7)):
        first = [next(iter(steps))]
        assert torch.equal(states(method, first, model)[0], states(source, first, model)[0])


def test_dpm_solver_of_order_1_is_ddim(toy):
    """Reference: Lu et al. 2022, section 4.1."""
    model, source = toy(), us.DDIM(eval_at="source")
    for kind in ("up", "down"):
        ours, ddim = (states(m, getattr(model.grid(10), kind)(), model) for m in (DPMSolverPP(1), source))
        torch.testing.assert_close(torch.stack(ours), torch.stack(ddim), rtol=1e-12, atol=1e-12)


def test_adams_bashforth_of_order_2_is_the_formula_of_the_theory():
    """Reference: theory.md by hand: xb_j = xb + h [e + h / (2 h_before) (e - e_before)]."""
    grid = us.Grid.of(USUAL, 12)

    def denoiser(x, level):
        return torch.sin(2 * x + level.ratio)

    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    ours = [move.x for move in us.walk(denoiser, x, grid.up(1), AdamsBashforth())]
    scaled, before = x / grid[1].alpha, None
    for i, got in enumerate(ours, 1):
        a, b = grid[i], grid[i + 1]
        h, eps = b.ratio - a.ratio, denoiser(a.alpha * scaled, a)
        mean = eps if before is None else eps + h / (2 * before[0]) * (eps - before[1])
        scaled, before = scaled + h * mean, (h, eps)
        torch.testing.assert_close(got, b.alpha * scaled, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("order", [2, 3])
def test_adams_bashforth_integrates_polynomials_in_the_ratio_exactly(order, up):
    """Reference: the antiderivative; eps = S^(order - 1) in every move but those of the start-up."""
    grid = us.Grid.of(USUAL, 10)
    steps = list(grid.up(1) if up else grid.down(stop=1))
    moves = list(us.walk(lambda x, level: torch.full_like(x, level.ratio ** (order - 1)), torch.zeros((1, 1)).double(), steps,
                         AdamsBashforth(order)))  # fmt: skip
    for step, before, move in zip(steps[order - 1 :], moves[order - 2 :], moves[order - 1 :], strict=False):
        change = float(move.x) / step.dst.alpha - float(before.x) / step.src.alpha
        exact = (step.dst.ratio**order - step.src.ratio**order) / order
        assert change == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("method", [DPMSolverPP(2, solver="heun"), DPMSolverPP(3)], ids=str)
def test_dpm_solver_integrates_polynomials_in_lambda_exactly(method, up):
    """Reference: the flow of x0 = lambda^(order - 1) by quadrature of x_dst/s_dst = x/s + integral of exp(lambda) x0."""
    grid, degree = us.Grid.of(USUAL, 10), method.order - 1
    steps = list(grid.up(1) if up else grid.down(stop=1))

    def denoiser(x, level):
        return (x - level.alpha * (-math.log(level.ratio)) ** degree) / level.sigma

    moves = list(us.walk(denoiser, torch.zeros((1, 1)).double(), steps, method))
    nodes, weights = np.polynomial.legendre.leggauss(40)
    for step, before, move in zip(steps[degree:], moves[degree - 1 :], moves[degree:], strict=False):
        a, b = -math.log(step.src.ratio), -math.log(step.dst.ratio)
        between = (a + b) / 2 + (b - a) / 2 * nodes
        exact = (b - a) / 2 * float(weights @ (np.exp(between) * between**degree))
        change = float(move.x) / step.dst.sigma - float(before.x) / step.src.sigma
        assert change == pytest.approx(exact, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("clean", ["one", "first"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_equal_and_noise_free_levels_give_finite_numbers(method, clean, toy):
    """clean='first' makes levels 0 and 1 equal: that move stays where it is, and the next starts afresh."""
    model = toy()
    grid = us.Grid.of(USUAL, 10, clean=clean)
    up, down = (torch.stack(states(method, steps, model)) for steps in (grid.up(), grid.down()))
    assert torch.isfinite(up).all()
    assert torch.isfinite(down).all()
    if clean == "first":
        assert torch.equal(down[-1], down[-2])
        fresh = states(method, grid.up(1), model)
        torch.testing.assert_close(up[1:], torch.stack(fresh), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_memory_taken_over_a_turn_gives_finite_numbers(method, toy):
    """Levels met again replace their old answers; nothing divides by the zero between them."""
    model = toy()
    grid = model.grid(10)
    x = torch.ones((2, 1, 4, 4), dtype=torch.float64)
    *_, top = us.walk(model.denoiser(), x, grid.up(1), method)
    for move in us.walk(model.denoiser(), top.x, grid.down(), method, top.state):
        assert torch.isfinite(move.x).all()


def test_single_precision_stays_close_to_double(toy):
    model = toy()
    for method in METHODS:
        wide, narrow = (states(method, model.grid(50).up(1), model, dtype)[-1] for dtype in (torch.float64, torch.float32))
        assert narrow.dtype == torch.float32
        assert float((narrow - wide).abs().max() / wide.abs().max()) < 1e-4


def test_methods_print_compare_and_refuse(untyped):
    assert AdamsBashforth() == AdamsBashforth(order=2)
    assert repr(DPMSolverPP(3)) == "DPMSolverPP(order=3, solver='midpoint')"
    with pytest.raises(us.ArgumentError, match=r"order 2 or 3, given 1; for order 1 use DDIM\(eval_at='source'\)"):
        AdamsBashforth(1)
    with pytest.raises(us.ArgumentError, match="order 1, 2 or 3, given 4"):
        DPMSolverPP(4)
    with pytest.raises(us.UnknownNameError, match="did you mean 'heun'"):
        DPMSolverPP(solver="huen")
