"""What every registered method promises, whatever it does: tests over the whole registry, on an exact mixture model."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import unsample as us
from unsample.core.stored import Stored
from unsample.methods.registry import METHODS, parse_method
from unsample.models.analytic import gaussian

from .exact import FLOW, USUAL, draw, states

STEPS = 6
STARTS = {"0": us.FromImage(), "2": us.ForwardNoise(steps=2), "4%": us.ForwardNoise(fraction=0.04)}
"""The last lies between two levels."""


@pytest.fixture(scope="module")
def model(toy):
    return toy()


@pytest.fixture(scope="module")
def images():
    return torch.randn((4, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(-1, 1)


def inverted(model, images, name, start, **more):
    return us.invert(model, images, method=METHODS[name](), steps=STEPS, start=STARTS[start], **more)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method(model, images, name, start):
    method, grid = METHODS[name](), model.grid(STEPS)
    found = inverted(model, images, name, start)

    # shape and dtype, finite
    assert found.latent.shape == images.shape
    assert found.latent.dtype == images.dtype
    assert bool(found.finite.all())

    # determinism, bit by bit
    again = inverted(model, images, name, start)
    assert torch.equal(again.latent, found.latent)
    assert all(
        torch.equal(a, b) for a, b in zip(again.stored.tensors().values(), found.stored.tensors().values(), strict=True)
    )

    # an item does not depend on its batch or its place in it
    apart = inverted(model, images, name, start, batch_size=3)
    swapped = us.invert(
        model, images.flip(0), method=method, steps=STEPS, start=STARTS[start], items=list(range(len(images)))[::-1]
    )
    torch.testing.assert_close(apart.latent, found.latent, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(swapped.latent.flip(0), found.latent, rtol=1e-9, atol=1e-9)

    # network evaluations as documented
    assert found.nfe == method.evaluations_on(list(grid.up(STARTS[start].level(grid))))

    if isinstance(method, us.Stepper):
        assert found.nfe <= method.evaluations(STEPS - STARTS[start].level(grid).index)
        assert method.evaluations_on([]) == 0

    # float32 in, float32 out
    single = inverted(model, images.float(), name, start)
    assert single.latent.dtype == torch.float32
    torch.testing.assert_close(single.latent.double(), found.latent, rtol=1e-2, atol=1e-2)

    # the way back, with what was stored, item by item
    back = us.sample(model, found.latent, steps=STEPS, method=method.sampler, stored=found.stored)
    parts = us.sample(model, found.latent, steps=STEPS, method=method.sampler, stored=found.stored, batch_size=3)
    assert back.images.shape == images.shape
    assert torch.equal(us.sample(model, found).images, back.images)
    torch.testing.assert_close(parts.images, back.images, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_a_flow_model(name):
    """From a forward start in float32, up to pure noise and back: finite, of the same dtype, as many evaluations as stated."""
    model = gaussian(us.FlowSchedule(shift=3.0), torch.linspace(0.1, 1.0, 16), shape=(1, 4, 4))
    images = torch.randn((3, 1, 4, 4), generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    method, start = METHODS[name](), us.ForwardNoise(steps=2)
    found = us.invert(model, images, steps=6, method=method, start=start)
    assert found.latent.dtype == torch.float32
    assert bool(found.finite.all())
    moves = list(model.grid(6).up(2))
    assert found.nfe == method.evaluations_on(moves)
    back = us.sample(model, found.latent, steps=6, method=method.sampler, stored=found.stored).images
    assert back.dtype == torch.float32
    assert torch.isfinite(back).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_trajectory_of_every_method_survives_its_file(model, images, name, tmp_path):
    """And is sampled back from it as it was before, by what the file says alone."""
    found = inverted(model, images, name, "2")
    found.save(tmp_path / "kept.safetensors")
    read = us.Trajectory.load(tmp_path / "kept.safetensors")
    assert (read.grid, read.start_levels, read.method) == (found.grid, found.start_levels, name)
    assert torch.equal(us.sample(model, read).images, us.sample(model, found).images)
    assert torch.equal(read.latent, found.latent)
    assert {k: v.tolist() for k, v in read.stored.tensors().items()} == {
        k: v.tolist() for k, v in found.stored.tensors().items()
    }


VARIANTS = [
    *(name for name in METHODS if isinstance(METHODS[name](), us.Stepper)),
    "easyinv:start=1:length=3:eval_at=source",
    "ab:order=3",
    *(f"ab:order={order}:variable={variable}" for order in (2, 3) for variable in ("flow", "log-snr")),
    "dpm++:order=1",
    "dpm++:solver=heun",
    "dpm++:order=3",
    "damped:iterations=3:patience=2",
    "contraction-aware:maximum=4:window=2",
    "gradient-first:first_iterations=3",
    "uni-inv:first=zero",
    "edict:p=1.0",
]
"""Every method that walks by itself, and the options that take another path through its code."""


def tanh(x, level):
    return torch.tanh(x * (0.5 + level.t / 2000))


@pytest.mark.parametrize("start", [0, 1, 5, 10])
@pytest.mark.parametrize("text", VARIANTS)
def test_evaluations_are_those_counted_on_the_way_up(text, start):
    """On a table and on a flow model; the exact number and its bound."""
    method = parse_method(text)
    for schedule in (USUAL, FLOW):
        moves, counted = list(us.Grid.of(schedule, 10).up(start)), us.Counted(tanh)
        for _ in us.walk(counted, torch.ones((2, 1, 4, 4)), moves, method):
            pass
        assert counted.nfe == method.evaluations_on(moves) <= method.evaluations(10 - start)


@pytest.mark.parametrize("clean", ["one", "first"])
@pytest.mark.parametrize("text", VARIANTS)
def test_equal_and_noise_free_levels_give_finite_numbers(text, clean, model):
    """clean='first' makes levels 0 and 1 equal: that move stays where it is, but for methods that mix states."""
    grid, x, method = us.Grid.of(USUAL, 10, clean=clean), draw(3, 1, 4, 4), parse_method(text)
    up, down = (states(method, steps, model.denoiser(), x) for steps in (grid.up(), grid.down()))
    assert torch.isfinite(up).all()
    assert torch.isfinite(down).all()
    if clean == "first" and text.partition(":")[0] not in ("easyinv", "edict"):
        torch.testing.assert_close(up[0], x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(down[-1], down[-2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text", VARIANTS)
def test_a_walk_is_that_of_its_items_and_repeats(text, model):
    method, x = parse_method(text), draw(4, 1, 4, 4)
    whole = states(method, model.grid(10).up(), model.denoiser(), x)
    assert torch.equal(whole, states(method, model.grid(10).up(), model.denoiser(), x))
    alone = [states(method, model.grid(10).up(), model.denoiser(), x[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(whole, torch.cat(alone, dim=1), rtol=1e-8, atol=1e-8)


class NeverWaits(TorchDispatchMode):
    """Refuses to read the value of a tensor in Python: on an accelerator that waits for all work before it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("text", [text for text in VARIANTS if not text.startswith("gradient")])
