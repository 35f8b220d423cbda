"""`us.interpolate` of live pipelines and pictures: reference, `us.reconstruct`, and paths between what `us.invert` gives."""

import pytest
import torch

import unsample as us
from unsample.uses import interpolate as interpolation
from unsample.uses import invert as inversion

from ..models import tiny
from ..models.test_stable_diffusion import QUICK, stable_diffusion
from .test_sources import picture
from .test_sources_edit import FAMILIES, close, far

SETTINGS = {"steps": 3, "start": us.ForwardNoise(steps=1)}
BOTH = [picture(seed=0), picture(seed=1)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    make, conditions, size = FAMILIES[request.param]
    return make(), conditions, size


@pytest.fixture(scope="module")
def pipe():
    return stable_diffusion(sample_size=16, **QUICK)


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
    wanted = interpolation.interpolate(
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
    grid = interpolation.interpolate(model, noise, frames=(2, 3), steps=3, condition=None)
    assert torch.equal(us.interpolate(pipe, noise, frames=(2, 3), steps=3).images, grid.images)


def test_pictures_are_inverted_as_told(pipe):
    """Reference: `us.invert` with the same settings; each picture is its own item."""
    told = {"start": us.ForwardNoise(steps=2), "seed": 5, "items": ["one", "two"], "batch_size": 1}
    there = us.invert(pipe, BOTH, prompt=tiny.PROMPTS, steps=4, method=us.DDIM(), guidance=2.0, **told)
    found = us.interpolate(pipe, BOTH, prompt=tiny.PROMPTS, steps=4, inversion=us.DDIM(), guidance=2.0, frames=2, **told)
    assert torch.equal(found.latents, there.latent)
    for other in ({"seed": 6}, {"items": [0, 1]}, {"start": us.FromImage()}, {"inversion": us.LookAhead()}):
        how = {**told, "inversion": us.DDIM(), **other}
        far(us.interpolate(pipe, BOTH, prompt=tiny.PROMPTS, steps=4, guidance=2.0, frames=2, **how).latents, there.latent)


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
        (picture(), {}, us.ArgumentError, "at least 2 latents to interpolate between, given 1; add one"),
        ([*BOTH, picture()], {"frames": 2}, us.ArgumentError, "frames: expected at least 3"),
        (BOTH, {"frames": (2, 2)}, us.ArgumentError, "expected 4 latents, the corners of a grid, given 2"),
        (BOTH, {"path": "arc"}, us.UnknownNameError, "path 'arc'"),
        (BOTH, {"prompt": ["a cat"]}, us.ArgumentError, "2 latents, 1 conditions"),
        (BOTH, {"prompt": "a cat", "condition": "a dog"}, us.ArgumentError, "give one, not both"),
        (BOTH, {"inversion": us.parse_method("exact")}, us.ArgumentError, "nothing stored: choose another inversion"),
        (BOTH, {"inversion": us.parse_method("bdia")}, us.ArgumentError, "nothing stored: choose another inversion"),
        ([picture(), "missing.png"], {}, us.ImageError, "no such picture"),
    ],
)
def test_what_has_no_way_is_refused_before_any_work(pipe, monkeypatch, keys, settings, kind, says):
    monkeypatch.setattr(inversion, "invert", None)
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


def test_a_model_has_a_size(pipe):
    model = us.load(pipe)
    for keys in (BOTH, us.draw_noise(model, 2)):
        with pytest.raises(us.ArgumentError, match="model 'StableDiffusionPipeline' is one of 32x32; leave out size"):
            us.interpolate(model, keys, size=(16, 32))
