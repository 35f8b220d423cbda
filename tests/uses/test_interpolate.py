"""Images along a path of latents: the frames of the keys, conditions in between, and what is refused."""

from __future__ import annotations

import pytest
import torch

import unsample as us
from unsample.uses.paths import along

from ..models import tiny as prompts
from .conftest import SETTINGS, close, far, picture

BOTH = [picture(seed=0), picture(seed=1)]


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
        ({"frames": (3, 3)}, "4 pictures or latents, the corners of a grid"),
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


# Pictures, which are inverted first


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_ends_are_the_reconstructions(family, guidance):
    """Reference: `us.reconstruct` of each picture under its own condition, and the Model's way between its latents."""
    pipe, told, size = family
    back = us.reconstruct(pipe, BOTH, condition=told, guidance=guidance, **SETTINGS)
    found = us.interpolate(pipe, BOTH, prompt=told, frames=3, guidance=guidance, **SETTINGS)
    assert found.images.shape == (3, 3, *size)
    assert found.keys == (0, 2)
    close(found.images[[0, 2]], back.images)
    assert torch.equal(found.latents[[0, 2]], back.trajectory.latent)
    model = us.load(pipe, size=size)
    wanted = us.interpolate(
        model, back.trajectory.latent, condition=told, frames=3, guidance=guidance, steps=SETTINGS["steps"]
    )
    assert torch.equal(found.images, wanted.images)
    assert found.nfe == wanted.nfe


def test_latents_are_taken_as_they_are(pipe):
    """Reference: interpolation of the Model of that size; a Trajectory is its latents."""
    there = us.invert(pipe, BOTH, prompt="a cat", **SETTINGS)
    wanted = us.interpolate(pipe, BOTH, prompt="a cat", frames=3, path="lerp", **SETTINGS)
    for keys in (there, there.latent):
        found = us.interpolate(pipe, keys, condition="a cat", frames=3, path="lerp", steps=3)
        assert torch.equal(found.images, wanted.images)
    noise = torch.randn((4, 4, 8, 4), generator=torch.Generator().manual_seed(0))
    model = us.load(pipe, size=(16, 8))
    grid = us.interpolate(model, noise, frames=(2, 3), steps=3, condition=None)
    assert torch.equal(us.interpolate(pipe, noise, frames=(2, 3), steps=3).images, grid.images)


def test_pictures_are_inverted_as_told(pipe):
    """Reference: `us.invert` with the same settings; each picture is its own item."""
    told = {"start": us.ForwardNoise(steps=2), "seed": 5, "items": ["one", "two"], "batch_size": 1}
    there = us.invert(pipe, BOTH, prompt=prompts.PROMPTS, steps=4, method=us.DDIM(), guidance=2.0, **told)
    found = us.interpolate(pipe, BOTH, prompt=prompts.PROMPTS, steps=4, inversion=us.DDIM(), guidance=2.0, frames=2, **told)
    assert torch.equal(found.latents, there.latent)
    for other in ({"seed": 6}, {"items": [0, 1]}, {"start": us.FromImage()}, {"inversion": us.LookAhead()}):
        how = {**told, "inversion": us.DDIM(), **other}
        far(us.interpolate(pipe, BOTH, prompt=prompts.PROMPTS, steps=4, guidance=2.0, frames=2, **how).latents, there.latent)


@pytest.mark.parametrize(("frames", "count"), [(3, 3), ((2, 2), 4)])
def test_progress_counts_both_ways(pipe, frames, count):
    seen = []
    pictures = [picture(seed=i) for i in range(4 if isinstance(frames, tuple) else 2)]
    us.interpolate(pipe, pictures, frames=frames, on_step=lambda *step: seen.append(step), **SETTINGS)
    up, total = 2 * len(pictures), 2 * len(pictures) + 3 * count
    done = [*range(len(pictures), up + 1, len(pictures)), *range(up + count, total + 1, count)]
    assert seen == [(each, total) for each in done]
    seen.clear()
    noise = us.draw_noise(us.load(pipe), 2)
    us.interpolate(pipe, noise, frames=3, steps=2, on_step=lambda *step: seen.append(step))
    assert seen == [(3, 6), (6, 6)]


@pytest.mark.parametrize(
    ("keys", "settings", "kind", "says"),
    [
        (picture(), {}, us.ArgumentError, "at least 2 pictures or latents to interpolate between, given 1; add one"),
        ([*BOTH, picture()], {"frames": 2}, us.ArgumentError, "frames: expected at least 3"),
        (BOTH, {"frames": (2, 2)}, us.ArgumentError, "expected 4 pictures or latents, the corners of a grid, given 2"),
        (BOTH, {"path": "arc"}, us.UnknownNameError, "path 'arc'"),
        (BOTH, {"prompt": ["a cat"]}, us.ArgumentError, "2 latents, 1 condition"),
        (BOTH, {"prompt": "a cat", "condition": "a dog"}, us.ArgumentError, "give one, not both"),
        (BOTH, {"inversion": us.parse_method("exact")}, us.ArgumentError, "nothing stored: choose another inversion"),
        (BOTH, {"inversion": us.parse_method("bdia")}, us.ArgumentError, "nothing stored: choose another inversion"),
        ([picture(), "missing.png"], {}, us.ImageError, "no such picture"),
    ],
)
def test_what_has_no_path_is_refused_before_any_work(pipe, monkeypatch, keys, settings, kind, says):
    monkeypatch.setattr("unsample.uses.interpolate.invert_first", None)
    with pytest.raises(kind, match=says) as caught:
        us.interpolate(pipe, keys, **{**SETTINGS, **settings})
    assert "\n" not in str(caught.value)


def test_a_trajectory_that_is_not_a_latent_at_the_noisy_end(pipe):
    short = us.invert(pipe, BOTH, until=2, **SETTINGS)
    with pytest.raises(us.ArgumentError, match="up to the noisy end, level 3, given one up to 2: give steps"):
        us.interpolate(pipe, short, steps=3)
    for method in ("bdia", "direct"):
        stored = us.invert(pipe, BOTH, method=us.parse_method(method), **SETTINGS)
        with pytest.raises(us.ArgumentError, match=r"nothing stored: .* or give trajectory\.latent") as caught:
            us.interpolate(pipe, stored, steps=3)
        assert "\n" not in str(caught.value)
        assert len(us.interpolate(pipe, stored.latent, steps=3, frames=2).images) == 2


def test_each_picture_is_encoded_once(counted):
    model, calls = counted
    us.interpolate(model, [picture(32, 32), picture(32, 32, seed=1)], frames=3, batch_size=1, **SETTINGS)
    assert calls == [1, 1]
