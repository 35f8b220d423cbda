"""EDICT, BDIA and O-BELM: undone exactly from anywhere, and the equations of their papers."""

import itertools

import pytest
import torch

import unsample as us
from unsample.methods.reversible import BDIA, EDICT, OBELM
from unsample.models.analytic import gaussian

from .exact import USUAL

METHODS = [EDICT(), BDIA(), OBELM()]
EVERY = [*METHODS, EDICT(p=1.0), EDICT(p=0.99), BDIA(gamma=0.9)]


def draw(count=5, dtype=torch.float64, seed=0):
    return torch.randn((count, 1, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def end(denoiser, x, steps, method, state=None):
    """State and memory where a walk ends; where it begins if it has no moves."""
    for moved in us.walk(denoiser, x, steps, method, state):
        x, state = moved.x, moved.state
    return x, state


# There and back


@pytest.mark.parametrize(("condition", "guidance"), [(None, 1.0), (1, 1.0), (2, 3.0)], ids=["none", "class", "guided"])
@pytest.mark.parametrize("start", [us.FromImage(), us.ForwardNoise(steps=1), us.ForwardNoise(steps=2)], ids=str)
@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_up_and_down_returns_to_the_image(method, steps, start, condition, guidance, toy):
    """Reference: the image. Measured worst: 2e-13 relative, EDICT with guidance 3."""
    model = toy()
    grid, denoiser, images = model.grid(steps), model.denoiser([condition] * 5, guidance), draw() / 2
    k = start.level(grid).index
    x = start.place(images, grid, us.ItemNoise(0, range(5)))
    top, memory = end(denoiser, x, grid.up(k), method)
    assert float((top - x).abs().max()) > 0.5
    back, _ = end(denoiser, top, grid.down(stop=k), method, memory)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("clean", ["one", "first"])
@pytest.mark.parametrize("method", EVERY, ids=str)
def test_a_walk_turns_anywhere(method, clean, toy):
    """From any level to any other and back, up first or down first, also over two equal levels (clean='first')."""
    grid, denoiser = us.Grid.of(USUAL, 8, clean=clean), toy().denoiser()
    for low in range(8):
        for high in range(low, 9):
            x = draw(2)
            there, memory = end(denoiser, x, grid.up(low, high), method)
            back, _ = end(denoiser, there, grid.down(high, low), method, memory)
            torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
            there, memory = end(denoiser, x, grid.down(high, low), method)
            back, _ = end(denoiser, there, grid.up(low, high), method, memory)
            torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", EVERY, ids=str)
def test_a_walk_turns_again_and_again_and_goes_on(method, toy):
    """0 to 6, down to 3, up to 8, down to 0: as if it had gone straight to 8 and back."""
    grid, denoiser, x = toy().grid(8), toy().denoiser(), draw(2)
    straight, _ = end(denoiser, x, grid.up(), method)
    at, memory = end(denoiser, x, grid.up(0, 6), method)
    at, memory = end(denoiser, at, grid.down(6, 3), method, memory)
    at, memory = end(denoiser, at, grid.up(3, 8), method, memory)
    torch.testing.assert_close(at, straight, rtol=1e-10, atol=1e-10)
    at, memory = end(denoiser, at, grid.down(), method, memory)
    torch.testing.assert_close(at, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_memory_is_needed(method, toy):
    """Without it, sampling from the latent is a reconstruction like any other."""
    grid, denoiser, x = toy().grid(10), toy().denoiser(), draw() / 2
    top, _ = end(denoiser, x, grid.up(), method)
    back, _ = end(denoiser, top, grid.down(), method)
    assert float((back - x).abs().max()) > 1e-3


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_kept_of_the_memory_are_tensors_with_a_row_per_item(method, toy):
    """So that batches can be joined, split and stored: a turn with the parts equals a turn with the whole."""
    grid, denoiser, x = toy().grid(10), toy().denoiser(), draw()
    assert method.reversible
    top, memory = end(denoiser, x, grid.up(), method)
    memory, parts = (
        method.kept(memory),
        [method.kept(end(denoiser, x[rows], grid.up(), method)[1]) for rows in (slice(0, 2), slice(2, 5))],
    )
    assert isinstance(memory, tuple)
    assert all(isinstance(part, torch.Tensor) and len(part) == 5 for part in memory)
    joined = tuple(torch.cat(pair) for pair in zip(*parts, strict=True))
    back, _ = end(denoiser, top, grid.down(), method, joined)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
    some, _ = end(denoiser, top[3:], grid.down(), method, tuple(part[3:] for part in memory))
    torch.testing.assert_close(some, x[3:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "double", "single"), [(EDICT(), 1e-12, 1e-3), (BDIA(), 1e-13, 1e-4), (OBELM(), 1e-12, 1e-3)], ids=str
)
def test_rounding_stays_small_in_50_moves(method, double, single, toy):
    """Measured worst, guidance 3, latents of std 5.5: EDICT 2e-13 and 1e-4, BDIA 4e-14 and 7e-6, O-BELM 3e-14 and 1e-5."""
    grid = toy().grid(50)
    denoiser = toy().denoiser([1] * 5, 3.0)
    for dtype, bound in ((torch.float64, double), (torch.float32, single)):
        x = draw(dtype=dtype) / 2
        top, memory = end(denoiser, x, grid.up(), method)
        back, _ = end(denoiser, top, grid.down(), method, memory)
        assert back.dtype == dtype
        assert float((back - x).abs().max()) < bound


def test_edict_up_drifts_apart_when_p_is_not_adapted_to_the_number_of_moves(toy):
    """As its docstring says: at 200 moves p = 0.93 leads astray, 0.93 ** (50 / 200) does not."""
    grid, denoiser, x = toy().grid(200), toy().denoiser(), draw() / 2
    latents = [end(denoiser, x, grid.up(), EDICT(p))[0] for p in (0.93, 0.93**0.25)]
    assert float(latents[0].std()) > 100
    assert float(latents[1].std()) < 2


def test_bdia_with_gamma_below_1_is_unstable_up(toy):
    """As its docstring says."""
    grid, denoiser, x = toy().grid(200), toy().denoiser(), draw() / 2
    latents = [end(denoiser, x, grid.up(), BDIA(gamma))[0] for gamma in (0.9, 1.0)]
    assert float(latents[0].std()) > 1e4
    assert float(latents[1].std()) < 2


# What they compute


@pytest.mark.parametrize("start", [0, 1, 5, 10])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_evaluations_are_those_counted_on_the_way_up(method, start, toy):
    model = toy()
    counted = us.Counted(model.denoiser())
    top, memory = end(counted, draw(2), model.grid(10).up(start), method)
    assert counted.nfe == method.evaluations(10 - start)
    end(counted, top, model.grid(10).down(stop=start), method, memory)
    looked_up = 0 if isinstance(method, EDICT) or start == 10 else 1
    assert counted.nfe == 2 * method.evaluations(10 - start) - looked_up


@pytest.mark.parametrize("method", [BDIA(), OBELM()], ids=str)
def test_the_first_move_is_that_of_ddim_asked_at_the_source(method, toy):
    grid, denoiser, source = toy().grid(10), toy().denoiser(), us.DDIM(eval_at="source")
    for steps in (grid.up(), grid.up(3), grid.down(), grid.down(7)):
        first = [next(iter(steps))]
        assert torch.equal(end(denoiser, draw(), first, method)[0], end(denoiser, draw(), first, source)[0])


def network(x, level):
    return torch.tanh(x * (0.5 + level.t / 2000)) + 0.3 * torch.sin(3 * x + level.t / 100)


def test_bdia_is_the_equation_of_its_paper():
    """Reference: by hand, x_{i-1} = g x_{i+1} + D(i to i-1) - g D(i to i+1) with DDIM's moves."""
    grid = us.Grid.of(USUAL, 8)
    for gamma in (1.0, 0.7):
        states = [draw(2)] + [m.x for m in us.walk(network, draw(2), grid.down(), BDIA(gamma))]
        states = dict(zip(range(8, -1, -1), states, strict=True))
        for i in range(1, 8):
            eps = network(states[i], grid[i])
            to_lower, to_upper = (
                level.alpha / grid[i].alpha * (states[i] - grid[i].sigma * eps) + level.sigma * eps
                for level in (grid[i - 1], grid[i + 1])
            )
            expected = gamma * states[i + 1] + to_lower - gamma * to_upper
            torch.testing.assert_close(states[i - 1], expected, rtol=1e-11, atol=1e-11)


def test_obelm_is_the_equation_of_its_paper_both_ways():
    """Reference: by hand, with h_i = S_i - S_{i-1}; methods.md, row 11, up and solved for the way down."""
    grid = us.Grid.of(USUAL, 8)
    h = [None, *(grid[i].ratio - grid[i - 1].ratio for i in range(1, 9))]
    up = [draw(2), *(m.x for m in us.walk(network, draw(2), grid.up(), OBELM()))]
    down = [draw(2), *(m.x for m in us.walk(network, draw(2), grid.down(), OBELM()))][::-1]
    for states, i in ((s, i) for s in (up, down) for i in range(1, 8)):
        scaled, eps = [x / level.alpha for x, level in zip(states, grid.levels, strict=True)], network(states[i], grid[i])
        old, new = h[i], h[i + 1]
        expected = (new / old) ** 2 * scaled[i - 1] + (old**2 - new**2) / old**2 * scaled[i] + new * (old + new) / old * eps
        torch.testing.assert_close(scaled[i + 1], expected, rtol=1e-10, atol=1e-10)


def test_edict_is_the_equations_of_its_paper():
    """Reference: by hand, x_inter, y_inter, then mixing; the twins change roles at every level."""
    grid, p = us.Grid.of(USUAL, 6), 0.93
    x = y = draw(2)
    for step, moved in zip(grid.down(), us.walk(network, draw(2), grid.down(), EDICT(p)), strict=True):
        if step.src.index % 2 == 1:
            x, y = y, x
        a = step.dst.alpha / step.src.alpha
        b = step.dst.sigma - a * step.src.sigma
        x_inter = a * x + b * network(y, step.src)
        y_inter = a * y + b * network(x_inter, step.src)
        x = p * x_inter + (1 - p) * y_inter
        y = p * y_inter + (1 - p) * x
        if step.src.index % 2 == 1:
            x, y = y, x
        torch.testing.assert_close(moved.x, x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(moved.state[0], y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_they_sample_the_distribution_of_gaussian_data(method):
    """Reference: the spread of each mode; 100 moves down from noise."""
    variances = torch.tensor([0.01, 0.3, 1.0, 3.0], dtype=torch.float64)
    model = gaussian(USUAL, variances, shape=(1, 1, 4))
    ones = torch.ones((1, 1, 1, 4), dtype=torch.float64)
    images, _ = end(model.denoiser(), ones, model.grid(100).down(), method)
    torch.testing.assert_close(images.flatten(), variances.sqrt(), rtol=0.12, atol=0)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_each_move_of_a_neighbour_method_is_a_transfer_along_its_eps(method, toy):
    """Turns included, O-BELM's every move; BDIA's eps is the network's answer, but at a turn."""
    grid, denoiser = toy().grid(10), toy().denoiser()
    moves = list(us.walk(denoiser, draw(), grid.up(), method))
    turn = next(us.walk(denoiser, moves[-1].x, grid.down(), method, moves[-1].state))
    if isinstance(method, EDICT):
        return
    assert torch.equal(turn.x, moves[-2].x)
    torch.testing.assert_close(us.transfer(moves[-1].x, turn.eps, turn.step), turn.x, rtol=1e-10, atol=1e-10)
    if isinstance(method, OBELM):
        for before, move in itertools.pairwise(moves):
            torch.testing.assert_close(us.transfer(before.x, move.eps, move.step), move.x, rtol=1e-12, atol=1e-12)


def test_methods_print_compare_and_refuse(untyped):
    assert EDICT() == EDICT(p=0.93)
    assert repr(BDIA()) == "BDIA(gamma=1.0)"
    for bad in (0.0, 1.5, -1.0):
        with pytest.raises(us.ArgumentError, match=r"in \(0, 1\]"):
            EDICT(p=bad)
        with pytest.raises(us.ArgumentError, match=r"in \(0, 1\]"):
            BDIA(gamma=bad)
