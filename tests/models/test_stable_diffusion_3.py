"""Stable Diffusion 3 and 3.5: reference, diffusers' own pipeline with its flow-matching scheduler, from random weights."""

import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

import unsample as us

from . import tiny
from .agreement import STEPS, leads_back, load, same

SIZES = [(16, 16), (16, 24)]


def stable_diffusion_3(scheduler=None, *, t5=True, **transformer):
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 40,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 40,
            "pos_embed_max_size": 8,
            **transformer,
        }
    ).eval()
    pipeline = StableDiffusion3Pipeline(
        transformer=network,
        scheduler=scheduler or tiny.flow(),
        vae=tiny.autoencoder(scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=tiny.clip_encoder(16, projection=16),
        tokenizer=tiny.clip_tokenizer(),
        text_encoder_2=tiny.clip_encoder(24, projection=24),
        tokenizer_2=tiny.clip_tokenizer(),
        text_encoder_3=tiny.t5_encoder(40) if t5 else None,
        tokenizer_3=tiny.t5_tokenizer() if t5 else None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def agree(pipeline, model, guidance):
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
    sampled = us.sample(model, noise, steps=STEPS, condition=tiny.PROMPTS, guidance=guidance)
    same(sampled.images, theirs)
    assert sampled.nfe == (STEPS if guidance == 1 else 2 * STEPS)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("size", SIZES)
def test_sample_is_the_pipelines_own(tmp_path, guidance, size):
    """Reference: the pipeline's images from the same noise, with its fixed shift."""
    pipeline = stable_diffusion_3()
    agree(pipeline, load(pipeline, tmp_path, size=size), guidance)


def test_no_condition_is_the_empty_prompt(tmp_path):
    """Reference: the pipeline's images of empty prompts."""
    pipeline = stable_diffusion_3()
    model = load(pipeline, tmp_path)
    noise = us.draw_noise(model, 2, seed=1)
    settings = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "output_type": "pt"}
    same(us.sample(model, noise, steps=STEPS).images, pipeline(["", ""], latents=noise, **settings).images)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("size", SIZES)
def test_sample_is_the_pipelines_own_with_a_shift_by_size(tmp_path, kind, size):
    """Reference: the pipeline's images, the shift growing with the number of patches."""
    pipeline = stable_diffusion_3(tiny.flow(use_dynamic_shifting=True, time_shift_type=kind))
    agree(pipeline, load(pipeline, tmp_path, size=size), 3.0)


def test_sample_is_the_pipelines_own_with_3_5(tmp_path):
    """Reference: the pipeline's images from a transformer with 3.5's second attention and normalised queries and keys."""
    pipeline = stable_diffusion_3(dual_attention_layers=(0,), qk_norm="rms_norm")
    agree(pipeline, load(pipeline, tmp_path), 3.0)


def test_sample_is_the_pipelines_own_without_t5(tmp_path):
    """Reference: the images of a pipeline saved without its third text encoder."""
    pipeline = stable_diffusion_3(t5=False)
    model = load(pipeline, tmp_path)
    agree(pipeline, model, 3.0)
    with pytest.raises(us.ModelError, match="lacks its part text_encoder_2"):
        load(stable_diffusion_3().__class__(**{**pipeline.components, "text_encoder_2": None}), tmp_path / "less")


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_there_and_back(tmp_path, guidance):
    leads_back(load(stable_diffusion_3(), tmp_path, size=SIZES[1]), tiny.PROMPTS, guidance=guidance)


def test_half_precision_is_the_networks_alone(tmp_path):
    """Reference: the same weights in float32; bfloat16 has three digits."""
    narrow = load(stable_diffusion_3().to(torch.bfloat16), tmp_path, dtype="bfloat16")
    wide = us.load(str(tmp_path), device="cpu")
    assert (narrow.network.transformer.dtype, wide.network.transformer.dtype) == (torch.bfloat16, torch.float32)
    noise = us.draw_noise(wide, 2)
    images, expected = (us.sample(m, noise, steps=3, condition=tiny.PROMPTS, guidance=3.0).images for m in (narrow, wide))
    assert images.dtype == torch.float32
    assert 0 < float((images - expected).abs().max()) < 0.05


@pytest.mark.parametrize(("size", "match"), [((16, 18), "multiples of 4"), ((16, 36), "up to 32")])
def test_sizes_that_it_cannot_take(tmp_path, size, match):
    with pytest.raises(us.ArgumentError, match=match):
        load(stable_diffusion_3(), tmp_path, size=size)


def test_another_scheduler_is_refused(tmp_path):
    with pytest.raises(us.ModelError, match=r"cannot load .* FlowMatchHeunDiscreteScheduler"):
        load(stable_diffusion_3(FlowMatchHeunDiscreteScheduler(shift=3.0)), tmp_path)
