"""What every family must hold: the pipeline's own images, and latents that lead back."""

from dataclasses import dataclass, replace
from typing import Any

import torch

import unsample as us
from unsample.models.scheduler_config import read_scheduler

STEPS = 7
"""Does not divide 1000."""

TOLERANCE = 1e-4


def load(pipeline, directory, **settings):
    """The pipeline, saved and loaded by our path."""
    pipeline.save_pretrained(directory)
    return us.load(str(directory), device="cpu", **settings)


def same(ours, theirs):
    """Our images against those of `output_type="pt"`, in [0, 1]."""
    assert ours.shape == theirs.shape
    assert float(theirs.std()) > 1e-3, "a pipeline that gives flat images proves nothing"
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=TOLERANCE)


def grid_of(scheduler, steps):
    """The grid that a model with this scheduler has."""
    read = read_scheduler(scheduler)
    return us.Grid.of(read["schedule"], steps, **{name: read[name] for name in ("spacing", "steps_offset", "clean")})


def of_prompts(pipeline, model, noise, prompts, guidance=1.0, *, steps=STEPS, **settings):
    """The images of a text pipeline's own call, of the model's size."""
    height, width = model.image_size
    settings = {"height": height, "width": width, "latents": noise, "num_inference_steps": steps, **settings}
    return pipeline(list(prompts), guidance_scale=guidance, output_type="pt", **settings).images


def agrees(theirs, pipeline, model, conditions, guidance=1.0, *, compare=same, condition=..., steps=STEPS, **settings):
    """Our samples, once they are what `theirs(pipeline, model, noise, conditions, guidance, ...)` gives of the same noise.

    `condition` is what ours is called with, where it is not that of theirs; so are the `settings` of theirs alone.
    """
    noise = us.draw_noise(model, len(conditions), seed=1)
    condition = conditions if condition is ... else condition
    ours = us.sample(model, noise, steps=steps, condition=condition, guidance=guidance)
    compare(ours.images, theirs(pipeline, model, noise, conditions, guidance, steps=steps, **settings))
    return ours


@dataclass(frozen=True)
class Softly:
    """A network whose answers are a tenth of another's."""

    network: Any

    def __call__(self, x, t, condition):
        return 0.1 * self.network(x, t, condition)

    def guided(self, guidance):
        return Softly(self.network.guided(guidance))


def pictures(model, count=2):
    """Noise in [-1, 1] of the size of a model's images."""
    return torch.rand((count, 3, *model.image_size), generator=torch.Generator().manual_seed(0)) * 2 - 1


def softly(model):
    """An untrained network bends the path more than any iteration could follow; a tenth of its answers does not."""
    return replace(model, network=Softly(model.network))


@torch.no_grad()
def leads_back(model, condition=None, *, method="fixed-point:iterations=12", count=2, steps=STEPS, **settings):
    """Invert and sample, with a tenth of the network's answers: the images that the codec alone gives.

    From the image itself, by a method that undoes the sampler to rounding error: what is left is the adapter's.
    """
    model, images = softly(model), pictures(model, count)
    settings = {"steps": steps, "condition": condition, **settings}
    there = us.invert(model, images, method=us.parse_method(method), start=us.FromImage(), **settings)
    assert there.latent.shape == (count, *model.shape)
    assert bool(there.finite.all())
    back = us.sample(model, there.latent, **settings).images
    expected = model.codec.decode(model.codec.encode(images))
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(back, expected, rtol=0, atol=1e-3)
