"""What every registered method promises, whatever it does: one test over the whole registry, on an exact mixture model."""

import pytest
import torch

import unsample as us
from unsample.core.trajectory import Stored
from unsample.methods.registry import METHODS
from unsample.models.analytic import gaussian

STEPS = 6
STARTS = {"0": us.FromImage(), "2": us.ForwardNoise(steps=2)}


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
    assert found.nfe == method.evaluations_on(list(grid.up(STARTS[start].index(grid))))

    if isinstance(method, us.Stepper):
        assert found.nfe <= method.evaluations(STEPS - STARTS[start].index(grid))
        assert method.evaluations_on([]) == 0

    # float32 in, float32 out
    single = inverted(model, images.float(), name, start)
    assert single.latent.dtype == torch.float32
    torch.testing.assert_close(single.latent.double(), found.latent, rtol=1e-2, atol=1e-2)

    # the way back, with what was stored, item by item
    back = us.sample(model, found.latent, steps=STEPS, method=method.sampler, stored=found.stored)
    parts = us.sample(model, found.latent, steps=STEPS, method=method.sampler, stored=found.stored, batch_size=3)
    assert back.images.shape == images.shape
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
    found = inverted(model, images, name, "2")
    found.save(tmp_path / "kept.safetensors")
    read = us.Trajectory.load(tmp_path / "kept.safetensors")
    assert torch.equal(read.latent, found.latent)
    assert {k: v.tolist() for k, v in read.stored.tensors().items()} == {
        k: v.tolist() for k, v in found.stored.tensors().items()
    }


def test_stored_maps_keep_their_names_order_and_items():
    kept = Stored((torch.zeros(2, 3), torch.ones(2, 3)), {0: torch.ones(2, 3), 12: torch.zeros(2, 3)}, {})
    assert list(kept.tensors()) == ["memory.0", "memory.1", "corrections.0", "corrections.12"]
    one = kept.take(slice(0, 1))
    both = Stored.cat([one, kept.take(slice(1, 2))])
    assert all(torch.equal(a, b) for a, b in zip(both.tensors().values(), kept.tensors().values(), strict=True))
    assert kept.bits == 4 * 3 * 32
