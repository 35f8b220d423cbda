"""Class-conditional latent diffusion on a KL codec, by noise prediction or by flow; reference: diffusers' parts in a loop.

Diffusers' LDMPipeline knows no classes, and none of its pipelines of such networks takes a flow-matching scheduler.
"""

import json

import pytest
import torch
from diffusers import DDIMPipeline, DDPMPipeline, FlowMatchHeunDiscreteScheduler, LDMPipeline, PNDMScheduler, UNet2DModel

import unsample as us
from unsample.models.inspect import inspect_model

from . import tiny
from .agreement import STEPS, agrees, load, pictures

NAMES = ("ant", "bee", "cow")

CLASSES = [2, 0]


def unet(channels=4, side=8):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=4,
        num_class_embeds=4,
    ).eval()


def class_latent(scheduler=None):
    return LDMPipeline(vqvae=tiny.autoencoder(scaling_factor=0.7), unet=unet(), scheduler=scheduler or tiny.ddim())


def name_classes(directory):
    (directory / "classes.json").write_text(json.dumps({"names": NAMES, "null": 3}))


def named(pipeline, tmp_path, **settings):
    name_classes(tmp_path)
    return load(pipeline, tmp_path, **settings)


@torch.no_grad()
def theirs(pipeline, _model, noise, classes, guidance, steps=STEPS):
    """Images in [0, 1] by the scheduler's own steps, guided from class 3, decoded by the autoencoder if there is one."""
    scheduler, x = pipeline.scheduler, noise
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        conditional, null = (pipeline.unet(x, t, class_labels=torch.tensor(each)).sample for each in (classes, [3] * len(x)))
        x = scheduler.step(null + guidance * (conditional - null), t, x).prev_sample
    vae = pipeline.components.get("vqvae")
    images = x if vae is None else vae.decode(x / vae.config.scaling_factor).sample
    return (images / 2 + 0.5).clamp(0, 1)


SCHEDULERS = {
    "epsilon": tiny.ddim(),
    "v": tiny.ddim(prediction_type="v_prediction"),
    "flow": tiny.flow(),
    "plain flow": tiny.flow(shift=1.0),
}


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize(
    ("space", "kind"),
    [("latent", "epsilon"), ("latent", "v"), ("latent", "flow"), ("latent", "plain flow"), ("pixel", "flow")],
)
def test_sample_is_the_schedulers_own(tmp_path, space, kind, guidance):
    """Reference: a naive loop over the scheduler's timesteps, its steps and the network's own calls."""
    scheduler = SCHEDULERS[kind]
    pipeline = class_latent(scheduler) if space == "latent" else DDPMPipeline(unet(3), scheduler)
    model = named(pipeline, tmp_path)
    agrees(theirs, pipeline, model, CLASSES, guidance, condition=["cow", "ant"])


def test_no_condition_is_the_null_class(tmp_path):
    pipeline = class_latent(tiny.flow())
    model = named(pipeline, tmp_path)
    agrees(theirs, pipeline, model, [3, 3], condition=None)
    assert model.conditioner.names == NAMES
    with pytest.raises(us.UnknownNameError, match="did you mean 'cow'"):
        us.sample(model, us.draw_noise(model, 1), steps=2, condition="cows")


@pytest.mark.parametrize("start", [us.FromImage(), us.ForwardNoise(steps=1)])
def test_reconstruct(tmp_path, start):
    """Reference: invert, then sample."""
    model = named(class_latent(tiny.flow()), tmp_path)
    images = pictures(model)
    settings = {"steps": STEPS, "condition": CLASSES}
    found = us.reconstruct(model, images, start=start, **settings)
    latent = us.invert(model, images, start=start, **settings).latent
    assert torch.equal(found.trajectory.latent, latent)
    assert torch.equal(found.images, us.sample(model, latent, **settings).images)


def test_what_it_is(tmp_path):
    """From its configs alone."""
    named(class_latent(tiny.flow()), tmp_path)
    found = inspect_model(str(tmp_path))
    assert (found.family, found.prediction, found.shape) == ("latent U-Net", "flow", (4, 8, 8))
    assert (found.conditions, found.guidance, found.spacing) == ("3 classes, none", "classifier-free", None)
    assert found.codec == {"kind": "AutoencoderKL", "scale": 2, "factor": 0.7, "shift": 0.0}
    assert found.schedule["shift"] == 3.0
    assert us.load(class_latent()).notes == ()


def test_tiles(tmp_path):
    assert named(class_latent(), tmp_path, tiling=True).codec.vae.use_tiling
    assert not us.load(str(tmp_path)).codec.vae.use_tiling


@pytest.mark.parametrize(
    ("scheduler", "complaint"),
    [
        (FlowMatchHeunDiscreteScheduler(), r"given one of FlowMatchHeunDiscreteScheduler"),
        (tiny.flow(use_dynamic_shifting=True), r"a U-Net has no tokens .* give a fixed shift$"),
        (tiny.flow(use_karras_sigmas=True), r"with use_karras_sigmas is not supported"),
    ],
)
def test_other_flow_schedulers_are_refused(tmp_path, scheduler, complaint):
    with pytest.raises(us.ModelError, match=complaint):
        named(class_latent(scheduler), tmp_path)


def test_a_pipeline_that_loses_its_flow_scheduler_is_refused():
    """Reference: diffusers, whose DDIMPipeline makes a DDIMScheduler of any scheduler."""
    pipeline = DDIMPipeline(unet(3), tiny.flow())
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"
    with pytest.raises(us.ModelError, match="save the network as a DDPMPipeline"):
        us.load(pipeline)


def test_clipping_is_noted_only_where_the_scheduler_clips(tmp_path):
    """PNDMScheduler has no clip_sample, which DDIMScheduler has, and is on unless stated."""
    pndm = PNDMScheduler(set_alpha_to_one=False)
    assert us.load(class_latent(pndm)).notes == ()
    assert named(class_latent(pndm), tmp_path).notes == ()
    noted = us.load(class_latent(tiny.ddim(clip_sample=True, thresholding=True))).notes
    assert [note.split(" is ignored")[0] for note in noted] == ["the scheduler's clip_sample", "the scheduler's thresholding"]
