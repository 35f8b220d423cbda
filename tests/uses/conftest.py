"""Pipelines and pictures that the uses are tested with, and how results are compared."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import unsample as us

from ..models.test_dit import LABELS, dit
from ..models.test_flux import flux
from ..models.test_stable_diffusion import QUICK, stable_diffusion
from ..models.test_stable_diffusion_xl import stable_diffusion_xl

SETTINGS = {"steps": 3, "start": us.ForwardNoise(steps=1)}
FAMILIES = {
    "SD": (lambda: stable_diffusion(sample_size=16, **QUICK), ("a cat", "two dogs"), (16, 32)),
    "XL": (stable_diffusion_xl, ("a cat", "two dogs"), (16, 16)),
    "FLUX dev": (lambda: flux(guided=True), ("a cat", "two dogs"), (16, 32)),
    "FLUX schnell": (lambda: flux(guided=False), ("a cat", "two dogs"), (16, 32)),
    "DiT": (lambda: dit(labels=LABELS), ("goldfish", 5), (16, 16)),
}
"""How a pipeline is made, two conditions, and the size that a picture of 40x24 gets."""


@pytest.fixture(scope="module")
def model(toy):
    """A mixture of Gaussians, in closed form."""
    return toy()


@pytest.fixture(scope="module")
def images():
    """Three, in the size of its model."""
    return torch.randn((3, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(-1, 1)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    make, conditions, size = FAMILIES[request.param]
    return make(), conditions, size


@pytest.fixture(scope="module")
def pipe():
    """Stable Diffusion with random weights, whose own pictures are 32x32."""
    return stable_diffusion(sample_size=16)


@pytest.fixture
def counted(pipe):
    """The model of `pipe` with a codec that counts, and the number of images of each call of its encoder."""
    model, calls = us.load(pipe), []

    class Counting:
        scale = model.codec.scale

        def encode(self, images):
            calls.append(len(images))
            return model.codec.encode(images)

        def decode(self, latents):
            return model.codec.decode(latents)

    return replace(model, codec=Counting()), calls


def picture(width=40, height=24, seed=0):
    """Blocks of random colour, two pixels wide."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 2, width // 2, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def photograph(path, seed=0):
    picture(seed=seed).save(path)
    return path


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def far(ours, theirs):
    assert float((ours - theirs).abs().max()) > 1e-3
