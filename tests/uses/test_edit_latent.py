"""Editing and variations with a latent model that takes prompts."""

from dataclasses import replace

import pytest
import torch

import unsample as us
from unsample.uses.edit import edit
from unsample.uses.variations import variations

from ..models import tiny
from ..models.test_stable_diffusion import QUICK, stable_diffusion


@pytest.fixture(scope="module")
def latent():
    """A latent text model, of random weights."""
    return us.load(stable_diffusion(**QUICK))


def test_a_latent_text_model(latent):
    """A mask of pixels holds the latent's cells, and strength 0 is what the autoencoder gives."""
    height, width = latent.image_size
    pixels = torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = {"source": "a cat", "steps": 5, "start": us.ForwardNoise(steps=1)}
    codec = latent.codec.decode(latent.codec.encode(pixels))
    mask = torch.zeros(height, width)
    mask[:, : width // 2] = 1
    found = edit(latent, pixels, to="a dog", mask=mask, **settings)
    assert found.mask.shape == (2, *latent.shape[1:])
    assert found.mask.float().mean() == 0.5
    assert torch.equal(edit(latent, pixels, to="a dog", strength=0, **settings).images, codec)
    assert torch.equal(edit(latent, pixels, to="a dog", mask=torch.zeros_like(mask), **settings).images, codec)
    back = us.reconstruct(latent, pixels, condition="a cat", steps=5, start=us.ForwardNoise(steps=1)).images
    assert torch.equal(edit(latent, pixels, to="a cat", guidance=1, **settings).images, back)
    assert not torch.equal(edit(latent, pixels, to=tiny.PROMPTS, **settings).images, back)


def test_variations_encode_once(latent):
    calls = []

    class Counting:
        scale = latent.codec.scale

        def encode(self, images):
            calls.append(len(images))
            return latent.codec.encode(images)

        def decode(self, latents):
            return latent.codec.decode(latents)

    pixels = torch.zeros(2, 3, *latent.image_size)
    found = variations(
        replace(latent, codec=Counting()), pixels, seeds=3, start=us.ForwardNoise(steps=2), steps=4, condition="a cat"
    )
    assert found.images.shape == (2, 3, 3, *latent.image_size)
    assert calls == [2]
