"""A pipeline saved by diffusers, loaded by `unsample.load`: the same images from the same noise."""

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler

import unsample as us

STEPS = 10


@torch.no_grad()
def by_hand(unet, scheduler, x, labels=None, guidance=1.0, null=None):
    """The loop everybody writes: a U-Net, and DDIMScheduler.step."""
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        output = unet(x, t, class_labels=labels).sample[:, : x.shape[1]]
        if guidance != 1:
            empty = unet(x, t, class_labels=torch.full_like(labels, null)).sample[:, : x.shape[1]]
            output = empty + guidance * (output - empty)
        x = scheduler.step(output, t, x).prev_sample
    return x


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max().clamp(min=1)))


CONFIGS = {
    "plain": {},
    "v_prediction": {"scheduler": {"prediction_type": "v_prediction"}},
    "sample": {"scheduler": {"prediction_type": "sample"}},
    "learned variance": {"unet": {"out_channels": 6}},
    "scaled_linear, offset, clean first": {
        "scheduler": {"beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": False}
    },
    "trailing, v": {"scheduler": {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}},
    "not square, one channel": {"unet": {"sample_size": (8, 16), "in_channels": 1, "out_channels": 1}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_sample_equals_unet_and_ddim_scheduler(name, tmp_path, save_tiny):
    """Reference: UNet2DModel and DDIMScheduler.step by hand, float32."""
    unet, scheduler = save_tiny(tmp_path, **CONFIGS[name])
    model = us.load(str(tmp_path), device="cpu")
    noise = us.draw_noise(model, 3, seed=1)
    close(us.sample(model, noise, steps=STEPS).images, by_hand(unet, scheduler, noise))


def test_known_deviation_v_prediction_from_a_level_almost_without_signal(tmp_path, save_tiny):
    """Reference: by hand, trailing cosine, whose last alpha is 5e-5.

    There x0 follows from eps by dividing by alpha, which magnifies float32 rounding 20,000 times; diffusers takes x0 from v
    directly. Measured: 7e-4 in float32, a fifth of a grey level of 255; nothing with float64 states.
    """
    scheduler = {"timestep_spacing": "trailing", "prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}
    unet, theirs = save_tiny(tmp_path, scheduler=scheduler)
    model = us.load(str(tmp_path), device="cpu", dtype="float64")
    noise = us.draw_noise(model, 3, seed=1)
    images = by_hand(unet, theirs, noise)
    assert (us.sample(us.load(str(tmp_path), device="cpu"), noise, steps=STEPS).images - images).abs().max() < 2e-3
    theirs.alphas_cumprod = torch.tensor(model.schedule.alpha_bar, dtype=torch.float64)
    close(us.sample(model, noise.double(), steps=STEPS).images, by_hand(unet.double(), theirs, noise.double()))


def test_sample_equals_ddim_pipeline(tmp_path, save_tiny):
    """Reference: DDIMPipeline itself, given a generator, its images before they are made bytes."""
    unet, scheduler = save_tiny(tmp_path)
    pipeline = DDIMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    theirs = pipeline(batch_size=2, generator=generator, num_inference_steps=STEPS, output_type="np").images
    noise = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(5))
    ours = us.sample(us.load(str(tmp_path), device="cpu"), noise, steps=STEPS).images
    close((ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), torch.from_numpy(theirs))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_class_conditional_sample_equals_unet_and_ddim_scheduler(guidance, tmp_path, save_tiny):
    """Reference: by hand, labels and classifier-free guidance; the null class is named by classes.json."""
    unet, scheduler = save_tiny(tmp_path, unet={"num_class_embeds": 4})
    (tmp_path / "classes.json").write_text('{"names": ["ant", "bee", "cow"], "null": 3}')
    model = us.load(str(tmp_path), device="cpu")
    noise = us.draw_noise(model, 2)
    theirs = by_hand(unet, scheduler, noise, torch.tensor([2, 0]), guidance, null=3)
    close(us.sample(model, noise, steps=STEPS, condition=["cow", 0], guidance=guidance).images, theirs)
    empty = by_hand(unet, scheduler, noise, torch.tensor([3, 3]))
    close(us.sample(model, noise, steps=STEPS).images, empty)
    assert (empty - theirs).abs().max() > 1e-3


def test_a_pipeline_saved_with_a_ddpm_scheduler_samples_as_ddim_made_from_its_config(tmp_path, save_tiny):
    """Reference: DDIMScheduler.from_config of a DDPMScheduler's config."""
    unet, scheduler = save_tiny(tmp_path, kind="DDPMScheduler", scheduler={"beta_schedule": "squaredcos_cap_v2"})
    model = us.load(str(tmp_path), device="cpu")
    noise = us.draw_noise(model, 2)
    theirs = DDIMScheduler.from_config(scheduler.config)
    close(us.sample(model, noise, steps=STEPS).images, by_hand(unet, theirs, noise))


def test_float64_network_agrees_with_float32(tmp_path, save_tiny):
    """The same weights in float64, state in float64."""
    unet, scheduler = save_tiny(tmp_path)
    single = us.load(str(tmp_path), device="cpu")
    double = us.load(str(tmp_path), device="cpu", dtype="float64")
    noise = us.draw_noise(single, 2, dtype=torch.float64)
    images = us.sample(double, noise, steps=STEPS).images
    assert images.dtype == torch.float64
    close(us.sample(single, noise.float(), steps=STEPS).images.double(), images)
    close(by_hand(unet.double(), scheduler, noise), images)
