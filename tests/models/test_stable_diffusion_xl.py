"""Stable Diffusion XL: reference, diffusers' own pipeline with its DDIMScheduler, from random weights."""

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

import unsample as us

from . import tiny
from .agreement import STEPS, agrees, load, of_prompts, same

WIDTH, TIME = 16, 8
"""Of a text encoder, and of each of the six numbers that say size and crop."""


def stable_diffusion_xl(scheduler=None, *, zeros=True, **unet):
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "cross_attention_dim": 2 * WIDTH,
            "attention_head_dim": (2, 4),
            "norm_num_groups": 4,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME,
            "projection_class_embeddings_input_dim": WIDTH + 6 * TIME,
            **unet,
        }
    ).eval()
    pipeline = StableDiffusionXLPipeline(
        vae=tiny.autoencoder(),
        text_encoder=tiny.clip_encoder(WIDTH),
        text_encoder_2=tiny.clip_encoder(WIDTH, projection=WIDTH),
        tokenizer=tiny.clip_tokenizer(),
        tokenizer_2=tiny.clip_tokenizer(),
        unet=network,
        scheduler=scheduler or tiny.ddim(),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_an_empty_prompt_is_encoded_like_any_other():
    """Reference: the pipeline's call with "", which its zeros stand for only where no prompt is given."""
    pipeline = stable_diffusion_xl(zeros=True)
    model = us.load(pipeline)
    agrees(of_prompts, pipeline, model, ["", ""])


@pytest.mark.parametrize("zeros", [True, False])
def test_no_prompt_is_the_pipelines_unconditional(zeros):
    """Reference: the pipeline's call with the embeddings that its encode_prompt gives for no negative prompt."""
    pipeline = stable_diffusion_xl(zeros=zeros)
    model = us.load(pipeline)
    noise = us.draw_noise(model, 2)
    _, tokens, _, pooled = pipeline.encode_prompt("any", negative_prompt=None)
    assert bool((tokens == 0).all() and (pooled == 0).all()) == zeros
    images = pipeline(
        prompt_embeds=tokens.repeat(2, 1, 1),
        pooled_prompt_embeds=pooled.repeat(2, 1),
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        output_type="pt",
    ).images
    same(us.sample(model, noise, steps=STEPS).images, images)


def test_the_network_takes_its_own_size():
    """A picture of another size would be described as cropped or enlarged: the answer depends on it."""
    pipeline = stable_diffusion_xl()
    given = []
    pipeline.unet.register_forward_pre_hook(
        lambda _module, _args, named: given.append(named["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )
    model = us.load(pipeline, size=(16, 32))
    us.sample(model, us.draw_noise(model, 1), steps=1, condition="a cat")
    assert given[0].tolist() == [[16, 32, 0, 0, 16, 32]]


def test_clipping_is_noted_and_not_applied(tmp_path):
    """Reference: the pipeline's call with clip_sample False; with True it gives other images, for what is cut off is lost.

    The pipelines of Stable Diffusion 1 and 2 themselves turn clip_sample off.
    """
    pipeline = stable_diffusion_xl(tiny.ddim(clip_sample=True))
    model = load(pipeline, tmp_path)
    assert model.notes == ("the scheduler's clip_sample is ignored: what it clips cannot be undone",)
    noise = us.draw_noise(model, 2)
    clipped = of_prompts(pipeline, model, noise, tiny.PROMPTS)
    pipeline.scheduler = tiny.ddim(clip_sample=False)
    whole = of_prompts(pipeline, model, noise, tiny.PROMPTS)
    assert float((clipped - whole).abs().max()) > 0.01
    same(us.sample(model, noise, steps=STEPS, condition=tiny.PROMPTS).images, whole)


def test_the_refiner_is_refused():
    parts = stable_diffusion_xl().components
    refiner = StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=True, add_watermarker=False)
    with pytest.raises(us.errors.ModelError, match="refiner"):
        us.load(refiner)


def test_an_autoencoder_with_a_scale_for_each_channel_is_refused():
    pipeline = stable_diffusion_xl()
    pipeline.vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    with pytest.raises(us.errors.ModelError, match="a scale for each channel"):
        us.load(pipeline)


def test_null_text_is_refused():
    """Its embeddings would be one tensor; XL takes several."""
    model = us.load(stable_diffusion_xl())
    images = torch.zeros(1, 3, 16, 16)
    pivots = us.invert(model, images, steps=4, condition="a cat", keep=us.Keep("states"))
    with pytest.raises(us.errors.ArgumentError, match="no embedding of a condition"):
        us.null_text(model, images, pivots, condition="a cat", guidance=3.0)
