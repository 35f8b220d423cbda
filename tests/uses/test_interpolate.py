"""Images along a path of latents: the frames of the keys, conditions in between, and what is refused."""

from __future__ import annotations

import pytest
import torch

import unsample as us
from unsample.uses.paths import along


def keys_of(model, count):
    return us.draw_noise(model, count, seed=1)


@pytest.mark.parametrize("path", ["slerp", "lerp", "norm"])
def test_frames_are_the_samples_of_the_way(toy, path):
    """Reference: sampling the latents of the way by themselves."""
    model = toy()
    keys = keys_of(model, 3)
    found = us.interpolate(model, keys, frames=7, path=path, steps=4)
    assert torch.equal(found.latents, along(keys, 7, path))
    assert torch.equal(found.images, us.sample(model, found.latents, steps=4).images)
    assert (found.keys, found.nfe) == ((0, 3, 6), 4)
    assert torch.allclose(found.images[list(found.keys)], us.sample(model, keys, steps=4).images, atol=1e-5)


def test_batches_change_nothing(toy):
    model = toy()
    keys = keys_of(model, 2).double()
    whole = us.interpolate(model, keys, frames=7, steps=4)
    assert torch.allclose(us.interpolate(model, keys, frames=7, steps=4, batch_size=3).images, whole.images)


def test_a_grid_has_the_keys_in_its_corners(toy):
    model = toy()
    keys = keys_of(model, 4)
    found = us.interpolate(model, keys, frames=(3, 5), steps=4)
    assert found.keys == (0, 4, 10, 14)
    assert torch.equal(found.latents[list(found.keys)], keys)
    assert torch.equal(found.latents.view(3, 5, *model.shape), us.corners(*keys, 3, 5))


def test_one_condition_is_that_of_every_frame(tiny):
    model = us.load(tiny)
    keys = keys_of(model, 2)
    expected = us.sample(model, along(keys, 3), steps=3, condition=["bee"] * 3, guidance=2.0).images
    for condition in ("bee", ["bee", "bee"], [1, 1]):
        found = us.interpolate(model, keys, frames=3, steps=3, condition=condition, guidance=2.0)
        assert torch.equal(found.images, expected)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_conditions_that_differ_meet_half_way_as_embeddings(tiny, guidance):
    """Reference: the network told the mean of two rows of its table, and each end told its class."""
    model = us.load(tiny)
    keys = keys_of(model, 2)
    found = us.interpolate(model, keys, frames=3, steps=3, condition=["ant", "cow"], guidance=guidance, batch_size=2)
    ends = us.sample(model, keys, steps=3, condition=["ant", "cow"], guidance=guidance).images
    assert torch.allclose(found.images[[0, 2]], ends, atol=1e-5)
    table = model.network.unet.class_embedding.weight.data.clone()
    try:
        model.network.unet.class_embedding.weight.data[1] = (table[0] + table[2]) / 2
        middle = us.sample(model, found.latents[1:2], steps=3, condition="bee", guidance=guidance).images
    finally:
        model.network.unet.class_embedding.weight.data.copy_(table)
    assert torch.allclose(found.images[1:2], middle, atol=1e-5)
    assert not torch.allclose(middle, us.sample(model, found.latents[1:2], steps=3, condition="bee").images, atol=1e-4)


def test_the_unconditional_is_an_end_like_any_other(tiny):
    model = us.load(tiny)
    keys = keys_of(model, 2)
    found = us.interpolate(model, keys, frames=3, steps=3, condition=[None, "cow"])
    assert torch.allclose(found.images[:1], us.sample(model, keys[:1], steps=3).images, atol=1e-5)
    assert torch.allclose(found.images[2:], us.sample(model, keys[1:], steps=3, condition="cow").images, atol=1e-5)


def parts(mask):
    """A model told an embedding and a mask by name, as models with prompts are; its eps is the embedding."""

    def encode(conditions, device):
        values = [float(len(condition or "")) for condition in conditions]
        masks = torch.tensor([[1, mask(value)] for value in values])
        return {"tokens": torch.tensor(values)[:, None], "mask": masks}

    def network(x, t, condition):
        assert condition["mask"].dtype == torch.long
        return condition["tokens"][:, :, None, None] * condition["mask"][:, :1, None, None] + 0 * x

    return us.Model(network, us.Schedule.from_betas(us.Schedule.linear_betas()), (1, 2, 2), conditioner=encode)


def test_embeddings_of_several_parts_are_interpolated_part_by_part():
    """eps is the length of the prompt: 1, 2 and 3 of one latent differ by what a step from eps to eps + 1 changes."""
    model = parts(lambda value: 1)
    keys = us.draw_noise(model, 1).expand(2, -1, -1, -1)
    images = us.interpolate(model, keys, frames=3, steps=3, condition=["a", "abc"]).images
    assert torch.allclose(images[1], (images[0] + images[2]) / 2, rtol=1e-4)
    assert not torch.allclose(images[0], images[2])


def test_masks_that_differ_are_refused():
    model = parts(lambda value: int(value > 1))
    with pytest.raises(us.ArgumentError, match="one condition for all latents"):
        us.interpolate(model, us.draw_noise(model, 2), condition=["a", "abc"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"frames": (3, 3)}, "4 latents, the corners of a grid"),
        ({"frames": 1}, "at least 2"),
        ({"path": "arc"}, "unknown path"),
        ({"condition": ["0", "1", "2"]}, "one per latent"),
        ({"condition": ["0", "1"]}, "or give one condition for all latents"),
    ],
)
def test_what_cannot_be_interpolated_is_one_line(toy, arguments, says):
    model = toy()
    with pytest.raises(us.UnsampleError, match=says) as error:
        us.interpolate(model, keys_of(model, 2), **arguments)
    assert "\n" not in str(error.value)


def test_a_key_that_is_not_finite_is_refused(toy):
    model = toy()
    keys = keys_of(model, 2)
    keys[1, 0, 0, 0] = float("nan")
    with pytest.raises(us.DivergenceError):
        us.interpolate(model, keys, steps=2)