@pytest.mark.parametrize("schedule", [USUAL, FLOW], ids=["table", "flow"])
def test_no_move_waits_for_the_device(text, schedule):
    """Up, and down from the memory of the way up. Gradient descent is left out: torch's Adam counts in a CPU tensor."""
    method, grid, x = parse_method(text), us.Grid.of(schedule, 8), draw(2, 1, 8, 8)
    with NeverWaits():
        *_, top = us.walk(tanh, x, grid.up(), method)
        *_, _ = us.walk(tanh, top.x, grid.down(), method.sampler, top.state if method.reversible else None)


@pytest.mark.parametrize("start", [us.FromImage(), us.ForwardNoise(steps=2)], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_a_bare_function_is_inverted_as_a_model_is(model, images, name, start):
    """Reference: `invert` and `sample` of the same network; with its trajectory, costs and progress."""
    method, grid, counts = METHODS[name](), model.grid(STEPS), []
    settings = {"method": method, "start": start, "keep": us.Keep("all"), "items": ["a", "b", "c", "d"], "seed": 3}
    expected = us.invert(model, images, grid=grid, **settings)
    noise = us.ItemNoise(3, ["a", "b", "c", "d"])
    found = us.ascend(model.denoiser(), images, grid, method, start, noise, keep=us.Keep("all"), on_move=counts.append)
    assert torch.equal(found.latent, expected.latent)
    assert (found.nfe, found.start, found.index) == (expected.nfe, expected.start, expected.index)
    assert counts == [4] * method.moves(grid, start.level(grid).index, STEPS)
    for kind in ("states", "eps", "residuals"):
        ours, theirs = getattr(found, kind), getattr(expected, kind)
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[i], theirs[i]) for i in ours)
    back = us.descend(model.denoiser(), found.latent, grid, method.sampler, found.stored)
    sampled = us.sample(model, expected.latent, grid=grid, method=method.sampler, stored=expected.stored)
    assert torch.equal(back.latent, sampled.images)
    assert (back.nfe, back.start, back.index) == (sampled.nfe, STEPS, 0)


def test_a_method_of_ones_own_defines_a_step():
    class Euler(us.Stepper):
        def step(self, denoiser, x, step, state=()):
            eps = denoiser(x, step.src)
            return us.Moved(step, us.transfer(x, eps, step), eps)

    grid, x = us.Grid.of(USUAL, 10), draw(2, 1, 4, 4)
    found, plain = (us.ascend(tanh, x, grid, method) for method in (Euler(), us.DDIM(eval_at="source")))
    assert torch.equal(found.latent, plain.latent)
    assert (Euler().order, Euler().evaluations(10), Euler().sampler, Euler().reversible) == (1, 10, us.DDIM(), False)
    with pytest.raises(TypeError, match="abstract"):
        us.Stepper()


def test_what_is_kept_on_the_way_down_is_named_as_on_the_way_up():
    """Reference: the same moves, backwards: states by their level, eps by the noisier end of their move."""
    grid, keep = us.Grid.of(USUAL, 4), us.Keep("all")
    back = us.descend(tanh, draw(2, 1, 4, 4), grid, keep=keep)
    assert (sorted(back.states), sorted(back.eps)) == ([0, 1, 2, 3, 4], [1, 2, 3, 4])
    for level in grid.levels[1:]:
        assert torch.equal(back.eps[level.index], tanh(back.states[level.index], level))


def test_stored_maps_keep_their_names_order_and_items():
    kept = Stored((torch.zeros(2, 3), torch.ones(2, 3)), {0: torch.ones(2, 3), 12: torch.zeros(2, 3)}, {})
    assert list(kept.tensors()) == ["memory.0", "memory.1", "corrections.0", "corrections.12"]
    one = kept.take(slice(0, 1))
    both = Stored.cat([one, kept.take(slice(1, 2))])
    assert all(torch.equal(a, b) for a, b in zip(both.tensors().values(), kept.tensors().values(), strict=True))
    assert kept.bits == 4 * 3 * 32
