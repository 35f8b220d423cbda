"""Stable Diffusion 1, 2 and XL: reference, diffusers' own pipelines with their DDIMScheduler, from random weights."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

import unsample as us

from . import tiny
from .agreement import STEPS, leads_back, load, same


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


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("size", [None, (16, 24)])
def test_sample_is_the_pipelines_own(tmp_path, guidance, size):
    pipeline = stable_diffusion()
    model = load(pipeline, tmp_path, size=size)
    height, width = model.image_size
    noise = us.draw_noise(model, 2, seed=1)
    theirs = pipeline(
        list(tiny.PROMPTS),
        height=height,
        width=width,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        output_type="pt",
    ).images
    same(us.sample(model, noise, steps=STEPS, condition=tiny.PROMPTS, guidance=guidance).images, theirs)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_there_and_back(tmp_path, guidance):
    leads_back(load(stable_diffusion(), tmp_path), tiny.PROMPTS, guidance=guidance)
