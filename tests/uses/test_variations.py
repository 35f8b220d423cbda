"""Variations: against sampling of forward diffusion with each draw; distances, order, cost, refusals."""

from __future__ import annotations

import pytest
import torch

import unsample as us
from unsample.core.rng import ItemNoise

from .conftest import FAMILIES, photograph

STEPS = 10


def test_variations_reproduce_differ_and_count(model, images):
    """Reference: forward diffusion with each seed's draw, sampled down from there."""
    start, grid = us.ForwardNoise(steps=4), model.grid(STEPS)
    found = us.variations(model, images, seeds=[5, 6], start=start, condition=1, steps=STEPS, items=["a", "b", "c"])
    for column, seed in enumerate((5, 6)):
        noise = ItemNoise(seed, ["a", "b", "c"]).draw(images.shape, dtype=images.dtype)
        x = grid[4].alpha * images + grid[4].sigma * noise
        expected = us.sample(model, x, index=4, condition=1, steps=STEPS).images
        assert torch.equal(found.images[:, column], expected)
        rms = (expected.clamp(-1, 1) - images).square().flatten(1).mean(1).sqrt()
        torch.testing.assert_close(found.distances[:, column], rms)
    assert found.nfe == 4
    nearest = (found.nearest_first.clamp(-1, 1) - images[:, None]).square().mean((2, 3, 4))
    assert bool((nearest[:, 0] <= nearest[:, 1]).all())
    again = us.variations(
        model, images[1:], seeds=[6], start=start, condition=1, steps=STEPS, items=["b", "c"], batch_size=1, strength=None
    )
    torch.testing.assert_close(again.images[:, 0], found.images[1:, 1])
    other = us.variations(model, images, seeds=2, start=start, condition=1, steps=STEPS)
    assert not torch.equal(other.images, found.images)


def test_all_the_way_up_and_back_changes_a_variation_by_the_methods_error(model, images):
    settings = {"seeds": 2, "start": us.ForwardNoise(steps=4), "condition": 1, "steps": 40}
    short, long = us.variations(model, images, **settings), us.variations(model, images, strength=1.0, **settings)
    assert (short.nfe, long.nfe) == (4, 77)
    missed = (long.images - short.images).square().mean().sqrt()
    assert 0 < float(missed) < 0.1 * float((short.images[:, 0] - short.images[:, 1]).square().mean().sqrt())


def test_variations_need_noise_and_seeds(model, images):
    with pytest.raises(us.ArgumentError, match="forward start, given none"):
        us.variations(model, images, start=us.FromImage(), steps=STEPS)
    with pytest.raises(us.ArgumentError, match="at least one seed"):
        us.variations(model, images, seeds=0, steps=STEPS)


@pytest.mark.parametrize("name", ["SD", "DiT"])
def test_variations_of_a_pipeline_are_those_of_its_model(name, tmp_path):
    """Reference: `unsample.uses.variations` of the Model of that size and the picture as `load_images` reads it."""
    make, (source, _), size = FAMILIES[name]
    pipe, several = make(), [photograph(tmp_path / f"{i}.png", i) for i in range(2)]
    told = {"seeds": 3, "start": us.ForwardNoise(steps=2), "steps": 4, "batch_size": 1}
    wanted = us.variations(us.load(pipe, size=size), us.load_images(several, size=size), condition=source, **told)
    found = us.variations(pipe, several, prompt=source, **told)
    assert torch.equal(found.images, wanted.images)
    assert torch.equal(found.distances, wanted.distances)
    assert torch.equal(us.variations(pipe, several, condition=source, size=size, **told).images, wanted.images)


def test_each_image_is_encoded_once(counted):
    model, calls = counted
    images = torch.zeros(3, 3, *model.image_size)
    found = us.variations(model, images, seeds=3, start=us.ForwardNoise(steps=2), steps=4, condition="a cat", batch_size=2)
    assert found.images.shape == (3, 3, 3, *model.image_size)
    assert calls == [2, 1]
