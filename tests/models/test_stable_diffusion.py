"""Stable Diffusion 1, 2 and XL: reference, diffusers' own pipelines with their DDIMScheduler, from random weights."""

import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)

import unsample as us
from unsample.models.digest import digest_of
from unsample.models.scheduler_config import read_scheduler

from . import tiny
from .agreement import STEPS, agrees, grid_of, load, of_prompts

QUICK = {
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "mid_block_type": None,
}
"""A U-Net of two blocks, for many evaluations."""


def stable_diffusion(scheduler=None, **unet):
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 16,
            "attention_head_dim": 4,
            "norm_num_groups": 4,
            **unet,
        }
    ).eval()
    pipeline = StableDiffusionPipeline(
        vae=tiny.autoencoder(),
        text_encoder=tiny.clip_encoder(),
        tokenizer=tiny.clip_tokenizer(),
        unet=network,
        scheduler=scheduler or tiny.ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_size_that_the_pipelines_own_call_would_refuse():
    odd = us.load(stable_diffusion(), size=(18, 22))
    assert us.sample(odd, us.draw_noise(odd, 2), steps=2).images.shape == (2, 3, 18, 22)


def test_a_live_pipeline_shares_its_networks_and_stays_as_it_is(tmp_path):
    """Reference: the same pipeline, saved and loaded."""
    pipeline = stable_diffusion()
    scheduler, before = pipeline.scheduler, digest_of(pipeline.unet)
    saved = load(pipeline, tmp_path)
    model = us.load(pipeline)
    noise = us.draw_noise(model, 2)
    settings = {"steps": STEPS, "condition": tiny.PROMPTS, "guidance": 3.0}
    assert torch.equal(us.sample(model, noise, **settings).images, us.sample(saved, noise, **settings).images)
    assert model.network.unet is pipeline.unet
    assert model.codec.vae is pipeline.vae
    assert pipeline.scheduler is scheduler
    assert digest_of(pipeline.unet) == before
    assert saved.digest == digest_of(pipeline.text_encoder, pipeline.vae, pipeline.unet)


def test_a_tiny_autoencoder():
    """Reference: the pipeline's call with TAESD in place of its autoencoder."""
    pipeline = stable_diffusion()
    torch.manual_seed(4)
    channels = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    pipeline.vae = AutoencoderTiny(**channels, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).eval()
    model = us.load(pipeline)
    assert model.codec.scale == 2
    agrees(of_prompts, pipeline, model, tiny.PROMPTS)
    assert model.codec.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 8, 8)


# Stable Diffusion 2


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_velocity_trailing_and_no_signal_at_the_end(tmp_path, zero_snr, guidance):
    """Reference: the pipeline's call. 8 steps divide 1000; of others diffusers' trailing steps leave its own grid.

    Measured without the rescaling 1e-6; with it, our last alpha is 2^-12 where theirs is 0.
    """
    config = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": zero_snr}
    pipeline = stable_diffusion(tiny.ddim(**config))
    model = load(pipeline, tmp_path)
    assert (model.prediction, model.spacing, model.grid(8)[8].t) == ("v_prediction", "trailing", 999)
    agrees(of_prompts, pipeline, model, tiny.PROMPTS, guidance, steps=8)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_prediction_of_the_image(tmp_path, guidance):
    """Reference: the pipeline's call."""
    pipeline = stable_diffusion(tiny.ddim(prediction_type="sample"))
    model = load(pipeline, tmp_path)
    assert model.prediction == "sample"
    agrees(of_prompts, pipeline, model, tiny.PROMPTS, guidance)


# Whatever scheduler was saved with it

SAVED = {
    "PNDM": (PNDMScheduler, {"skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False}),
    "LMS": (LMSDiscreteScheduler, {}),
    "Euler": (EulerDiscreteScheduler, {"timestep_spacing": "leading", "steps_offset": 1}),
    "Euler, linspace": (EulerDiscreteScheduler, {}),
    "Euler ancestral, trailing": (EulerAncestralDiscreteScheduler, {"timestep_spacing": "trailing"}),
    "Euler, zero snr": (
        EulerDiscreteScheduler,
        {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ),
    "DPM-Solver": (DPMSolverMultistepScheduler, {"prediction_type": "v_prediction"}),
    "DPM-Solver, Karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "UniPC": (UniPCMultistepScheduler, {}),
    "DDPM": (DDPMScheduler, {"clip_sample": False}),
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("steps", [STEPS, 8, 50])
@pytest.mark.parametrize("name", SAVED)
def test_the_grid_is_that_of_ddim_with_the_schedulers_config(name, steps):
    """Reference: DDIMScheduler.from_config, its timesteps and tables (float32; where they have alpha 0, ours is 2^-12)."""
    kind, config = SAVED[name]
    scheduler = kind(**BETAS, **config)
    ddim = DDIMScheduler.from_config(scheduler.config)
    ddim.set_timesteps(steps)
    grid = grid_of(scheduler, steps)
    assert [level.t for level in grid.levels[:0:-1]] == ddim.timesteps.tolist()
    tables = torch.stack([ddim.final_alpha_cumprod, *ddim.alphas_cumprod[ddim.timesteps.flip(0)]])
    torch.testing.assert_close(torch.tensor([level.alpha**2 for level in grid.levels]), tables.float(), rtol=0, atol=1e-6)
    assert read_scheduler(scheduler)["prediction"] == ddim.config.prediction_type


@pytest.mark.parametrize("name", ["PNDM", "Euler"])
def test_sample_is_that_of_ddim_whatever_scheduler_was_saved(tmp_path, name):
    """Reference: the pipeline's call with DDIMScheduler.from_config in place of what it was saved with."""
    kind, config = SAVED[name]
    pipeline = stable_diffusion(kind(**BETAS, **config))
    model = load(pipeline, tmp_path)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    agrees(of_prompts, pipeline, model, tiny.PROMPTS, 3.0)


# Refused

REFUSED = {
    "inpainting": ({"in_channels": 9}, "9 to 4 channels"),
    "guidance as an input": ({"time_cond_proj_dim": 8}, "consistency model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_are_told_more_are_refused(name):
    unet, said = REFUSED[name]
    with pytest.raises(us.errors.ModelError, match=said):
        us.load(stable_diffusion(**unet))
